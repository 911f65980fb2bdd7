"""Execute one notebook with papermill, so that whatever happens to it ends soon and in one sentence.

    python -m synthtune.run.notebook_runner NOTEBOOK OUTPUT --parameters FILE.json

What papermill leaves to its caller is done here. A kernel talks over files in a folder of its own instead of
TCP ports that kernels starting together may both pick. A kernel that is killed, for memory usually, is
noticed within seconds. An error raised by a cell is told in one line, its traceback kept beside the output as
``*.failed.ipynb``. An interrupt, or the end of the run this notebook belongs to, ends the kernel and all it
started. The output appears whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from jupyter_client.manager import AsyncKernelManager

from synthtune import errors, files
from synthtune.errors import SettingsError, StageError, SynthtuneError
from synthtune.places import as_typed
from synthtune.progress import Screen, duration
from synthtune.run import warm_kernels

RUN_SOCKET = "SYNTHTUNE_RUN"
"""Environment variable with the socket of the run that notebooks belong to, see `synthtune.run.reproduce`."""

WARM = "w"
"""Name of the socket beside it where `synthtune.run.warm_kernels` listens."""

KERNEL_STARTS = 3
"""How often a kernel that dies before its first answer is started."""

START_SECONDS = 120
"""How long a kernel may take to answer first; importing from a cold disk is slow."""

WATCH_SECONDS = 1.0
"""How often memory is looked at."""

MINUTES_COLUMNS = ["notebook", "task", "budget", "minutes", "peak_rss_gib"]

SOCKET_PATH_LIMIT = 100
"""Longest path of a Unix socket that every system takes."""


class _Kernel(AsyncKernelManager):
    """A kernel whose sockets and connection file live in `folder`, its process known to `watch`."""

    folder: Path
    watch: _Watch

    def __init__(self, **options: Any):
        place = tempfile.mkdtemp(prefix="k", dir=self.folder)
        super().__init__(transport="ipc", connection_file=f"{place}/c.json", **options)

    async def _async_start_kernel(self, **options: Any) -> None:
        await super()._async_start_kernel(**options)
        self.watch.follow(self.provisioner.process)

    start_kernel = _async_start_kernel

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        run_socket = os.environ.get(RUN_SOCKET)
        kernel = run_socket and warm_kernels.start(
            Path(run_socket).with_name(WARM), kernel_cmd, options.get("cwd"), options.get("env", dict(os.environ))
        )
        if not kernel:
            await super()._async_launch_kernel(kernel_cmd, **options)
            return
        provisioner = self.provisioner
        provisioner.process, provisioner.cwd = kernel, options.get("cwd")
        provisioner.pid = provisioner.pgid = kernel.pid
        self._reconcile_connection_info(provisioner.connection_info)


class _Watch(threading.Thread):
    """Memory of the kernel and of what it starts; ends them all on demand."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process = None
        self.peak_bytes = 0

    def follow(self, process: Any) -> None:
        self.process = process

    def run(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._resident())
            time.sleep(WATCH_SECONDS)

    def _family(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        with contextlib.suppress(psutil.Error):
            kernel = psutil.Process(self.process.pid)
            return [kernel, *kernel.children(recursive=True)]
        return []

    def _resident(self) -> int:
        total = 0
        for member in self._family():
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
        with contextlib.suppress(OSError, StopIteration, AttributeError):
            # The kernel's own high-water mark, which catches what happens between two looks.
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            total = max(
                total, next(1024 * int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
            )
        return total

    def kill(self) -> None:
        """End the kernel and everything it started, at once."""
        for member in self._family():
            with contextlib.suppress(psutil.Error):
                member.kill()


class _OwnScreen:
    """Where the runner reports when a person started it."""

    def __init__(self, label: str):
        self._label = label
        self._screen = Screen()

    def started(self) -> None:
        self._screen.say(self._label)

    def bar(self, state: dict[str, Any]) -> None:
        if state.get("done"):
            self._screen.forget(self._label)
        else:
            self._screen.show(self._label, state)

    def done(self, seconds: float) -> None:
        self._screen.forget(self._label)
        self._screen.say(f"done in {duration(seconds)}")

    def failed(self, sentence: str) -> None:
        self._screen.forget(self._label)
        self._screen.say(sentence)


class _RunScreen:
    """Where the runner reports as part of a run: the run's socket, which also tells when it is over."""

    def __init__(self, label: str, path: str):
        self._label = label
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.connect(path)
        except OSError as error:
            raise StageError(f"{label}: the run it belongs to is over.") from error
        self._guard = threading.Lock()

    def wait_for_end(self) -> None:
        """Return when the run is over."""
        with contextlib.suppress(OSError):
            while self._connection.recv(1024):
                pass

    def started(self) -> None:
        self._send({"event": "started"})

    def bar(self, state: dict[str, Any]) -> None:
        self._send({"event": "bar", "state": state})

    def done(self, seconds: float) -> None:
        self._send({"event": "done", "seconds": seconds})

    def failed(self, sentence: str) -> None:
        self._send({"event": "failed", "sentence": sentence})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), self._guard:
            self._connection.sendall(json.dumps({"label": self._label, **message}).encode() + b"\n")


def label(notebook: Path, parameters: dict[str, Any]) -> str:
    """Name a notebook and what it is about, as "02_annotate · tweets · budget 125"."""
    parts = [notebook.stem]
    if "task" in parameters:
        parts.append(str(parameters["task"]))
    if "budget" in parameters:
        parts.append(f"budget {parameters['budget']}")
    return " · ".join(parts)


def run(notebook: Path, output: Path, parameters: dict[str, Any], record: Path | None = None) -> None:
    """Execute `notebook` with `parameters` and write it, executed, to `output`.

    Progress is shown in the terminal, or handed to the run named by ``SYNTHTUNE_RUN``. Minutes and peak
    memory are written into ``minutes.csv`` in the folder `record`, if one is given.

    Raises
    ------
    StageError
        If a cell fails or the kernel dies, in one sentence; ``<output>.failed.ipynb`` then holds the notebook
        as far as it got.
    """
    run_socket = os.environ.get(RUN_SOCKET)
    name = label(notebook, parameters)
    screen = _RunScreen(name, run_socket) if run_socket else _OwnScreen(name)
    with _work_folder() as folder:
        watch = _Watch()
        watch.start()

        def end(*_: Any) -> None:
            watch.kill()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(130)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        if run_socket:
            threading.Thread(target=lambda: (screen.wait_for_end(), end()), daemon=True).start()
        _receive_bars(folder / "p", screen)
        screen.started()
        start = time.monotonic()
        failed = output.with_suffix(".failed.ipynb")
        executed = folder / output.name
        try:
            _execute(notebook, executed, parameters, folder, watch)
        except StageError as error:
            sentence = f"{name}: {error}"
            if executed.exists():
                _store(executed, failed)
                sentence += f" The notebook as far as it got, with every detail: {as_typed(failed)}"
            with files.atomic_path(output.with_suffix(".failed.txt")) as temporary:
                temporary.write_text(sentence + "\n", "utf-8")
            screen.failed(sentence)
            raise StageError(sentence) from error
        finally:
            watch.kill()
        seconds = time.monotonic() - start
        _store(executed, output)
        for left in (failed, output.with_suffix(".failed.txt")):
            left.unlink(missing_ok=True)
        if record is not None:
            _record(record, notebook, parameters, seconds / 60, watch.peak_bytes / 2**30)
        screen.done(seconds)


@contextlib.contextmanager
def _work_folder():
    """A folder for sockets and the notebook in flight, gone at the end; the run's, if paths stay short."""
    place = os.path.dirname(os.environ.get(RUN_SOCKET, "")) or None
    folder = Path(tempfile.mkdtemp(prefix="n", dir=place))
    if len(str(folder)) + len("/kxxxxxxxx/c-ipc-5") > SOCKET_PATH_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="synthtune-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _receive_bars(path: Path, screen: _OwnScreen | _RunScreen) -> None:
    """Hand the bars of the notebook's loops to the screen, until this process ends."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))

    def receive() -> None:
        while True:
            with contextlib.suppress(ValueError):
                screen.bar(json.loads(receiver.recv(65536)))

    threading.Thread(target=receive, daemon=True).start()
    os.environ["SYNTHTUNE_PROGRESS"] = str(path)  # the kernel inherits it


def _execute(notebook: Path, executed: Path, parameters: dict[str, Any], folder: Path, watch: _Watch) -> None:
    """Run papermill; turn what goes wrong into a StageError without the notebook's name."""
    import logging

    # jsonschema builds a grammar of IRIs at import, two seconds long, if this optional package of JupyterLab
    # is there. Notebooks hold none.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is said below
    manager = type("Kernel", (_Kernel,), {"folder": folder, "watch": watch})
    for attempt in range(1, KERNEL_STARTS + 1):
        watch.process = None
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                cwd=str(notebook.parent),
                progress_bar=False,
                start_timeout=START_SECONDS,
                kernel_manager_class=manager,
                shutdown_kernel="immediate",
            )
            return
        except PapermillExecutionError as error:
            raise StageError(_cell_failed(error)) from error
        except DeadKernelError as error:
            raise StageError(_kernel_died(watch)) from error
        except (PapermillException, ValueError, KeyError) as error:
            raise StageError(f"{notebook} cannot be run: {error}.") from error
        except (RuntimeError, TimeoutError) as error:
            # Only the start of a kernel raises these.
            watch.kill()
            if attempt == KERNEL_STARTS:
                raise StageError(
                    f"its Jupyter kernel did not start ({error}), {KERNEL_STARTS} times. Free "
                    f"memory, or "
                    "delete the environment (.venv) to set it up anew."
                ) from error
            time.sleep(attempt)


