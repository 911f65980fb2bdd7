"""Make .venv from environment.yml, where there is no conda. Standard library only: it runs first of all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIST = ROOT / "environment.yml"
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "environment.yml"
"""A copy of the list, written when all of it is installed."""

REPORT_SECONDS = 15.0
"""Least time between two lines of progress where a line cannot be rewritten."""


def requirements(text: str) -> tuple[str, list[str]]:
    """Read the list: pip's own version, and what pip is to install.

    Parameters
    ----------
    text : str
        Content of environment.yml. Only what that file uses is understood: ``- name==version`` below ``-
        pip:``. The package itself, ``-e .``, is for conda; here it is installed last.
    """
    pip = re.search(r"^  - pip=([\w.]+)", text, re.MULTILINE)
    section = re.search(r"^  - pip:\n((?:      .*\n|\s*\n)+)", text, re.MULTILINE)
    if pip is None or section is None:
        raise SystemExit(
            f"{LIST} has no pip version or no pip section: restore it with git checkout environment.yml."
        )
    return pip[1], re.findall(r"^      - (\S+==\S+)", section[1], re.MULTILINE)


def set_up() -> None:
    """Install everything into a fresh .venv. An interrupted one, or one with another list, is created anew."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "environment.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another process is setting up .venv: waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_bytes() == LIST.read_bytes():
            return
        pip, packages = requirements(LIST.read_text("utf-8"))
        print(
            f"Setting up .venv with Python {sys.version.split()[0]}: {len(packages)} packages, a few "
            f"minutes, once.",
            file=sys.stderr,
            flush=True,
        )
        start = time.monotonic()
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        python = str(ENVIRONMENT / "bin" / "python")
        _run(
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
            environment,
            "Python's venv module failed: install it (Debian and Ubuntu: apt install python3-venv)",
        )
        _run([python, "-m", "pip", "install", f"pip=={pip}"], environment, _NO_INDEX)
        listed = ENVIRONMENT / "requirements.txt"
        listed.write_text("\n".join(packages) + "\n", "utf-8")
        _run(
            [python, "-m", "pip", "install", "--progress-bar", "off", "--requirement", str(listed)],
            environment,
            _NO_INDEX,
            total=len(packages),
        )
        _run(
            [python, "-m", "pip", "check"],
            environment,
            "environment.yml pins versions that do not fit together",
        )
        # In place, so that Jupyter and papermill, started from .venv by hand, find the package too.
        _run(
            [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
            environment,
            "The package could not be installed into .venv",
        )
        shutil.copyfile(LIST, ENVIRONMENT / "stamp")
        os.replace(ENVIRONMENT / "stamp", STAMP)
        print(f"Set up in {time.monotonic() - start:.0f} s.", file=sys.stderr, flush=True)


_NO_INDEX = (
    "Packages could not be installed: check the network, pip's index and proxy (pip config list), and the space left "
    "on the disk"
)


def _run(command: list[str], environment: dict[str, str], trouble: str, total: int = 0) -> None:
    """Run a step, its words kept in a log; on failure say `trouble`, the step's last words, and stop."""
    log = ROOT / ".cache" / "environment.log"
    with open(log, "w+", encoding="utf-8", errors="replace") as output:
        step = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            _watch(step, log, total)
        except BaseException:
            step.kill()
            step.wait()
            raise
        if step.returncode:
            output.seek(0)
            said = [line.strip() for line in output if line.strip() and not line.startswith("WARNING")]
            raise SystemExit(
                "\n".join([*said[-5:], f"{trouble}, then run again. Everything pip said: {log}"])
            )


def _watch(step: subprocess.Popen, log: Path, total: int) -> None:
    """Show how many packages are downloaded and then installed, until `step` ends."""
    terminal, reported = sys.stderr.isatty(), time.monotonic()
    while True:
        try:
            step.wait(1.0)
        except subprocess.TimeoutExpired:
            pass
        if step.returncode is not None:
            if total and terminal:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            return
        if not total or not (terminal or time.monotonic() - reported >= REPORT_SECONDS):
            continue
        reported = time.monotonic()
        text = log.read_text("utf-8", "replace")
        if "Installing collected packages" in text:
            done, verb = len(list(ENVIRONMENT.glob("lib/python3.*/site-packages/*.dist-info"))), "installed"
        else:
            done, verb = len(re.findall(r"^Collecting ", text, re.MULTILINE)), "collected"
        line = f"  {min(done, total)} of {total} packages {verb}"
        print(
            f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True
        )


if __name__ == "__main__":
    try:
        set_up()
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted: the next run sets up .venv anew.") from None
