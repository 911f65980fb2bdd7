"""Three real sentiment corpora: each text was rated from -4 to 4 by twenty people.

Source: Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media text";
files `*_GroundTruth.txt`, one text a line: id, mean rating, text, tab-separated, latin-1.
"""

from __future__ import annotations

from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.models import assets
from synthtune.task_list import SPECS
from synthtune.tasks.example import Example

LABELS = ("negative", "positive")
UNDECIDED = 0.5
"""Texts with a mean rating this close to zero are dropped: the raters did not agree on a sign."""


def read(path: Path) -> tuple[list[Example], int]:
    """Read one rated corpus.

    Returns
    -------
    examples : list of Example
        Texts whose mean rating lies outside [-0.5, 0.5], with target "negative" or "positive".
    undecided : int
        How many were dropped because it lies inside.

    Raises
    ------
    CorpusError
        The file is missing, or a line is not id, rating, text; the message names file and line.
    """
    examples, undecided = [], 0
    try:
        lines = path.read_text("latin-1").splitlines()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); delete its folder in the cache and run "
                          "again to fetch it anew.") from error
    for number, line in enumerate(lines, 1):
        parts = line.split("\t", 2)
        try:
            name, rating, text = parts[0], float(parts[1]), parts[2].strip()
        except (IndexError, ValueError) as error:
            raise CorpusError(f"{path}, line {number}: expected id, rating and text separated by tabs.") from error
        if abs(rating) <= UNDECIDED:
            undecided += 1
        elif text:
            examples.append(Example(name, text, LABELS[rating > 0]))
    return examples, undecided


def corpus(task: str, _root: Path | None) -> tuple[list[Example], None, dict[str, int]]:
    """Fetch and read the corpus of a sentiment task, which has no test set of its own; see `read`."""
    folder, [file] = assets.fetch(SPECS[task].asset), SPECS[task].files
    examples, undecided = read(next(iter(sorted(folder.rglob(file))), folder / file))
    return examples, None, {"undecided": undecided}
