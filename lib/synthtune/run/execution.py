"""Execute the notebooks of a run: Snakemake beside this process, what it reports on the screen, and nothing left at the end.

Each notebook runs in a `synthtune.run.notebook_runner`, which reports here over a socket. Its standard input is a pipe
that this process holds: when it ends, however it ends, every runner stops with its kernel.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from synthtune import files
from synthtune.errors import StageError
from synthtune.places import as_typed
from synthtune.progress import Screen, duration
from synthtune.run.board import BOARD, RUN, Board, socket_folder
from synthtune.run.graph import Run, last_words
from synthtune.scale import cluster

# How long a process may take to stop by itself.
STOP_SECONDS = 5


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep every other run out of the folder, and end what one that was killed has left there."""
    with files.claimed(run.folder, "Choose another folder with --set run_dir=DIR."):
        _end_left_over(run)
        files.remove_left_over(run.folder)
        try:
            yield
        finally:
            _end_left_over(run)


def _end_left_over(run: Run) -> None:
    """End a Snakemake whose run was killed, and its jobs on a cluster; its runners have ended themselves."""
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(run.folder) and "snakemake" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                _stop(process)
    if run.executor:
        cluster.cancel_left_over(run.folder)


def execute(run: Run, pending: list[str]) -> int:
    """Run Snakemake on what is pending, showing how far it is; return the exit status."""
    how = "as jobs of the cluster" if run.executor else f"{run.division.jobs} at a time"
    reused = len(run.jobs) - len(pending)
    print(f"{len(pending)} notebooks to run, {how}" + (f"; {reused} of an earlier run are reused." if reused else "."), flush=True)
    if run.division.said:
        print(run.division.said, flush=True)
    began, log = time.time(), run.folder / "snakemake.log"
    with open(log, "wb") as output:
        status = _snakemake(run, pending, output)
    if status == 0:
        print(f"Done in {duration(time.time() - began)}.")
        run.print_results()
        return 0
    said = [run.folder / "notebooks" / f"{job}.failed.txt" for job in pending]
    failures = [path.read_text("utf-8").strip() for path in said if path.exists() and path.stat().st_mtime >= began]
    words = log.read_text("utf-8", errors="replace")
    failures = failures or cluster.lost(words, log)
    if not failures:
        raise StageError(f"{last_words('The run stopped', words)} Its whole output: {as_typed(log)}")
    print("\n" + "\n".join(failures), file=sys.stderr)
    print("Finished work is kept: run the same command again to continue.", file=sys.stderr)
    return 1


def _snakemake(run: Run, pending: list[str], output: BinaryIO) -> int:
    """Its exit status, when it has ended with all that it started."""
    labels, environment = {job: run.label(job) for job in pending}, run.environment()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(socket_folder(run.folder))
        screen = stack.enter_context(contextlib.closing(Screen()))
        if run.executor:
            board = cluster.Board(run.folder, screen, labels)
        else:
            board = Board(place / BOARD, screen, {labels[job]: run.work(job) for job in pending}, run.division.jobs)
            environment[RUN] = str(place)
        stack.enter_context(contextlib.closing(board))
        snakemake = stack.enter_context(_started(run.snakemake(), run.folder, environment, output))
        return snakemake.wait()


@contextlib.contextmanager
def _started(command: list[str], folder: Path, environment: dict[str, str], output: BinaryIO) -> Iterator[subprocess.Popen]:
    """A process whose standard input ends with this one; at the end it is stopped with all that it started."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                               cwd=folder, env=environment)  # the jobs of a cluster are known by their folder
    try:
        yield process
    finally:
        process.stdin.close()
        with contextlib.suppress(psutil.Error):
            _stop(psutil.Process(process.pid))
        process.wait()


def _stop(process: psutil.Process) -> None:
    """End a process and what it started; give it a moment to note what was under way."""
    family = [*process.children(recursive=True), process]
    process.terminate()
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()
