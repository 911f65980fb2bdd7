"""The command behind run_all.sh: fetch what is needed, run what is not up to date, say where results are.

Which notebooks must run is Snakemake's to decide (`workflow/Snakefile`), from the files of earlier runs, the
settings each stage depends on, and the notebooks themselves. Each runs in a `synthtune.run.notebook_runner`,
which reports here over a socket; when this process ends, however it ends, the socket closes and every runner
stops with its kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from synthtune.errors import SettingsError, StageError, SynthtuneError, nearest
from synthtune.places import ROOT, as_typed, started_in

# Only the standard library here: --help answers before there is an environment.
from synthtune.scale import cluster

if TYPE_CHECKING:
    from synthtune.scale import machine
    from synthtune.settings import Settings

NOTEBOOKS = ROOT / "notebooks"

STOP_SECONDS = 5
"""How long Snakemake may take to stop by itself."""

SOCKET_FOLDER_LIMIT = 60
"""Longest folder that leaves room for the sockets of runners and kernels below it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit status: 0, 1 (a notebook or a download failed, the user's data has errors), 2 (bad usage), 130 (interrupted).
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.task is not None or chosen.check or chosen.fix or chosen.out is not None:
            return _custom(chosen, parser)
        return _reproduce(chosen)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except SynthtuneError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Finished work is kept: run the same command again to continue.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reproduce the whole study: fine-tune teachers, annotate, generate, train students,\n"
        "draw every figure and the table. What an earlier run finished is reused.",
        epilog="  ./run_all.sh test [pytest's options]    run the tests\n\n"
        "Results go to runs/PROFILE/. Models and corpora are cached in .cache/synthtune, or in the "
        "folder that\nthe environment variable SYNTHTUNE_CACHE names.",
    )
    parser.add_argument(
        "--profile",
        default="laptop",
        help="a file of workflow/profiles, without .yaml (default: laptop; smoke takes minutes)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="change a setting of the profile, such as teacher.epochs=6; may be repeated",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TASK",
        help="this task instead of all of the profile's; may be repeated",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="notebooks to run side by side")
    parser.add_argument("--executor", choices=["local", "slurm"], default="local",
                        help="run notebooks on this machine, or as jobs of a SLURM cluster")
    parser.add_argument("--data-root", metavar="DIR", help="folder with real corpora: webnlg/, sgd/, rte/, banking77/ …, or official to fetch them")
    parser.add_argument("--dry-run", action="store_true", help="list the notebooks that would run, and stop")
    parser.add_argument(
        "--plan", action="store_true", help="say what memory, GPUs, hours and money the profile would take, and stop"
    )
    parser.add_argument("--gpu", metavar="NAME", help='with --plan: kind of GPU, such as "H100 80GB", or cpu')
    parser.add_argument("--gpus", metavar="N", help="with --plan: number of GPUs")
    parser.add_argument("--price", metavar="DOLLARS", help="with --plan: price of one GPU for an hour")
    own = parser.add_argument_group("your data, a custom task")
    own.add_argument("--task", metavar="FILE", help="task file: a few lines of YAML that say where your data is; see docs/your_data.md")
    own.add_argument("--out", metavar="DIR", help="folder for the results; beside the task file by default")
    own.add_argument("--check", action="store_true", help="read and check your data, and train nothing")
    own.add_argument("--fix", action="store_true", help="check your data, and write repaired copies beside the files")
    return parser


