"""What is said of a task in its file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from synthtune.tasks.example import Example, PromptTemplate


class Corpus(NamedTuple):
    """What a reader returns.

    With `dev`, the corpus has its own three splits, and they are kept: each is shuffled, cut to the size that the settings say, and
    of an input in two of them the test set has it, or else the development set. Without `dev`, development examples are drawn from
    `train`; so are test examples if `test` is None. `counted` goes into the task's report.
    """

    train: Sequence[Example]
    test: Sequence[Example] | None = None
    dev: Sequence[Example] | None = None
    counted: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Spec:
    """A task: its name for people, its prompt template, its reader, and where its corpus comes from.

    Attributes
    ----------
    title : str
        Name in figures.
    read : callable
        Reads the corpus in a folder, a Path: that of `asset`; or `data_root`/<task>, if others publish it (`source`); or of a task
        outside this package the folder of its file. Returns a `Corpus`.
    template : PromptTemplate
        The prompt template: the instruction and the names of a text and of its output.
    sentences : tuple of str
        Two inputs of our own writing, which notebooks show in place of a corpus.
    answer : str
        The right output of the first.
    tokens : dict
        Average length of an "input" and of an "output", in tokens: an assumption of the planner.
    task_type : {"classification", "generation"}
    labels : int
        How many there are; 0 for text generation. An assumption of the planner.
    pair : tuple of str
        Names of the two texts of an input; () for single texts.
    is_input, values : callable, optional
        Text generation: whether a text has the form of an input; the values of an input that its output has to mention.
    asset : str
        The corpus in assets.yaml, which also has its licence and citation.
    citation, licence : str
        Of the published corpus.
    source : dict
        Where it is published: `files`, each with url, bytes, sha256 and, of an archive, the members that are kept and their names;
        or a `repository` with url, commit, folder and parts. `data_root: official` fetches it.
    toy_corpus : str
        Module with a `write` that makes a corpus in the same format, for runs without `data_root`.
    file : Path
        Of a task outside this package, the Python file that says all this.
    rows : str
        SHA-256 of what a task outside this package is made of: its file and its examples.
    separator : str
        Of a custom task, what stands between several labels of an output; "" where it has one.
    """

    title: str
    read: Callable[[Path], Corpus]
    template: PromptTemplate
    sentences: tuple[str, ...]
    answer: str
    tokens: dict[str, int]
    task_type: str = "classification"
    labels: int = 0
    pair: tuple[str, ...] = ()
    is_input: Callable[[str], bool] | None = None
    values: Callable[[str], list[str]] | None = None
    asset: str = ""
    citation: str = ""
    licence: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    toy_corpus: str = ""
    file: Path | None = None
    rows: str = ""
    separator: str = ""

    @property
    def public(self) -> bool:
        """Whether it is read from official files that come with nothing of ours."""
        return bool(self.source) and not self.toy_corpus

    @property
    def files(self) -> list[str]:
        """Names of its official files, the training file first; [] if they are published as a repository."""
        each = [file.get("members", {}).values() or [Path(file["url"]).name] for file in self.source.get("files", ())]
        return [name for names in each for name in names]
