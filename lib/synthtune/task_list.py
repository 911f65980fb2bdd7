"""The tasks of the study, as task_list.yaml describes them: one entry is all that is said of a task anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Spec:
    """A task; task_list.yaml explains its entries.

    Attributes
    ----------
    files : tuple of str
        Of a public corpus the training file and the one whose labels are published, below `data_root`/<task>.
    tokens : dict
        Average length of an "input" and of an "output", in tokens: an assumption of the planner.
    """

    title: str
    reader: str
    instruction: str
    input: str
    output: str
    sentences: tuple[str, ...]
    answer: str
    tokens: dict[str, int]
    kind: str = "classification"
    asset: str = ""
    files: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    labels: int = 0

    @property
    def public(self) -> bool:
        """Whether it is read from official files that come with nothing of ours."""
        return self.reader == "public"


def _read() -> dict[str, Spec]:
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return {name: Spec(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
            for name, entry in entries.items()}


SPECS = _read()
"""Every task by its name."""


def title(name: str, own_corpus: bool) -> str:
    """Name of a task as people read it; a corpus that this package wrote is named as such."""
    return f"{SPECS[name].title} format, own corpus" if own_corpus else SPECS[name].title
