"""The command line of a run, on quick notebooks of the same names: what runs, what is reused, how a run
ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from synthtune.files import read_costs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# A stand-in for every stage: writes the files the real notebook promises, and behaves as a control file tells
# it to.
CELL = """
import json, pathlib, time
from synthtune.progress import progress
control = pathlib.Path({control!r})
plan = json.loads(control.read_text()) if control.exists() else {{}}
action = plan.get(globals().get("task", "") + "/" + {stage!r})
if action == "hang":
    for step in progress(range(10000), desc="wait"):
        time.sleep(0.05)
if action == "fail":
    from synthtune.errors import CorpusError
    raise CorpusError("tweets.txt, line 7: no rating; correct that line.")
for name in {outputs!r}:
    path = pathlib.Path(run_dir, name.format(**globals()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(time.time_ns()))
"""

STAGES = {
    "01_teacher": ["{task}/budget-{budget}/teacher.parquet"],
    "02_annotate": ["{task}/budget-{budget}/annotated.parquet", "{task}/budget-{budget}/annotation.json"],
    "03_generate": ["{task}/budget-{budget}/generated.parquet", "{task}/budget-{budget}/generation.json"],
    "04_students": ["{task}/results.parquet"],
    "05_figures": ["figures/claims.md", "figures/report.html"],
}

QUEUE_SECONDS = 4
"""Between two looks at the queue of a cluster."""

DRIVER = """
import signal, sys
# A shell that starts the tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from synthtune.run import graph, reproduce
from synthtune.scale import cluster
cluster.QUEUE_SECONDS = {seconds}
graph.NOTEBOOKS = Path({notebooks!r})
graph.Run.fetch_assets = lambda run: None
sys.exit(reproduce.main(sys.argv[1:]))
"""


class Study:
    """A folder of quick notebooks, a run folder, and the command on them."""

    def __init__(self, folder: Path):
        self.runs, self.control, self.notebooks = (
            folder / "a run",
            folder / "control.json",
            folder / "note books",
        )
        self.notebooks.mkdir()
        for stage, outputs in STAGES.items():
            parameters = "profile = overrides = run_dir = None"
            parameters += "\ntask = ''" if stage != "05_figures" else ""
            parameters += "\nbudget = 0" if stage < "04" else ""
            notebook = nbformat.v4.new_notebook()
            notebook.metadata.kernelspec = {
                "name": "python3",
                "display_name": "Python 3",
                "language": "python",
            }
            notebook.cells = [
                nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="a"),
                nbformat.v4.new_code_cell(
                    CELL.format(control=str(self.control), outputs=outputs, stage=stage), id="b"
                ),
            ]
            nbformat.write(notebook, self.notebooks / f"{stage}.ipynb")
        self.driver = folder / "driver.py"
        self.driver.write_text(DRIVER.format(notebooks=str(self.notebooks), seconds=QUEUE_SECONDS))

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [
            sys.executable,
            str(self.driver),
            "--set",
            f"run_dir={self.runs}",
            "--set",
            "budgets=[20]",
            "--only",
            "tweets",
            *arguments,
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "lib"), "SYNTHTUNE_STARTED_IN": str(self.runs)},
        )

    def command(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        assert "Traceback" not in said
        return said

    def plan(self, **actions: str) -> None:
        self.control.write_text(json.dumps({f"tweets/{stage}": action for stage, action in actions.items()}))

    def stamps(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.runs)): path.read_text() for path in self.runs.glob("tweets/**/*.*")
        }

    def wait_for(self, kernels: int, seconds: float = 40) -> None:
        """Wait until as many kernels run, or none."""
        deadline = time.monotonic() + seconds
        while len(self.kernels()) != kernels:
            assert time.monotonic() < deadline, self.kernels()
            time.sleep(0.1)

    def kernels(self) -> list[int]:
        """Kernels of this run's notebooks."""
        return [pid for pid, info in self.processes().items() if info["cmdline"][1:3] == ["-m", "ipykernel_launcher"]]

    def processes(self) -> dict[int, dict]:
        """What psutil knows of each process of this run."""
        return {
            process.pid: {**process.info, "cmdline": process.info["cmdline"] or []}  # none of one that is just ending
            for process in psutil.process_iter(["cmdline", "environ", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and (process.info["environ"] or {}).get("SYNTHTUNE_STARTED_IN") == str(self.runs)
        }

    def wait_for_end(self, seconds: float = 40) -> None:
        """Wait until no process of this run is left."""
        deadline = time.monotonic() + seconds
        while self.processes():
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.1)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_a_run_a_second_run_and_a_changed_setting(study):
    said = study.command("--dry-run")
    assert "5 of 5 notebooks would run" in said and "run    02_annotate · tweets · budget 20" in said
    assert re.search(r"would run, [1-9]\d* at a time:", said)
    assert not (study.runs / "settings.json").exists()

    said = study.command("--jobs", "2")
    assert "[1/5] 01_teacher · tweets · budget 20" in said and "[5/5] 05_figures: done in" in said
    assert "figures/report.html" in said
    first = study.stamps()
    assert len(read_costs(study.runs)) == 5
    assert not list(study.runs.glob(".work*")) and not list(study.notebooks.glob(".*"))

    said = study.command()
    assert "Nothing to do: everything is up to date." in said and "figures/report.html" in said
    assert study.stamps() == first

    said = study.command("--set", "generate.temperature=0.9", "--dry-run")
    assert "3 of 5 notebooks would run" in said and "reuse  02_annotate · tweets · budget 20" in said
    assert "Nothing to do" in study.command()  # the dry run has left no trace

    said = study.command("--set", "generate.temperature=0.9")
    assert "3 notebooks to run" in said and "2 of an earlier run are reused" in said
    changed = {name for name, stamp in study.stamps().items() if first[name] != stamp}
    assert changed == {
        "tweets/budget-20/generated.parquet",
        "tweets/budget-20/generation.json",
        "tweets/results.parquet",
    }


def test_a_failing_notebook_is_one_sentence_and_the_next_run_goes_on(study):
    study.plan(**{"02_annotate": "fail"})
    said = study.command("--jobs", "1", status=1)
    assert "02_annotate · tweets · budget 20: tweets.txt, line 7: no rating; correct that line." in said
    assert "Finished work is kept" in said and "02_annotate.failed.ipynb" in said
    teacher = (study.runs / "tweets/budget-20/teacher.parquet").read_text()

    study.plan()
    study.command()
    assert (study.runs / "tweets/budget-20/teacher.parquet").read_text() == teacher
    assert not list(study.runs.glob("notebooks/*.failed.ipynb"))


def test_stored_outputs_make_no_notebook_run_again(study):
    study.command()
    for path in study.notebooks.glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        notebook["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "as published"}]
        path.write_text(json.dumps(notebook))
    assert "0 of 5 notebooks would run" in study.command("--dry-run")


def test_a_notebook_that_was_edited_finds_the_synthetic_examples_that_are_there(study):
    study.command()
    for stage in ("02_annotate", "03_generate"):
        path = study.notebooks / f"{stage}.ipynb"
        path.write_text(path.read_text().replace("import", "# A remark.\\nimport", 1))
    study.plan(**{"02_annotate": "fail", "03_generate": "fail"})
    study.command(status=1)
    for name in ("annotated", "generated"):
        assert (study.runs / f"tweets/budget-20/{name}.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_everything_and_is_resumed(study, number):
    study.plan(**{"02_annotate": "hang"})
    process = study.start("--jobs", "1", "--set", "figures.resamples=100")
    deadline = time.monotonic() + 60
    while not (study.runs / "tweets/budget-20/teacher.parquet").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    study.wait_for(0), study.wait_for(1)

    if number == signal.SIGINT:
        assert "Another run is working in" in study.command(status=1)
    process.send_signal(number)
    start = time.monotonic()
    said, _ = process.communicate(timeout=20)
    study.wait_for(0, seconds=10)
    assert time.monotonic() - start < 10
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Finished work is kept" in said and "Traceback" not in said
    study.wait_for_end()

    study.plan()
    teacher = (study.runs / "tweets/budget-20/teacher.parquet").read_text()
    said = study.command("--set", "figures.resamples=100")
    assert "1 of an earlier run are reused" in said or "2 of an earlier run are reused" in said
    assert (study.runs / "tweets/budget-20/teacher.parquet").read_text() == teacher
    assert not list(study.runs.glob(".work*"))


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--profile", "labtop"], "laptop"),
        (["--set", "teacher.epoch=6"], "teacher.epochs"),
        (["--set", "teacher.epochs=many"], "teacher.epochs"),
        (["--set", "budgets=[9000]"], "pool"),
        (["--only", "film_review"], "film_reviews"),
        (["--data-root", "/no/such/folder"], "/no/such/folder"),
        (["--jobs", "0"], "jobs"),
    ],
)
def test_bad_usage_names_what_was_meant(study, arguments, named):
    said = study.command(*arguments, status=2)
    assert named in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("there", [["rte"], ["rte", "mrpc"]])
def test_corpora_that_a_folder_lacks_are_left_out_and_named(tmp_path, there):
    for name in there:
        (tmp_path / "data" / name).mkdir(parents=True)
    command = [sys.executable, "-m", "synthtune.run.reproduce", "--profile", "public", "--dry-run", "--data-root", str(tmp_path / "data"),
               "--set", f"run_dir={tmp_path / 'run'}"]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "lib")}, text=True, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert ran.returncode == 0, ran.stdout
    out = [task for task in ("banking77", "rte", "mrpc", "boolq", "webnlg", "sgd") if task not in there]
    assert f"has no such folder: {', '.join(out)}." in ran.stdout
    students = {line.split("·")[1].strip() for line in ran.stdout.splitlines() if "04_students" in line}
    assert students == set(there)
