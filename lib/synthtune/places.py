"""Where the user stands, for paths they type and paths they read; needs nothing but Python."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflow" / "profiles"


def started_in() -> Path:
    """The folder in which the command was typed; run_all.sh goes on from its own."""
    return Path(os.environ.get("SYNTHTUNE_STARTED_IN", os.getcwd()))


def as_typed(path: Path) -> str:
    """A path as a person would type it from there."""
    home = started_in()
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)


def profiles() -> list[str]:
    """Names of the profiles in workflow/profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def environment(threads: int) -> dict[str, str]:
    """Environment variables of a process that this one starts to use the library, with so many threads."""
    path = os.pathsep.join([str(ROOT / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])])
    limited = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(limited, str(threads))}


def cache_folder() -> Path:
    """The folder of downloads: ``$SYNTHTUNE_CACHE``, or ``.cache/synthtune`` in the clone."""
    chosen = os.environ.get("SYNTHTUNE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else ROOT / ".cache" / "synthtune"
