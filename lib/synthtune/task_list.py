"""The tasks of the study, as task_list.yaml describes them: one entry is all that is said of a task anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthtune.files import read_yaml


@dataclass(frozen=True)
class Spec:
    """A task; task_list.yaml explains its entries.

    Attributes
    ----------
    files : tuple of str
        Of a public corpus the training file and the one whose labels are published, below `data_root`/<task>.
    tokens : dict
        Average length of an "input" and of an "output", in tokens: an assumption of the planner.
    rows : str
        Of a custom task the SHA-256 of all that its task file says of it; its spec is in no list (`synthtune.tasks.custom`).
    separator : str
        Of a custom task, what stands between several labels of an output; "" where it has one.
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
    rows: str = ""
    separator: str = ""

    @property
    def public(self) -> bool:
        """Whether it is read from official files that come with nothing of ours."""
        return self.reader == "public"


SPECS = {name: Spec(**entry) for name, entry in read_yaml(Path(__file__).with_suffix(".yaml")).items()}
"""Every task by its name."""


def is_own_corpus(name: str, data_root: Path | None) -> bool:
    """Whether a task's texts were written for this package, rather than being a corpus others collected.

    The NLG tasks read the real corpora where the settings name a folder that holds them.
    """
    return name in SPECS and SPECS[name].kind == "nlg" and not data_root


def title(name: str, data_root: Path | None) -> str:
    """Name of a task as people read it; a corpus that this package wrote is named as such, a custom task by its file."""
    if name not in SPECS:
        return name.replace("_", " ").capitalize()
    return f"{SPECS[name].title} format, own corpus" if is_own_corpus(name, data_root) else SPECS[name].title
