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
import functools
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager

from synthtune import errors, files, progress
from synthtune.errors import SettingsError, StageError, SynthtuneError
from synthtune.places import as_typed
from synthtune.run import exit_status
from synthtune.run.board import BOARD, RUN, Board, label, socket_folder

# How long a kernel may take to answer first; importing from a cold disk is slow.
START_SECONDS = 120

# How often memory is looked at.
WATCH_SECONDS = 1.0


class _Kernel(AsyncKernelManager):
    """A kernel that talks over sockets in a folder."""

    watch: _Watch
    environment: dict[str, str]

    def __init__(self, **options: Any):
        super().__init__(transport="ipc", connection_file=f"{self.watch.folder}/c.json", **options)

    async def start_kernel(self, **options: Any) -> None:
        await super().start_kernel(**options, env={**os.environ, **self.environment})
        self.watch.process = self.provisioner.process


class _Watch(threading.Thread):
    """Memory of the kernel in a folder and of what it starts; ends them all on demand."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.process, self.peak_bytes = folder, None, 0
        self.start()

    def run(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._resident())
            time.sleep(WATCH_SECONDS)

    def _family(self) -> list[psutil.Process]:
        if self.process is not None:
            with contextlib.suppress(psutil.Error):
                kernel = psutil.Process(self.process.pid)
                return [kernel, *kernel.children(recursive=True)]
        return []

    def _resident(self) -> int:
        total = highest = 0
        for member in self._family():
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
            with contextlib.suppress(OSError, StopIteration):
                # Its own high-water mark, which catches what happens between two looks.
                status = Path(f"/proc/{member.pid}/status").read_text().splitlines()
                highest = max(highest, next(1024 * int(line.split()[1]) for line in status if "VmHWM" in line))
        return max(total, highest)

    def kill(self) -> None:
        """End the kernel and everything it started, at once."""
        for member in self._family():
            with contextlib.suppress(psutil.Error):
                member.kill()


def run(notebook: Path, output: Path, parameters: dict[str, Any], record: Path | None = None) -> None:
    """Execute `notebook` with `parameters` and write it, executed, to `output`.

    Progress is shown in the terminal, or by the run named by ``SYNTHTUNE_RUN``. Minutes and peak
    memory are written into the folder `record`, if one is given, as a JSON file of the output's name.

    Raises
    ------
    StageError
        If a cell fails or the kernel dies, in one sentence; ``<output>.failed.ipynb`` then holds the notebook
        as far as it got.
    """
    name, in_run = label(notebook.stem, parameters), os.environ.get(RUN)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(socket_folder(in_run))
        address = Path(in_run or folder, BOARD)
        if not in_run:
            screen = stack.enter_context(contextlib.closing(progress.Screen()))
            stack.enter_context(contextlib.closing(Board(address, screen, {name: 1.0})))
        tell = functools.partial(progress.report, str(address), name)
        watch = _Watch(folder)
        _end_with(in_run, watch)
        tell("started")
        start = time.monotonic()
        failed, sentence_file = output.with_suffix(".failed.ipynb"), output.with_suffix(".failed.txt")
        executed = folder / output.name
        try:
            _execute(notebook, executed, parameters, watch, {progress.SOCKET: str(address), progress.LABEL: name})
        except StageError as error:
            sentence = f"{name}: {error}"
            if executed.exists():
                _store(executed, failed)
                sentence += f" The notebook as far as it got, with every detail: {as_typed(failed)}"
            with files.atomic_path(sentence_file) as temporary:
                temporary.write_text(sentence + "\n", "utf-8")
            tell("failed")
            raise StageError(sentence) from error
        finally:
            watch.kill()
        seconds = time.monotonic() - start
        _store(executed, output)
        for left in (failed, sentence_file):
            left.unlink(missing_ok=True)
        if record is not None:
            files.write_json(record / f"{output.stem}.json", {
                "notebook": notebook.stem, "task": parameters.get("task"), "budget": parameters.get("budget"),
                "minutes": round(seconds / 60, 3), "peak_rss_gib": round(watch.peak_bytes / 2**30, 3)})
        tell("done", seconds=seconds)


def _end_with(run: str | None, watch: _Watch) -> None:
    """End the kernel and this process when a signal says so, or when the run that it belongs to is over."""

    def end(*_: Any) -> None:
        watch.kill()
        shutil.rmtree(watch.folder, ignore_errors=True)
        os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if run:
        threading.Thread(target=lambda: (os.read(0, 1), end()), daemon=True).start()


def _execute(notebook: Path, executed: Path, parameters: dict[str, Any], watch: _Watch, environment: dict[str, str]) -> None:
    """Run papermill; turn what goes wrong into a StageError without the notebook's name."""
    import logging

    # jsonschema builds a grammar of IRIs at import, two seconds long, if this optional package of JupyterLab
    # is there. Notebooks hold none.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is said below
    manager = type("Kernel", (_Kernel,), {"watch": watch, "environment": environment})
    try:
        papermill.execute_notebook(str(notebook), str(executed), parameters, cwd=str(notebook.parent), progress_bar=False,
                                   start_timeout=START_SECONDS, kernel_manager_class=manager, shutdown_kernel="immediate")
    except PapermillExecutionError as error:
        raise StageError(_cell_failed(error)) from error
    except DeadKernelError as error:
        raise StageError(_kernel_died(watch)) from error
    except (PapermillException, ValueError, KeyError) as error:
        raise StageError(f"{notebook} cannot be run: {error}.") from error
    except (RuntimeError, TimeoutError) as error:
        # Only the start of a kernel raises these.
        raise StageError(f"its Jupyter kernel did not start ({error}). Free memory and run again, or delete the environment "
                         "(.venv) to set it up anew.") from error


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


_SAVE_MEMORY = ("Run one notebook at a time (--jobs 1), close other programs, or choose a smaller profile (--profile smoke); finished "
                "work is kept.")


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


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 0, 1 (the notebook failed), 2 (bad usage) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m synthtune.run.notebook_runner", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path, help="where the executed notebook goes")
    parser.add_argument("--parameters", type=Path, metavar="FILE.json", help="parameters of the notebook")
    parser.add_argument("--record", type=Path, metavar="DIR", help="folder that gets its minutes and peak memory")
    chosen = parser.parse_args(arguments)

    def do() -> None:
        if not chosen.notebook.is_file():
            raise SettingsError(f"There is no notebook {chosen.notebook}.")
        parameters = files.read_json(chosen.parameters) if chosen.parameters else {}
        run(chosen.notebook.absolute(), chosen.output.absolute(), parameters, chosen.record)

    return exit_status(do)


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # threads of ZeroMQ must not keep a finished runner waiting
