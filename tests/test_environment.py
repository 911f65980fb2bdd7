"""The list of dependencies and the command that installs it, as far as that needs no installation."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from synthtune.run import environment

ROOT = Path(__file__).parents[1]


def test_the_list_pins_everything_and_conda_reads_the_same():
    read = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    packages = [re.sub(r"\s+#.*", "", line) for line in lines if not line.startswith("#")]
    assert read["name"] == "synthtune" and "pip=25.2" in read["dependencies"] and "pip==25.2" in packages
    assert {"pip": ["-r requirements.txt", "-e ."]} in read["dependencies"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", package) for package in packages)
    assert len({package.split("==")[0].lower().replace("_", "-") for package in packages}) == len(packages)


def test_help_needs_no_environment_and_works_from_any_folder(tmp_path):
    said = subprocess.run(
        [str(ROOT / "run_all.sh"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert said.returncode == 0 and "--profile" in said.stdout and "./run_all.sh test" in said.stdout


def test_without_python_it_says_what_it_needs(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname"):
        (tools / tool).symlink_to(
            subprocess.run(["which", tool], capture_output=True, text=True).stdout.strip()
        )
    said = subprocess.run(
        [str(ROOT / "run_all.sh"), "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": str(tools)},
    )
    assert said.returncode != 0 and "Python 3.11" in said.stderr and len(said.stderr.splitlines()) == 1


def test_a_set_up_that_was_interrupted_or_has_another_list_is_made_anew(tmp_path, monkeypatch):
    calls, pip_fails = [], False

    def step(command, **_):
        calls.append(command)
        (tmp_path / ".venv").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, int(pip_fails and "--requirement" in command))

    monkeypatch.setattr(environment.subprocess, "run", step)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "half").write_text("")
    for text, more in (("# why\npip==2\na==1  # b\n", 5), ("# why\npip==2\na==1  # b\n", 0), ("pip==2\na==2\n", 5)):
        (tmp_path / "requirements.txt").write_text(text)
        before = len(calls)
        environment.set_up(tmp_path)
        assert len(calls) == before + more and not (tmp_path / ".venv" / "half").exists()
        assert (tmp_path / ".venv" / "requirements.txt").read_text() == text
    (tmp_path / "requirements.txt").write_text("pip==2\na==3\n")
    pip_fails = True
    with pytest.raises(SystemExit, match="check the network.*, then run again"):
        environment.set_up(tmp_path)
    assert not (tmp_path / ".venv" / "requirements.txt").exists()
