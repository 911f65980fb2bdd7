"""Kernels that start at once: copies of one process that has imported everything already.

    python -m synthtune.run.warm_kernels SOCKET

Importing PyTorch, transformers, peft and Jupyter takes a notebook 8.5 seconds of processor time (Intel Xeon with AMX). The
default run executes 37 notebooks, two at a time: that is 2.6 of its 55 minutes, and a sixth of the smoke run. A run
therefore keeps one process (`serve`) that has imported them and trained nothing. A notebook's kernel is a fork of it, which
Jupyter sees as a small process that stands for it (`copying`). Nothing else passes from one notebook to the next.

The process ends with the run, a kernel with its notebook's runner or with this process, however those end. Where there
is a GPU nothing is forked, since CUDA does not survive it; nor outside Linux. Runners that find no such process start
kernels of their own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

LAUNCHER = ["-m", "ipykernel_launcher"]
"""How a Python kernel is started; other kernels are not ours to copy."""

IMPORTED = ("ipykernel.kernelapp", "ipykernel.ipkernel", "transformers.models.llama", "peft",
            "synthtune.run.stages", "synthtune.student", "synthtune.analysis.show", "synthtune.analysis.report")
"""What notebooks import, and what those modules import in turn."""

PROCESS = "process"
"""Beside a kernel's connection file, the number of its process."""

POLL_SECONDS = 0.2


def copying(path: Path, command: list[str]) -> list[str]:
    """The command that has a kernel forked by the process that listens at `path`, and runs as long as that kernel.

    It ends as the kernel does, by the same signal. The kernel ends with it. If nobody listens, it becomes `command`.
    """
    ours = command[:3] == [sys.executable, *LAUNCHER]
    return [sys.executable, "-IS", __file__, str(path), *command] if ours else command


def copied(folder: Path) -> list[int]:
    """The process of the kernel forked for a connection file in `folder`, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        return [int((folder / PROCESS).read_text())]
    return []


def stand_for(path: str, command: list[str]) -> None:
    """What the command of `copying` does; it does not return."""
    connection, said = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), b""
    with contextlib.suppress(OSError):
        connection.connect(path)
        connection.sendall(json.dumps([command[3:], os.getcwd(), dict(os.environ)]).encode())
        said = connection.recv(64)
    if not said:
        os.execv(command[0], command)
    note = Path(command[command.index("-f") + 1]).with_name(PROCESS)
    note.write_bytes(said)
    runner = os.getppid()
    while not select.select([connection], [], [], POLL_SECONDS)[0]:
        if os.getppid() != runner:
            os._exit(1)
    note.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        said = connection.recv(64)
    # With nothing said the other process is gone, and its kernels with it.
    code = int(said) if said else -signal.SIGKILL
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(path: Path) -> None:
    """Import what notebooks need, then fork a kernel for every request, until standard input ends."""
    # Read when matplotlib is imported; a kernel sets it before that.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in IMPORTED:
        importlib.import_module(name)
    import torch

    if torch.cuda.is_available():
        return
    gc.freeze()  # a collection would touch, and so copy, memory that all kernels share
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(64)
    kernels: dict[int, socket.socket] = {}
    try:
        while True:
            ready, _, _ = select.select([sys.stdin, listener, *kernels.values()], [], [], POLL_SECONDS)
            if sys.stdin in ready:
                return
            for pid, connection in list(kernels.items()):
                # It says nothing more: what can be read is its end.
                if connection in ready:
                    _end(pid)
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with contextlib.suppress(OSError):
                        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                    kernels.pop(pid).close()
            if listener in ready:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError, ValueError):
                    arguments, folder, environment = json.loads(connection.recv(1 << 20))
                    pid = os.fork()
                    if not pid:
                        for other in (listener, connection, *kernels.values()):
                            other.close()
                        _become_kernel(arguments, folder, environment)
                    kernels[pid] = connection
                    connection.sendall(str(pid).encode())
    finally:
        for pid in kernels:
            _end(pid)
            os.waitpid(pid, 0)


def _end(pid: int) -> None:
    """End a kernel and what it started."""
    for kill in (os.killpg, os.kill):  # just forked, it leads no group yet
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Turn a fork into the kernel that was asked for; does not return."""
    status = 1
    sys.argv = ["ipykernel_launcher", *arguments]
    try:
        server = os.getppid()
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        from ipykernel.kernelapp import IPKernelApp

        # It looks for its parent's end, and would look for that of the runner.
        IPKernelApp.launch_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={server}"])
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        stand_for(sys.argv[1], sys.argv[2:])
    serve(Path(sys.argv[1]))
