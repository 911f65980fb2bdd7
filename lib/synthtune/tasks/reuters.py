"""Reuters-21578, the eight-topic subset R8: one news item a row, in Orange's tab format.

Source: Lewis 1997, Reuters-21578; the R8 subset after Cardoso-Cachopo 2007. Rows hold topic and text; the first
three rows are Orange's header (names, types, roles).
"""

from __future__ import annotations

import csv
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.models import assets
from synthtune.task_list import SPECS
from synthtune.tasks.example import Example

TOPICS = {
    "acq": "acquisition", "crude": "oil", "earn": "earnings", "grain": "grain", "interest": "interest rates",
    "money-fx": "foreign exchange", "ship": "shipping", "trade": "trade",
}
"""The corpus's topic codes and the words the teacher and the reader see for them."""

HEADER_ROWS = 3


def read(path: Path) -> list[Example]:
    """Read one split.

    Raises
    ------
    CorpusError
        The file is missing, or a row has no known topic or no text; the message names file and line.
    """
    examples = []
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = csv.reader(handle, delimiter="\t")
            for row in rows:
                if rows.line_num <= HEADER_ROWS or not row:
                    continue
                if len(row) != 2 or row[0] not in TOPICS or not row[1].strip():
                    raise CorpusError(f"{path}, line {rows.line_num}: expected a topic ({', '.join(TOPICS)}), a tab "
                                      "and a text.")
                examples.append(Example(f"{path.stem}-{rows.line_num}", row[1].strip(), TOPICS[row[0]]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); delete its folder in the cache and run again to "
                          "fetch it anew.") from error
    return examples


def corpus(task: str, _root: Path | None) -> tuple[list[Example], list[Example], dict[str, int]]:
    """Fetch and read the official training and test splits."""
    folder = assets.fetch(SPECS[task].asset)
    splits = []
    for split in ("train", "test"):
        name = f"reuters-r8-{split}.tab"
        found = sorted(folder.rglob(name))
        splits.append(read(found[0] if found else folder / name))
    return splits[0], splits[1], {}
