"""Kernels that start at once: copies of one process that has imported everything already.

    python -m synthtune.run.warm_kernels SOCKET

Importing PyTorch, transformers, peft and Jupyter takes a notebook 8.5 seconds of processor time (Intel Xeon with AMX). The
default run executes 37 notebooks, two at a time: that is 2.6 of its 55 minutes, and a sixth of the smoke run. A run therefore keeps one process (`serve`) that has imported them and trained nothing; a
notebook's kernel is a fork of it (`start`). Nothing else passes from one notebook to the next.

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
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LAUNCHER = ["-m", "ipykernel_launcher"]
"""How a Python kernel is started; other kernels are not ours to copy."""

IMPORTED = ("ipykernel.kernelapp", "ipykernel.ipkernel", "transformers.models.llama", "peft",
            "synthtune.run.stages", "synthtune.student", "synthtune.analysis.show", "synthtune.analysis.report")
"""What notebooks import, and what those modules import in turn."""

POLL_SECONDS = 0.2


class ForkedKernel:
    """A kernel of the other process, with as much of `subprocess.Popen` as Jupyter asks for."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int):
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """Exit status, negative for a signal as in `subprocess`; None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            said = b""
            with contextlib.suppress(OSError):
                said = self._connection.recv(64)
            # With nothing said the other process is gone, and its kernels with it.
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises
        ------
        subprocess.TimeoutExpired
            If it has not ended after `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("kernel", timeout)
            time.sleep(POLL_SECONDS)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def start(path: Path, command: list[str], folder: str | None, environment: dict[str, str]) -> ForkedKernel | None:
    """Ask the process that listens at `path` for a kernel.

    Parameters
    ----------
    path : Path
        A Unix socket.
    command : list of str
        What would start the kernel otherwise.
    folder : str or None
        Its working folder.
    environment : dict
        Its environment variables.

    Returns
    -------
    ForkedKernel or None
        None if nobody listens, or if the command is not one that starts this Python's own kernel.
    """
    if command[:3] != [sys.executable, *LAUNCHER]:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"arguments": command[3:], "folder": folder or os.getcwd(), "environment": environment}
    try:
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode())
        said = connection.recv(64)
    except OSError:
        said = b""
    if not said:
        connection.close()
        return None
    return ForkedKernel(connection, int(said))


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
                # A runner says nothing more: what can be read is its end.
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
                    request = json.loads(connection.recv(1 << 20))
                    pid = os.fork()
                    if not pid:
                        for other in (listener, connection, *kernels.values()):
                            other.close()
                        _become_kernel(**request)
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


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, Any]) -> None:
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
    serve(Path(sys.argv[1]))
