"""Where the user stands, for paths they type and paths they read; needs nothing but Python."""

from __future__ import annotations

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


def cache_folder() -> Path:
    """The folder of downloads: ``$SYNTHTUNE_CACHE``, or ``.cache/synthtune`` in the clone."""
    chosen = os.environ.get("SYNTHTUNE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else ROOT / ".cache" / "synthtune"