def _custom(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from synthtune.custom import command

    os.environ.setdefault("HF_HUB_OFFLINE", "0" if _from_hub(chosen) else "1")
    mine = ("task", "check", "fix", "out", "overrides")
    other = next((name for name, value in vars(chosen).items() if name not in mine and value != parser.get_default(name)),
                 None)
    if other is not None:
        raise SettingsError(f"--{other.replace('_', '-')} is about the package's own tasks and cannot be combined with --task: "
                            "leave it out, or put it into the task file if there is a line for it.")
    _end_in_order()
    return command.run(chosen.task, chosen.check, chosen.fix, chosen.out, chosen.overrides)


def _from_hub(chosen: argparse.Namespace) -> bool:
    """Whether a task file takes rows from the hub, or its profile models. What is wrong with either is said later."""
    from synthtune import settings as settings_module
    from synthtune.custom import task_file
    from synthtune.models import names

    with contextlib.suppress(SynthtuneError):
        task = task_file.load(started_in() / Path(chosen.task or "").expanduser())
        models = settings_module.read(task.profile, chosen.overrides).named_models().values()
        return bool(task.hub or any(map(names.from_hub, models)))
    return False


def _reproduce(chosen: argparse.Namespace) -> int:
    from synthtune import settings as settings_module

    overrides = list(chosen.overrides)
    if chosen.only:
        files = settings_module.read(chosen.profile, overrides).task_files
        known = (*settings_module.TASKS, *settings_module.PUBLIC, *files)
        unknown = next((task for task in chosen.only if task not in known and not settings_module.is_task_file(task)), None)
        if unknown is not None:
            raise SettingsError(f"--only: unknown task '{unknown}': {nearest(unknown, known)}")
        overrides += [f"tasks={json.dumps(list(dict.fromkeys(chosen.only)))}", _files_override(files)]
    if chosen.data_root == settings_module.OFFICIAL:
        overrides.append(f"data_root={chosen.data_root}")
    elif chosen.data_root is not None:
        folder = (started_in() / Path(chosen.data_root).expanduser()).resolve()
        if not folder.is_dir():
            raise SettingsError(f"--data-root: there is no folder {folder}.")
        overrides.append(f"data_root={json.dumps(str(folder))}")
    jobs = [] if chosen.jobs is None else [f"jobs={chosen.jobs}"]
    given = {name: getattr(chosen, name) for name in ("gpu", "gpus", "price") if getattr(chosen, name) is not None}
    if given and not chosen.plan:
        raise SettingsError(f"--{next(iter(given))} is an option of --plan: add --plan.")
    planned = [f"plan.{name}={value}" for name, value in given.items()]
    settings = settings_module.load(chosen.profile, overrides + jobs + planned)
    absent = settings.without_corpus()
    if absent and not chosen.only and len(absent) < len(settings.tasks):
        print(f"Left out, because {settings.data_root} has no such folder: {', '.join(absent)}.")
        settings = settings.model_copy(update={"tasks": [task for task in settings.tasks if task not in absent]})
        overrides.append(f"tasks={json.dumps(settings.tasks)}")
    if settings.task_files:  # notebooks start in other folders
        overrides += [f"tasks={json.dumps(settings.tasks)}", _files_override(settings.task_files)]
    overrides += [f"{setting}={json.dumps(name)}" for setting, name in settings.named_models().items() if "/" in name]
    # The hub's client reads this when it is imported, here and in every notebook.
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if settings.hub_models() or settings.hub_datasets() else "1")
    if chosen.plan:
        from synthtune.scale import planner

        plan = planner.plan(settings)
        written = plan.save()
        print(plan.text())
        print(f"Written to {' and '.join(as_typed(path) for path in written)}.")
        return 0
    for task in settings.tasks:
        for budget in settings.budgets:
            settings.check(task, budget)

    _end_in_order()
    executor = cluster.arguments(settings, chosen.jobs) if chosen.executor == "slurm" else []
    run = Run(settings, overrides, executor)
    with run.locked():
        if chosen.dry_run:
            with run.written(keep=False):
                run.print_plan()
            return 0
        with run.written(keep=True):
            pending = run.pending()
            if not pending:
                print("Nothing to do: everything is up to date.")
                run.print_results()
                return 0
            run.fetch_assets()
            return run.execute(pending)


def _files_override(files: dict[str, Path]) -> str:
    return f"task_files={json.dumps({name: str(path) for name, path in files.items()})}"


