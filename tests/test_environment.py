"""The list of dependencies and the command that installs it, as far as that needs no installation."""

import re
import subprocess
from pathlib import Path

import yaml
from synthtune.run import environment

ROOT = Path(__file__).parents[1]


def test_the_list_pins_everything_and_both_readers_see_the_same():
    text = (ROOT / "environment.yml").read_text("utf-8")
    pip, packages = environment.requirements(text)
    read = yaml.safe_load(text)
    assert read["name"] == "synthtune" and f"pip={pip}" in read["dependencies"]
    assert ["-e .", *packages] == next(entry["pip"] for entry in read["dependencies"] if isinstance(entry, dict))
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
    calls = []
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "LIST", tmp_path / "environment.yml")
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".venv" / "environment.yml")

    def step(command, *_, **__):
        calls.append(command)
        (tmp_path / ".venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environment, "_run", step)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "half").write_text("")
    (tmp_path / "environment.yml").write_text(
        "dependencies:\n  - pip=25.2\n  - pip:\n      # why\n      - a==1  # b\n"
    )
    environment.set_up()
    assert len(calls) == 5 and not (tmp_path / ".venv" / "half").exists()
    assert (tmp_path / ".venv" / "requirements.txt").read_text() == "a==1\n"
    environment.set_up()
    assert len(calls) == 5
    (tmp_path / "environment.yml").write_text("dependencies:\n  - pip=25.2\n  - pip:\n      - a==2\n")
    environment.set_up()
    assert len(calls) == 10 and (tmp_path / ".venv" / "requirements.txt").read_text() == "a==2\n"