def _cell_failed(error: Any) -> str:
    ours = getattr(errors, error.ename, None)
    if isinstance(ours, type) and issubclass(ours, SynthtuneError):
        return error.evalue.strip()
    if errors.GPU_FULL in error.evalue:
        return f"{errors.SAVE_GPU_MEMORY} Finished work is kept."
    if error.ename in ("MemoryError", "OutOfMemoryError"):
        return f"memory ran out ({error.evalue.strip() or error.ename}). {_SAVE_MEMORY}"
    first = error.evalue.strip().splitlines()[0] if error.evalue.strip() else "no message"
    return f"cell {error.exec_count} failed with {error.ename}: {first.rstrip('.')}."


_SAVE_MEMORY = (
    "Run one notebook at a time (--jobs 1), close other programs, or choose a smaller profile "
    "(--profile smoke); finished work is kept."
)


def _kernel_died(watch: _Watch) -> str:
    code = None
    if watch.process is not None:
        with contextlib.suppress(Exception):
            code = watch.process.wait(timeout=5)
    memory = psutil.virtual_memory().total
    held = f"it had held {watch.peak_bytes / 2**30:.1f} GiB of this machine's {memory / 2**30:.0f}"
    if code == -signal.SIGKILL:
        return f"its process was killed, most likely because memory ran out ({held}). {_SAVE_MEMORY}"
    how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
    return f"its process ended without a word ({how}; {held}). Run again; finished work is kept."


