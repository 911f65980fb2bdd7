"""What official files have in common: rows with a line number each, and a folder for each split."""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from synthtune.errors import CorpusError
from synthtune.tasks.example import Example, joined
from synthtune.tasks.spec import Corpus

SPLITS = ("train", "dev", "test")

# Reads a file: of each example the line it is on, its text or pair of texts, and its label in words.
Rows = Callable[[Path], Iterable[tuple[int, tuple[str, ...], str]]]


def train_and_test(folder: Path, files: tuple[str, str], rows: Rows, pair: tuple[str, ...] = ()) -> Corpus:
    """Read a corpus of two files; see `read`."""
    return Corpus(*(read(folder / file, rows, pair) for file in files))


def read(path: Path, rows: Rows, pair: tuple[str, ...] = ()) -> list[Example]:
    """Read a file of labelled texts, or of pairs of texts, whose names are then `pair`.

    Raises
    ------
    CorpusError
        A row is malformed, or the file cannot be read; the message names the file, and the line.
    """
    examples = []
    try:
        for number, texts, target in rows(path):
            if not target or not all(texts):
                raise CorpusError(f"{path}, line {number}: {'a text' if target else 'the label'} is empty.")
            examples.append(Example(f"{path.stem}-{number}", joined(pair, texts), target))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); if it is in the cache, delete its folder there and run again to fetch "
                          "it anew.") from error
    return examples


def table(path: Path, columns: int | None, header: int = 1, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows of a delimited file below its header, with the line each ends on; each has so many columns, if that is said."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        rows = csv.reader(handle, **dialect)
        for row in rows:
            if rows.line_num <= header or not row:
                continue
            if columns is not None and len(row) != columns:
                raise CorpusError(f"{path}, line {rows.line_num}: {len(row)} columns, not {columns}.")
            yield rows.line_num, row


def split_files(folder: str | Path, split: str, corpus: str, inside: Iterable[str], pattern: str) -> list[Path]:
    """Find the files of a split in a release, or in a folder that holds the release at one of the places `inside`.

    Raises
    ------
    CorpusError
        If the split is not one of the three, its folder is not found, or holds no file like `pattern`.
    """
    if split not in SPLITS:
        raise CorpusError(f"There is no {corpus} split '{split}': choose one of {', '.join(SPLITS)}.")
    found = next((path for path in (Path(folder, place, split) for place in ("", *inside)) if path.is_dir()), None)
    if found is None:
        raise CorpusError(f"No {corpus} corpus in {folder}: there should be a folder '{split}' with {pattern} in it, directly or under "
                          f"{' or '.join(f'{place}/' for place in inside)}.")
    paths = sorted(found.glob(pattern))
    if not paths:
        raise CorpusError(f"{found} holds no file like {pattern}.")
    return paths
