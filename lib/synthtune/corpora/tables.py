"""What the two grammars say: YAML files beside this one, all of it written for this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read(name: str) -> Any:
    """The content of `name`.yaml, sequences as tuples."""
    path = Path(__file__).with_name(f"{name}.yaml")
    return _tuples(yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _tuples(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _tuples(value) for key, value in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, list) else content