def _store(source: Path, target: Path) -> None:
    """Put an executed notebook in its place, whole; paths of this machine are left out of it."""
    content = files.read_json(source)
    for key in ("input_path", "output_path"):
        noted = content["metadata"].get("papermill", {}).get(key)
        if noted:
            content["metadata"]["papermill"][key] = Path(noted).name
    with files.atomic_path(target) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _record(folder: Path, notebook: Path, parameters: dict[str, Any], minutes: float, gib: float) -> None:
    """Write what a notebook cost into ``minutes.csv``, in place of what was written when it last ran."""
    row = {
        "notebook": notebook.stem,
        "task": str(parameters.get("task", "")),
        "budget": str(parameters.get("budget", "")),
        "minutes": f"{minutes:.3f}",
        "peak_rss_gib": f"{gib:.3f}",
    }
    path = folder / "minutes.csv"
    with FileLock(folder / ".minutes.lock"):
        rows = []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as handle:
                rows = [
                    old
                    for old in csv.DictReader(handle)
                    if any(old[key] != row[key] for key in MINUTES_COLUMNS[:3])
                ]
        rows = sorted(
            [*rows, row],
            key=lambda entry: (
                entry["task"] == "",
                entry["task"],
                entry["notebook"],
                int(entry["budget"] or 0),
            ),
        )
        with (
            files.atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.DictWriter(handle, MINUTES_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 0, 1 (the notebook failed), 2 (bad usage) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(
        prog="python -m synthtune.run.notebook_runner", description=__doc__.splitlines()[0]
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path, help="where the executed notebook goes")
    parser.add_argument("--parameters", type=Path, metavar="FILE.json", help="parameters of the notebook")
    parser.add_argument("--record", type=Path, metavar="DIR", help="folder whose minutes.csv gets the cost")
    chosen = parser.parse_args(arguments)
    in_run = RUN_SOCKET in os.environ
    try:
        if not chosen.notebook.is_file():
            raise SettingsError(f"There is no notebook {chosen.notebook}.")
        parameters = files.read_json(chosen.parameters) if chosen.parameters else {}
        run(chosen.notebook.absolute(), chosen.output.absolute(), parameters, chosen.record)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except SynthtuneError as error:
        if in_run:  # the log of the run; alone, the screen has shown it
            print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # threads of ZeroMQ must not keep a finished runner waiting
