"""Make .venv from requirements.txt, where there is no conda. Standard library only: it runs first of all."""

import compileall
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def set_up(root: Path = ROOT) -> None:
    """Install everything into a fresh .venv. An interrupted one, or one with another list, is created anew.

    A copy of requirements.txt is written into .venv when all of it is installed.
    """
    listed, environment = root / "requirements.txt", root / ".venv"
    stamp = environment / listed.name
    (root / ".cache").mkdir(exist_ok=True)
    with open(root / ".cache" / "environment.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say("Another process is setting up .venv: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_bytes() == listed.read_bytes():
            return
        packages = re.findall(r"^\w\S*==\S+", listed.read_text("utf-8"), re.MULTILINE)
        _say(f"Setting up .venv with Python {sys.version.split()[0]}: {len(packages)} packages, a few minutes, once.")
        start = time.monotonic()
        shutil.rmtree(environment, ignore_errors=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip"]
        _run([sys.executable, "-m", "venv", str(environment)],
             "Python's venv module failed: install it (Debian and Ubuntu: apt install python3-venv)")
        for what in ([package for package in packages if package.startswith("pip==")], ["--no-compile", "--requirement", str(listed)]):
            _run([*pip, "install", *what], "Packages could not be installed: check the network, pip's index and proxy "
                                           "(pip config list), and the space left on the disk")
        _run([*pip, "check"], "requirements.txt pins versions that do not fit together")
        # In place, so that Jupyter and papermill, started from .venv by hand, find the package too.
        _run([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(root)],
             "The package could not be installed into .venv")
        # With all cores, where pip uses one; PYTHONDONTWRITEBYTECODE, which images of containers set, is not heeded either way.
        for folder in (environment / "lib", root / "lib"):
            compileall.compile_dir(folder, quiet=2, workers=0)
        shutil.copyfile(listed, environment / "stamp")
        os.replace(environment / "stamp", stamp)
        _say(f"Set up in {time.monotonic() - start:.0f} s.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run(command: list[str], trouble: str) -> None:
    """Run a step, which shows its own progress; if it fails, say `trouble` below its words, and stop."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"{trouble}, then run again.")


if __name__ == "__main__":
    try:
        set_up()
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted: the next run sets up .venv anew.") from None