def _end_in_order() -> None:
    """Let a request to end, or a closed terminal, do what Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


class Run:
    """One folder of results, the settings it is made with, and the notebooks that fill it.

    Parameters
    ----------
    settings : Settings
        The whole of them, resolved.
    overrides : list of str
        What was changed from the profile, handed to every notebook.
    executor : list of str
        Snakemake's options to run notebooks elsewhere; none to run them on this machine.
    """

    def __init__(self, settings: Settings, overrides: list[str], executor: list[str]):
        from synthtune import tasks

        self.settings, self.executor = settings.resolved(), executor
        self.specs = {task: tasks.spec_of(task, settings) for task in settings.tasks}
        self.folder = settings.folder
        self.division = self._division()
        default = settings.run_dir is None
        common = {
            "profile": settings.profile,
            "overrides": [*overrides, f"number_format={self.settings.number_format}",
                          *(f"{stage}.processes={number}" for stage, number in self.division.processes.items())],
            "run_dir": "" if default else str(self.folder),
        }
        self.jobs: dict[str, dict[str, Any]] = {}
        """Parameters of each executed notebook, by its name without ".ipynb"."""
        for task in settings.tasks:
            for budget in settings.budgets:
                generated = ["03_generate"] if "generate" in settings.objectives(budget) else []
                for stage in ("01_teacher", "02_annotate", *generated):
                    self.jobs[f"{task}-{budget}-{stage}"] = {**common, "task": task, "budget": budget}
            self.jobs[f"{task}-04_students"] = {**common, "task": task}
        self.jobs["05_figures"] = common

    def _division(self) -> machine.Division:
        """How this machine is divided over the notebooks; on a cluster each has a machine."""
        from synthtune.scale import machine

        if self.executor:
            return machine.Division(self.settings.jobs or 1, {})
        peaks = [float(row["peak_rss_gib"]) * 2**30 for row in self._minutes()]
        return machine.divided(self.settings, max(peaks, default=0.0))

    def label(self, job: str) -> str:
        """Name an executed notebook as it is shown: "02_annotate · tweets · budget 125"."""
        from synthtune.run.notebook_runner import label

        return label(Path(job.rpartition("-")[2]), self.jobs[job])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run out of the folder."""
        from synthtune.files import claimed

        with claimed(self.folder, "Choose another folder with --set run_dir=DIR."):
            self._end_left_over()
            self._remove_left_over()
            try:
                yield
            finally:
                (self.folder / ".snakemake.pid").unlink(missing_ok=True)

    def _end_left_over(self) -> None:
        """End the Snakemake of a run that was killed; its runners have ended themselves."""
        import psutil

        note = self.folder / ".snakemake.pid"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            number, born = note.read_text().split()
            process = psutil.Process(int(number))
            if process.create_time() == float(born):
                for member in [process, *process.children(recursive=True)]:
                    member.kill()
                process.wait(STOP_SECONDS)
        self._cancel_jobs()

    def _cancel_jobs(self) -> None:
        """Cancel what a run that did not end well has left on the cluster."""
        if self.executor:
            cluster.cancel_left_over(self.folder)

    def _remove_left_over(self) -> None:
        """Remove the temporary folders of `synthtune.files.atomic_path` that a killed run left behind."""
        for parent, folders, _ in os.walk(self.folder):
            for name in [name for name in folders if name.startswith(".")]:
                folders.remove(name)  # not walked into: Snakemake's own are there too
                if name == ".work" or re.fullmatch(r"\..+\.\w{8}", name):
                    shutil.rmtree(Path(parent, name), ignore_errors=True)

    @contextlib.contextmanager
    def written(self, keep: bool) -> Iterator[None]:
        """Write what Snakemake and the notebooks read: settings of stages, parameters, the graph's tasks.

        With `keep` False the files are put back as they were at the end.
        """
        from synthtune import files

        contents: dict[str, Any] = {"settings.json": self.settings.model_dump(mode="json")}
        for task in self.settings.tasks:
            for stage in ("teacher", "annotate", "generate", "students"):
                rows = {"rows": self.specs[task].rows} if self.specs[task].rows else {}
                contents[f"settings/{task}/{stage}.json"] = self.settings.for_stage(stage, task) | rows
        contents["settings/figures.json"] = self.settings.for_stage("figures")
        for job, parameters in self.jobs.items():
            contents[f"parameters/{job}.json"] = parameters
        contents["workflow.json"] = {
            "tasks": list(self.settings.tasks),
            "budgets": list(self.settings.budgets),
            "generated": self.settings.budgets_of("generate"),
            "notebooks": str(NOTEBOOKS),
            "python": sys.executable,
            "resources": {},
        }
        if self.executor:
            contents["workflow.json"]["resources"] = cluster.resources(self.settings)
        before = {}
        for name, content in contents.items():
            path = self.folder / name
            old = (path.read_bytes(), path.stat()) if path.exists() else None
            if files.write_if_changed(path, content):
                before[path] = old
        try:
            yield
        finally:
            if not keep:
                for path, old in before.items():
                    if old is None:
                        path.unlink()
                    else:
                        path.write_bytes(old[0])
                        os.utime(path, ns=(old[1].st_atime_ns, old[1].st_mtime_ns))

    def pending(self) -> list[str]:
        """Names of the executed notebooks that are missing or out of date, in the order of the graph."""
        plan = subprocess.run(
            [*self._snakemake(), "--dry-run", "--printshellcmds"],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if plan.returncode:
            raise StageError(_last_words("The graph of notebooks could not be made", plan.stdout))
        found = set(re.findall(r"--parameters parameters/(\S+)\.json", plan.stdout))
        return [job for job in self.jobs if job in found]

    def print_plan(self) -> None:
        """List what would run and what would be reused."""
        pending = set(self.pending())
        print(f"{len(pending)} of {len(self.jobs)} notebooks would run, {self.settings.jobs} at a time:")
        for job in self.jobs:
            print(f"  {'run  ' if job in pending else 'reuse'}  {self.label(job)}")

    def fetch_assets(self) -> None:
        """Fetch the models and corpora that the settings name, before anything is computed."""
        from synthtune import tasks
        from synthtune.models import assets

        for task in self.settings.tasks:
            tasks.prepare(task, self.settings)  # the corpora first: they are small, and a missing one is found at once
            if task in self.settings.task_files:
                tasks.load(task, self.settings)  # rows that are too few as well
        corpora = {spec.asset for spec in self.specs.values() if spec.asset}
        models = self.settings.models()
        for name in sorted(corpora.union(models)):
            if name in models:
                assets.model_path(name)
            else:
                assets.fetch(name)

    def execute(self, pending: list[str]) -> int:
        """Run Snakemake on what is pending, showing how far it is; return the exit status."""
        import psutil

        from synthtune.progress import Screen, duration

        reused = len(self.jobs) - len(pending)
        print(
            f"{len(pending)} notebooks to run, "
            + ("as jobs of the cluster" if self.executor else f"{self.division.jobs} at a time")
            + (f"; {reused} of an earlier run are reused." if reused else "."),
            flush=True,
        )
        if self.division.said:
            print(self.division.said, flush=True)
        start = time.monotonic()
        log = self.folder / "snakemake.log"
        with (
            open(log, "wb") as output,
            _socket_folder(self.folder) as place,
            self._warm_kernels(place, output, len(pending)),
            Screen().closing() as screen,
        ):
            board, environment = self._board(place, screen, pending), self._environment()
            if not self.executor:
                environment["SYNTHTUNE_RUN"] = str(place / "s")
            snakemake = subprocess.Popen(
                self._snakemake(),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.folder,  # of jobs too, which are known by it
                env=environment,
            )
            try:
                born = psutil.Process(snakemake.pid).create_time()
                (self.folder / ".snakemake.pid").write_text(f"{snakemake.pid} {born!r}\n")
                status = snakemake.wait()
            finally:
                board.close()  # every runner sees it and ends
                _stop(snakemake)
                self._cancel_jobs()
        if status == 0:
            print(f"Done in {duration(time.monotonic() - start)}.")
            self.print_results()
            return 0
        if not board.failures:
            raise StageError(
                _last_words("The run stopped", log.read_text(errors="replace"))
                + f" Its whole output: {as_typed(log)}"
            )
        print("\n" + "\n".join(board.failures), file=sys.stderr)
        print("Finished work is kept: run the same command again to continue.", file=sys.stderr)
        return 1

    def _board(self, place: Path, screen: Any, pending: list[str]) -> Any:
        labels = {job: self.label(job) for job in pending}
        if self.executor:
            return cluster.Board(self.folder, screen, labels)
        return _Board(place / "s", screen, list(labels.values()), self.division.jobs, self._earlier_minutes())

    @contextlib.contextmanager
    def _warm_kernels(self, place: Path, output: BinaryIO, notebooks: int) -> Iterator[None]:
        """Have kernels ready by the time that the first notebooks are done, if there are more notebooks then."""
        from synthtune.run.notebook_runner import WARM

        if sys.platform != "linux" or notebooks <= self.division.jobs or self.executor:
            yield
            return
        command = [sys.executable, "-m", "synthtune.run.warm_kernels", str(place / WARM)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True, env=self._environment())
        try:
            yield
        finally:
            process.stdin.close()  # it ends its kernels, and itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()

    def print_results(self) -> None:
        """Say where the figures, the table and the report are, and what they cost."""
        from synthtune.progress import duration

        figures = self.folder / "figures"
        print(f"  figures    {as_typed(figures)}/figure_1 to figure_7 (pdf, svg, png, csv)")
        print(f"  table      {as_typed(figures)}/table_1 (csv, md, tex)")
        print(f"  claims     {as_typed(figures / 'claims.md')}")
        print(f"  report     {as_typed(figures / 'report.html')}")
        print(f"  notebooks  {as_typed(self.folder / 'notebooks')}/, executed")
        minutes = self._minutes()
        if minutes:
            print(
                f"  cost       {duration(60 * sum(float(row['minutes']) for row in minutes))} of "
                f"notebooks in all, "
                f"{max(float(row['peak_rss_gib']) for row in minutes):.1f} GiB at most in one"
            )

    def _minutes(self) -> list[dict[str, str]]:
        with (
            contextlib.suppress(OSError),
            open(self.folder / "minutes.csv", newline="", encoding="utf-8") as handle,
        ):
            return list(csv.DictReader(handle))
        return []

    def _earlier_minutes(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in self._minutes():
            found.setdefault(row["notebook"], []).append(float(row["minutes"]))
        return found

    def _snakemake(self) -> list[str]:
        writing = [f"{task}/results.parquet" for task, spec in self.specs.items() if spec.kind == "nlg"]
        return [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "workflow" / "Snakefile"),
            "--directory",
            str(self.folder),
            "--configfile",
            str(self.folder / "workflow.json"),
            *(self.executor or ["--cores", str(self.division.jobs), "--latency-wait", "2"]),
            "--scheduler",
            "greedy",
            # The longest first, so that no core waits for one of them at the end.
            *(["--prioritize", *writing] if writing else []),
            "--rerun-incomplete",
            "--nolock",
            "--rerun-triggers",
            "mtime",
            "input",
            "--workflow-profile",
            "none",
            "figures",
        ]

    def _environment(self) -> dict[str, str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("SNAKEMAKE_PROFILE", "SYNTHTUNE_RUN", "SYNTHTUNE_PROGRESS")
        }
        threads = str(self.settings.threads)
        path = [str(ROOT / "lib"), *filter(None, [environment.get("PYTHONPATH")])]
        return {
            **environment,
            "PYTHONPATH": os.pathsep.join(path),
            "XDG_CACHE_HOME": str(ROOT / ".cache"),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }


class _Board:
    """Where runners report: numbers the notebooks as they start, and shows their bars."""

    def __init__(
        self, path: Path, screen: Any, labels: list[str], side_by_side: int, minutes: dict[str, list[float]]
    ):
        self.failures: list[str] = []
        self._screen = screen
        self._waiting = dict.fromkeys(labels)
        self._total = len(labels)
        self._started: dict[str, int] = {}
        self._side_by_side = side_by_side
        self._minutes = minutes
        self._guard = threading.Lock()
        self._connections: list[socket.socket] = []
        self._closed = False
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End every runner that is connected."""
        with self._guard:
            self._closed = True
            for connection in [self._server, *self._connections]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._connections.append(connection)
                threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                with self._guard:
                    if self._closed:
                        return
                    self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        from synthtune.progress import duration

        label, event = message["label"], message["event"]
        if event == "started":
            self._started.setdefault(label, len(self._started) + 1)
            self._screen.say(f"[{self._started[label]}/{self._total}] {label}")
            return
        key = f"[{self._started[label]}/{self._total}] {label}"
        if event == "bar" and not message["state"].get("done"):
            self._screen.show(key, message["state"])
            return
        self._screen.forget(key)
        if event == "done":
            self._waiting.pop(label, None)
            self._minutes.setdefault(label.split(" · ")[0], []).append(message["seconds"] / 60)
            left = self._left()
            self._screen.say(
                f"{key}: done in {duration(message['seconds'])}"
                + (f"; about {duration(left)} left" if left else "")
            )
        elif event == "failed":
            self.failures.append(message["sentence"])
            self._screen.say(f"{key}: failed")

    def _left(self) -> float:
        """Seconds that the notebooks still to finish will take, going by those of their kind, or by all."""
        every = [value for values in self._minutes.values() for value in values]
        kinds = [self._minutes.get(label.split(" · ")[0], every) for label in self._waiting]
        return 60 * sum(sum(values) / len(values) for values in kinds) / self._side_by_side


def _stop(process: subprocess.Popen) -> None:
    """End Snakemake and what it started; give it a moment to note what was under way."""
    import psutil

    if process.poll() is not None:
        return
    with contextlib.suppress(psutil.Error):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
    process.wait()


@contextlib.contextmanager
def _socket_folder(folder: Path) -> Iterator[Path]:
    """A folder for sockets, whose paths must be short."""
    place = folder / ".work"
    if len(str(place)) > SOCKET_FOLDER_LIMIT:
        place = Path(tempfile.mkdtemp(prefix="synthtune-", dir="/tmp"))
    place.mkdir(exist_ok=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _last_words(what: str, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next(
        (
            number
            for number, line in enumerate(lines)
            if re.search(r"error|exception|space left", line, re.IGNORECASE)
        ),
        max(len(lines) - 6, 0),
    )
    return f"{what}: {' '.join(lines[first : first + 6])}"


if __name__ == "__main__":
    sys.exit(main())
