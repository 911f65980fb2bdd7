"""Rows of a file in memory: the columns that matter, and a count of every row that is left out."""

import itertools
import random
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from synthtune.custom.readers import LOOKED_AT, Record, Table, as_text
from synthtune.custom.report import Guess, Problem, listed, shown_text
from synthtune.custom.task_file import TaskFile, plain
from synthtune.errors import nearest
from synthtune.files import read_yaml
from synthtune.metrics import joined_labels

# Rows of a file that are kept; of a longer one, a random sample of this size, the same in every run.
ROW_LIMIT = 200_000

# Characters of the longest text that is kept. No model here reads a hundredth of it.
CELL_LIMIT = 100_000

# Why the other rows of a longer file are left out.
BY_CHANCE = "not in the random sample"

WORDS = read_yaml(Path(__file__).with_name("words.yaml"))


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are used, and what for.

    Attributes
    ----------
    text : tuple of str
        One column, or a pair.
    output : str
        The label or target; "" in a file that has none.
    task_type : str
        "classification" or "generation".
    separator : str
        What stands between several labels of a row; "" where a row has one.
    """

    text: tuple[str, ...]
    output: str
    task_type: str
    separator: str = ""

    @property
    def roles(self) -> dict[str, str]:
        """The name of each used column in the tables, and its name in the file."""
        texts = dict(zip(("text", "text_pair"), self.text, strict=False))
        return texts | {"output": self.output} if self.output else texts


@dataclass(frozen=True)
class Gathered:
    """What was read of one file.

    Attributes
    ----------
    table : Table
    role : str
        "rows", "unlabelled" or "test".
    columns : Columns
    frame : DataFrame
        Columns row (as the user counts it), those of `Columns.roles` as they are in the file, and decoded (see `Record`).
    rows_in : int
        Rows of the file; blank lines are none.
    dropped : dict
        Which rows are not in `frame`, by reason.
    """

    table: Table
    role: str
    columns: Columns
    frame: pd.DataFrame
    rows_in: int
    dropped: dict[str, Sequence[int]]


def gather(table: Table, role: str, columns: Columns, seed: int) -> Gathered:
    """Read the used columns of a file.

    Raises
    ------
    RowsError
        The file cannot be read on; the message names file and row.
    """
    used = [(name, table.columns.index(name), columns.separator if role == "output" else "") for role, name in columns.roles.items()]
    draw = random.Random(seed)
    kept: list[tuple] = []
    dropped: defaultdict[str, array] = defaultdict(lambda: array("q"))  # of ten million rows a list would take 400 MB
    rows_in = readable = 0
    for record in table.read():
        rows_in += 1
        values, reason = _values(record, used)
        if reason:
            dropped[reason].append(record.row)
            continue
        readable += 1
        row = (record.row, *values, record.decoded)
        if len(kept) < ROW_LIMIT:
            kept.append(row)
            continue
        place = draw.randrange(readable)
        if place < ROW_LIMIT:
            row, kept[place] = kept[place], row
        dropped[f"{BY_CHANCE} of {ROW_LIMIT:,}"].append(row[0])
    frame = pd.DataFrame(sorted(kept, key=lambda row: row[0]), columns=["row", *columns.roles, "decoded"])
    frame = frame.astype({"row": int, "decoded": bool} | dict.fromkeys(columns.roles, str))
    return Gathered(table, role, columns, frame, rows_in, dict(dropped))


def _values(record: Record, used: list[tuple[str, int, str]]) -> tuple[list[str], str]:
    """The texts of a row in the columns (name, place, separator of labels) that are used, or why it is left out."""
    values: list[str] = []
    if record.reason:
        return values, record.reason
    for name, place, separator in used:
        text, instead = as_text(_united(record.cells[place], separator) if separator else record.cells[place])
        if instead:
            return values, f"with no text in column '{name}' but {instead}"
        if len(text) > CELL_LIMIT:
            return values, f"with more than {CELL_LIMIT:,} characters in column '{name}'"
        values.append(text)
    return values, ""


def _united(cell: Any, separator: str) -> Any:
    """The labels of a cell, a list or a text with separators, as one text."""
    text, instead = as_text(cell)
    if instead and not isinstance(cell, list):
        return cell
    each = cell if isinstance(cell, list) else text.split(separator)
    return joined_labels({plain(as_text(label)[0]) for label in each} - {""}, separator)


def choose(table: Table, task: TaskFile) -> tuple[Columns | None, list[Guess], list[Problem]]:
    """Find the columns of the labelled rows: those the task file names, and a guess for the others.

    Returns
    -------
    columns : Columns or None
        None if a named column is missing or a guess would be arbitrary; then there are problems.
    guesses : list of Guess
    problems : list of Problem
    """
    text, output, named = task.text, task.label or task.target, bool(task.label_names)
    problems = missing(table, [*(text or []), *filter(None, [output])])
    if problems:
        return None, [], problems
    guesses, values = [], _first_values(table)
    task_type = "generation" if task.target else "classification" if task.label or named else ""
    if not output:
        output, guessed_type, why = _guess_output(values, text or [], classification=named)
        if not output:
            return None, [], [_of_header(table, "which label", columns=listed(table.columns, most=12))]
        task_type = task_type or guessed_type
        what, means, because = ("label", "classification", "labels repeat and are short") if task_type == "classification" else (
            "target", "text-to-text generation", f"most values of '{output}' are different texts")
        guesses += [Guess(table.file, what, output, why), Guess(table.file, "type of task", means, because)]
    if not text:
        text, why = _guess_text(values, output)
        if not text:
            return None, guesses, [_of_header(table, "which text", columns=listed(table.columns, most=12))]
        guesses.append(Guess(table.file, "text", " and ".join(text), why))
    problems = missing(table, [*text, output])
    if output in values[output]:
        problems.append(_of_header(table, "no header", shown=shown_text(output)))
    return Columns(tuple(text), output, task_type, task.label_separator or ""), guesses, problems


def choose_like(first: Columns, table: Table, labelled: bool) -> tuple[Columns | None, list[Guess], list[Problem]]:
    """Find in a further file the columns that the labelled rows have."""
    found, guesses = replace(first, output=first.output if labelled else ""), []
    if not labelled and len(first.text) == len(table.columns) == 1 and first.text[0] not in table.columns:
        found = replace(found, text=tuple(table.columns))
        guesses.append(Guess(table.file, "text", table.columns[0], "the only column"))
    problems = missing(table, list(found.roles.values()))
    return (None if problems else found), guesses, problems


def missing(table: Table, wanted: list[str]) -> list[Problem]:
    """Errors for columns that are not there, or there twice."""
    problems = []
    for name in wanted:
        found = table.columns.count(name)
        if not found:
            hint = nearest(name, dict.fromkeys(table.columns[:50]))
            problems.append(_of_header(table, "missing column", name, hint=hint[:1].upper() + hint[1:]))
        elif found > 1:
            problems.append(_of_header(table, "column twice", name, number=found))
    return problems


def _of_header(table: Table, check: str, column: str = "", **values: Any) -> Problem:
    """An error about the header."""
    return table.problem(check, column, (table.header,) if table.header else (), **values)


def _first_values(table: Table) -> dict[str, list[str]]:
    """The first values of every column, as texts, or what they are instead."""
    values: dict[str, list[str]] = {name: [] for name in table.columns}
    for record in itertools.islice(table.read(), LOOKED_AT):
        for name, cell in zip(table.columns, record.cells or (), strict=False):
            text, instead = as_text(cell)
            values[name].append(text.strip() or instead)
    return values


def _guess_output(values: dict[str, list[str]], text: list[str], classification: bool) -> tuple[str, str, str]:
    """Name the column of labels or targets, the type of task, and the reason."""
    left = {name: found for name, found in values.items()
            if name not in text and (any(found) or name.lower() == "label")}  # never another column in its place
    by_name = {name.lower(): name for name in reversed(left)}
    for role, task_type in (("label", "classification"), ("target", "generation"), ("label_or_target", "")):
        for name in WORDS[role]:
            if name in by_name and (task_type != "generation" or not classification):
                column = by_name[name]
                return column, task_type or ("classification" if _repeats(left[column]) else "generation"), "by its name"
    labels = [name for name in left if _repeats(left[name]) and _length(left[name]) <= 40]
    if labels:
        return min(labels, key=lambda name: len(set(left[name]))), "classification", "fewest different values"
    if len(left) == (1 if text else 2) and not classification:
        return list(left)[-1], "generation", "the other column" if text else "the last of two columns"
    return "", "", ""


def _repeats(found: list[str]) -> bool:
    different = len(set(filter(None, found)))
    return 2 <= different <= max(2, min(100, len(found) // 2))


def _length(found: list[str]) -> float:
    return sum(map(len, found)) / max(1, len(found))


def _guess_text(values: dict[str, list[str]], output: str) -> tuple[list[str], str]:
    left = {name: found for name, found in values.items() if name != output and any(found)}
    by_name = {name.lower(): name for name in reversed(left)}
    for pair in WORDS["text_pairs"]:
        if all(name in by_name for name in pair):
            return [by_name[name] for name in pair], "by their names"
    for name in WORDS["text"]:
        if name in by_name:
            return [by_name[name]], "by its name"
    if left:
        return [max(left, key=lambda name: _length(left[name]))], "longest values"
    return [], ""
