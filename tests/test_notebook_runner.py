"""One notebook under the runner: what is kept, what is said, and that nothing outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from synthtune.files import read_costs
from synthtune.progress import Screen, report
from synthtune.run.board import Board

ROOT = Path(__file__).parents[1]


class Bench:
    """A folder in which small notebooks are run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(
        self,
        *cells: str,
        parameters: dict | None = None,
        name: str = "02_annotate",
        environment: dict | None = None,
    ) -> subprocess.Popen:
        notebook = nbformat.v4.new_notebook()
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        defaults = nbformat.v4.new_code_cell("task = ''\nbudget = 0", metadata={"tags": ["parameters"]})
        notebook.cells = [defaults, *map(nbformat.v4.new_code_cell, cells)]
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        (self.folder / "parameters.json").write_text(
            json.dumps(parameters or {"task": "tweets", "budget": 125})
        )
        outer = {name: value for name, value in os.environ.items() if name != "SYNTHTUNE_RUN"}
        until, self.run_is_on = os.pipe()
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "synthtune.run.notebook_runner",
                str(self.folder / f"{name}.ipynb"),
                str(self.folder / "out" / f"{name}.ipynb"),
                "--parameters",
                str(self.folder / "parameters.json"),
                "--record",
                str(self.folder / "minutes"),
            ],
            stdin=until,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={
                **outer,
                **(environment or {}),
                "PYTHONPATH": str(ROOT / "lib"),
                "TMPDIR": str(self.folder / "tmp"),
                "SYNTHTUNE_STARTED_IN": str(self.folder),
            },
        )

    def run(self, *cells: str, **options) -> tuple[int, str]:
        process = self.start(*cells, **options)
        said, _ = process.communicate(timeout=60)
        assert "Traceback" not in said
        return process.returncode, said

    def output(self, name: str = "02_annotate.ipynb") -> Path:
        return self.folder / "out" / name

    def left(self) -> list[str]:
        return [path.name for path in (self.folder / "tmp").iterdir()]


def numbers(file: Path, process: subprocess.Popen) -> list[int]:
    """Numbers that a cell of a running notebook writes into a file, once it has."""
    deadline = time.monotonic() + 40
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    return list(map(int, file.read_text().split()))


def wait_for_end(processes: list[int]) -> None:
    """Wait until of processes, by their numbers, none runs."""
    deadline = time.monotonic() + 8
    while any(psutil.pid_exists(one) and psutil.Process(one).status() != psutil.STATUS_ZOMBIE for one in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "tmp").mkdir()
    return Bench(tmp_path)


def test_a_notebook_is_executed_with_its_parameters_and_its_cost_is_recorded(bench):
    cell = (
        "from synthtune.progress import progress\nimport time\n"
        "for _ in progress(range(30), desc='wait'): time.sleep(0.05)\nprint(task, budget)"
    )
    for _ in range(2):
        status, said = bench.run(cell)
        assert (
            status == 0 and said.splitlines()[0] == "02_annotate · tweets · budget 125" and "done in" in said
        )
    executed = nbformat.read(bench.output(), as_version=4)
    assert [output.text for output in executed.cells[-1].outputs] == [
        "tweets 125\n"
    ]  # and nothing of the bar
    assert str(bench.folder) not in bench.output().read_text()
    rows = read_costs(bench.folder)
    assert [(row["notebook"], row["task"], row["budget"]) for row in rows] == [
        ("02_annotate", "tweets", 125)
    ]
    assert 0 < rows[0]["minutes"] < 1 and 0.02 < rows[0]["peak_rss_gib"] < 2
    assert bench.left() == []


@pytest.mark.slow
def test_errors_of_ours_are_the_sentence_alone_and_others_name_the_cell(bench):
    status, said = bench.run(
        "x = 1",
        "from synthtune.errors import SettingsError\n"
        "raise SettingsError('budget: 9000 is more than the pool.')",
    )
    assert status == 1 and "02_annotate · tweets · budget 125: budget: 9000 is more than the pool." in said
    assert not bench.output().exists() and "Traceback" in bench.output("02_annotate.failed.ipynb").read_text()
    status, said = bench.run("1 / 0")
    assert status == 1 and "failed with ZeroDivisionError: division by zero." in said
    assert not (bench.folder / "minutes").exists()
    status, said = bench.run("import torch\nraise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')")
    assert status == 1 and "the GPU's memory ran out. Lower teacher.batch_size" in said
    status, said = bench.run("x = 1")
    assert status == 0 and not bench.output("02_annotate.failed.ipynb").exists()


@pytest.mark.parametrize(
    "number, words", [(signal.SIGKILL, "most likely because memory ran out"), (signal.SIGSEGV, "SIGSEGV")]
)
def test_a_dead_kernel_is_noticed_within_seconds(bench, number, words):
    start = time.monotonic()
    status, said = bench.run(
        f"import os, time\ntime.sleep(1)\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)"
    )
    assert status == 1 and words in said and "tweets · budget 125" in said and "GiB" in said
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_an_interrupted_runner(bench, number):
    started = bench.folder / "started"
    process = bench.start(
        f"import subprocess, pathlib, os\nchild = subprocess.Popen(['sleep', '300'], "
        f"stdout=-3, stderr=-3)\n"
        f"pathlib.Path({str(started)!r}).write_text(f'{{os.getpid()}} "
        f"{{child.pid}}')\nchild.wait()"
    )
    kernel, child = numbers(started, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=10)
    # A kernel whose runner was killed ends by itself; only what it had started through a shell is out of
    # reach then.
    watched = [kernel] if number == signal.SIGKILL else [kernel, child]
    try:
        wait_for_end(watched)
    finally:
        if psutil.pid_exists(child):
            psutil.Process(child).kill()
    assert not bench.output().exists() and "Traceback" not in said
    if number != signal.SIGKILL:
        assert process.returncode == 130 and bench.left() == []


def test_many_kernels_start_at_once(tmp_path):
    benches = []
    for number in range(3):
        folder = tmp_path / str(number)
        (folder / "tmp").mkdir(parents=True)
        benches.append(Bench(folder))
    running = [bench.start("print('up')") for bench in benches]
    for process in running:
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said


def test_a_missing_notebook_is_named(tmp_path):
    said = subprocess.run(
        [sys.executable, "-m", "synthtune.run.notebook_runner", str(tmp_path / "none.ipynb"), "out.ipynb"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "lib")},
    )
    assert said.returncode == 2 and said.stderr.strip() == f"There is no notebook {tmp_path / 'none.ipynb'}."


def test_a_runner_ends_with_its_run(bench, tmp_path):
    started = tmp_path / "started"
    cell = f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    process = bench.start(cell, environment={"SYNTHTUNE_RUN": str(tmp_path)})
    [kernel] = numbers(started, process)
    os.close(bench.run_is_on)
    assert process.wait(10) == 130
    wait_for_end([kernel])


def test_the_time_left_goes_by_how_much_work_each_notebook_is(tmp_path, capsys):
    path = tmp_path / "b"
    board = Board(path, Screen(), {"04_students · webnlg": 30.0, "04_students · tweets": 6.0, "05_figures": 3.0})
    for event, seconds in (("started", 0.0), ("done", 600.0)):
        report(str(path), "04_students · webnlg", event, seconds=seconds)
    board.close()
    said = capsys.readouterr().err
    assert "done in 10 min 00 s; about 3 min 00 s left" in said, "a mean over notebooks would say 20 minutes"
