"""Public classification corpora in their official files.

RTE (Dagan et al. 2006, as distributed with GLUE, Wang et al. 2019), MRPC (Dolan and Brockett 2005), BoolQ (Clark et al.
2019) and BANKING77 (Casanueva et al. 2020). The first three ask about a pair of texts. A pair is put on one line with
a name before each text, the shorter one first, so that cutting a long line never removes the question.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.task_list import SPECS
from synthtune.tasks.example import Example, joined

ENTAILED = {"0": "yes", "entailment": "yes", "1": "no", "not_entailment": "no"}
"""RTE's labels: GLUE writes them in words, copies made from hubs in numbers."""


def corpus(name: str, root: Path) -> tuple[list[Example], list[Example], dict[str, int]]:
    """Read the training and the test examples of a corpus below `root`.

    Raises
    ------
    CorpusError
        A file is missing or malformed; the message names the file, and the line.
    """
    train, test = paths(name, root)
    return read(name, train), read(name, test), {}


def paths(name: str, root: Path) -> tuple[Path, Path]:
    """The files of the training and the test examples.

    Raises
    ------
    CorpusError
        A file is missing.
    """
    files, folder = SPECS[name].files, root / name
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise CorpusError(f"{folder} has no {' and no '.join(missing)}: put the official files of {name} there, or give "
                          "another folder as data_root (--data-root DIR).")
    return folder / files[0], folder / files[1]


def read(name: str, path: Path) -> list[Example]:
    """Read one official file.

    Returns
    -------
    list of Example
        In the order of the file. Targets are "yes" and "no" for pairs, the intent in words for BANKING77.

    Raises
    ------
    CorpusError
        A row is malformed, or the file cannot be read.
    """
    rows = {"rte": _rte, "mrpc": _mrpc, "boolq": _boolq, "banking77": _banking}[name]
    examples = []
    try:
        for number, texts, target in rows(path):
            if not target or not all(texts):
                raise CorpusError(f"{path}, line {number}: {'a text' if target else 'the label'} is empty.")
            examples.append(Example(f"{path.stem}-{number}", joined(SPECS[name].pair, texts), target))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read ({error}).") from error
    return examples


def _table(path: Path, columns: int, **dialect) -> Iterator[tuple[int, list[str]]]:
    """Rows of a delimited file below its header, with the line each ends on."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        rows = csv.reader(handle, **dialect)
        for row in rows:
            if rows.line_num == 1 or not row:
                continue
            if len(row) != columns:
                raise CorpusError(f"{path}, line {rows.line_num}: {len(row)} columns, not {columns}.")
            yield rows.line_num, row


def _rte(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    # The official order numbers the rows in the first column, copies made from hubs in the last.
    with open(path, encoding="utf-8-sig") as handle:
        header = handle.readline().rstrip("\r\n").split("\t")
    try:
        text, claim, label = map(header.index, ("sentence1", "sentence2", "label"))
    except ValueError as error:
        raise CorpusError(f"{path}, line 1: expected a header with sentence1, sentence2 and label, separated by tabs."
                          ) from error
    for number, row in _table(path, len(header), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row[label] not in ENTAILED:
            raise CorpusError(f"{path}, line {number}: label '{row[label]}' is none of {', '.join(ENTAILED)}.")
        yield number, (row[claim].strip(), row[text].strip()), ENTAILED[row[label]]


def _mrpc(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    for number, row in _table(path, 5, delimiter="\t", quoting=csv.QUOTE_NONE):
        if row[0] not in ("0", "1"):
            raise CorpusError(f"{path}, line {number}: quality '{row[0]}' is neither 0 nor 1.")
        yield number, (row[3].strip(), row[4].strip()), ("no", "yes")[int(row[0])]


def _boolq(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    with open(path, encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                question, passage, answer = row["question"], row["passage"], row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise CorpusError(f"{path}, line {number}: expected a JSON object with question, passage and answer."
                                  ) from error
            if not isinstance(answer, bool):
                raise CorpusError(f"{path}, line {number}: the answer is {answer!r}, neither true nor false.")
            yield number, (str(question).strip().rstrip("?") + "?", str(passage).strip()), "yes" if answer else "no"


def _banking(path: Path) -> Iterator[tuple[int, tuple[str], str]]:
    for number, (text, intent) in _table(path, 2):
        yield number, (text.strip(),), " ".join(intent.replace("_", " ").split()).lower()
