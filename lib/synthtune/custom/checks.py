"""What can be wrong with labelled rows, looked for all at once before anything is trained.

Cells are checked as they are in the file, by tables of rules; what they say is in `problems.yaml`. (A schema library would need
the same rules and sentences, and a translation of what it raises.) Rows are then cleaned in the ways that change no meaning, and
checked against each other.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from synthtune.custom.gather import BY_CHANCE, WORDS, Gathered
from synthtune.custom.report import Problem, listed, shown_text
from synthtune.custom.task_file import MOST_CLASSES, on_one_line, plain
from synthtune.metrics import split_labels
from synthtune.tasks.splits import first_near

# Rows a class should have at least: fewer cannot be split into some to learn from and some to test.
FEW = 4

# Rows of a file, and characters of a text, up to which near-duplicates are looked for.
NEAR_ROWS = 10_000
NEAR_CHARACTERS = 500

# Characters of English text that make a word piece, roughly: tells texts longer than the model reads.
CHARACTERS_A_PIECE = 4.4

# Characters that are a word piece each: Chinese, Japanese and Korean.
PIECES = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")

# Labelled rows from which a label column with hardly a value twice is taken for an id.
IDS_FROM = 10

STRAY = re.compile("[\0\ufeff]")

# A spreadsheet takes a cell that starts with one of these for a formula.
SPREADSHEET_START = ("=", "+", "-", "@", "\t", "\r")

ESCAPED = re.compile(r"'(?=[=+\-@\t\r])")
_NUMBER = re.compile(r"[+-]?\d[\d.,]*%?")
_MONTH = r"(jan|feb|mar|apr|may|mai|june?|july?|aug|sept?|oct|okt|nov|dec|dez)\.?"
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]\d{1,2}:\d{2}\S*)?|\d{1,2}:\d{2}:\d{2}"
    rf"|\d{{1,2}}[-/. ]{{1,2}}{_MONTH}([-/. ]\d{{2,4}})?|{_MONTH}[-/. ]\d{{1,4}}",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|&(amp|lt|gt|quot|nbsp|#\d+);")
_JSON = re.compile(r"""[\[{]\s*["'{\[].*[\]}]""")
_MISSING, _MAYBE_MISSING = (set(WORDS[name]) for name in ("missing", "maybe_missing"))

# Labels of only such characters stand for a missing value where all other labels are words or numbers.
_MARKS = re.compile(r"[-?._*/]+")

# Dashes, quotes and small Cyrillic letters that look like others; what they look like.
_LOOKS = str.maketrans("‐‑‒–—−’‘ʼ`´“”„авекмнорстухіјѕ", "-" * 6 + "'" * 5 + '"' * 3 + "abekmhopctyxijs")

# What stands between several labels of a cell, and whether it seldom is part of a label.
_UNITED = {";": True, "|": True, ",": True, "/": False, "&": False, "+": False, " ": False}


# Checks of single cells by their names in `problems.yaml`: whether they find something wrong.
TEXT_RULES: dict[str, Callable[[str], Any]] = {
    "empty text": lambda cell: not on_one_line(STRAY.sub("", cell)),
    "number as text": lambda cell: is_number(cell),
    "date as text": lambda cell: _DATE.fullmatch(cell.strip()),
    "placeholder": lambda cell: cell.strip().lower() in _MISSING | _MAYBE_MISSING,
    "spreadsheet formula": lambda cell: cell.startswith(SPREADSHEET_START),
    "HTML": _TAG.search,
}
LABEL_RULES: dict[str, Callable[[str], Any]] = {
    "empty label": lambda cell: not plain(cell),
    "spaces in label": lambda cell: cell.strip() and cell != on_one_line(cell),
    "unseen in label": lambda cell: plain(cell) != on_one_line(STRAY.sub("", cell)),
    "formula as label": lambda cell: runs(cell),
    "date as label": lambda cell: _DATE.fullmatch(cell.strip()),
}
CELL_RULES: dict[str, Callable[[str], Any]] = {"NUL byte": STRAY.search, "damaged letters": lambda cell: "\ufffd" in cell}
JSON_RULE: dict[str, Callable[[str], Any]] = {"JSON": lambda cell: _JSON.fullmatch(plain(cell))}


def is_number(cell: str) -> bool:
    """Say whether a cell holds a number and nothing else."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def runs(cell: str) -> bool:
    """Say whether a spreadsheet would run a cell as a formula; a sign alone and numbers it would not."""
    return cell.startswith(SPREADSHEET_START) and len(cell) > 1 and not is_number(cell)


def cells(gathered: Gathered) -> list[Problem]:
    """Check every cell of a file as it is there."""
    frame, table = gathered.frame, gathered.table
    labels = gathered.columns.task_type == "classification"
    problems = []
    for role, column in gathered.columns.roles.items():
        rules = (LABEL_RULES if labels and role == "output" else TEXT_RULES) | CELL_RULES
        rules |= JSON_RULE if labels else {}  # texts to be written may well be made from JSON
        for check, finds in rules.items():
            found = frame[role].map(finds).astype(bool)
            if found.any():
                example = frame[role][found].iloc[0]
                shown = f", {shown_text(example)}" if example.strip() else ""
                problems.append(table.problem(check, column, frame["row"][found], shown=shown))
    decoded = frame[frame["decoded"]]
    if len(decoded):
        problems.append(table.problem("mixed encodings", "", decoded["row"], shown=shown_text(decoded["text"].iloc[0])))
    for reason, rows in gathered.dropped.items():
        if reason.startswith(BY_CHANCE):
            problems.append(table.problem("row left out by chance", reason=reason, number=len(rows)))
        else:
            problems.append(table.problem("row left out", "", rows, reason=reason))
    return [*problems, *table.warnings]


def cleaned(gathered: Gathered, spelling: dict[str, str]) -> pd.DataFrame:
    """The cells without what carries no meaning; labels in one spelling.

    Parameters
    ----------
    gathered : Gathered
    spelling : dict
        How to write each label; see `spellings`.

    Returns
    -------
    DataFrame
        The frame's rows and columns. NUL bytes, byte-order marks, the ' that keeps a spreadsheet from running
        a cell, and the spaces around outputs are gone; labels are `plain`.
    """
    frame = gathered.frame.drop(columns="decoded").copy()
    for role in gathered.columns.roles:
        if role == "output" and gathered.columns.task_type == "classification":
            frame[role] = plain_labels(gathered).map(lambda label: spelled(label, spelling))
        else:
            frame[role] = _unescaped(gathered, role).map(str.strip if role == "output" else str)
    return frame


def _unescaped(gathered: Gathered, role: str) -> pd.Series:
    found = gathered.frame[role].map(lambda cell: STRAY.sub("", cell))
    if gathered.table.kind == "delimited":
        found = found.map(lambda cell: ESCAPED.sub("", cell, count=1) if cell[:1] == "'" else cell)
    return found


def plain_labels(gathered: Gathered) -> pd.Series:
    """The labels of a file, each `plain`."""
    return _unescaped(gathered, "output").map(plain)


def alike(label: str) -> str:
    """What labels that look alike have in common, "" only for "".

    They are alike in another case or form of letters, with and without quotes, brackets or a separator at an end; numbers
    with zeros before or after.
    """
    key = unicodedata.normalize("NFKC", label.casefold().translate(_LOOKS)).casefold()
    key = "".join(letter for letter in key if unicodedata.category(letter) != "Cf" and not "\ufe00" <= letter <= "\ufe0f")
    key = on_one_line(key).strip("\"'[];, ")
    number = re.fullmatch(r"\+?(-?)0*(\d+?)(\.0+)?", key)
    return (number[1] + number[2] if number else key) or label


def spellings(gathered: dict[str, Gathered], names: Iterable[str]) -> dict[str, str]:
    """How to write each label of the labelled and the test rows, by what labels that look alike have in common.

    They are one: as the task file's `label_names` write it, else as most rows do. What stands for a missing value is
    written "". A label that is named stays as it is.
    """
    read = [plain_labels(gathered[role]) for role in ("rows", "test") if role in gathered]
    labels = pd.concat(read).value_counts().index
    found: dict[str, str] = {}
    for label in sorted(labels, key=lambda label: (label.endswith(".0"), not label.isprintable())):
        found.setdefault(alike(label), label)
    marks = {key for key in found if _MARKS.fullmatch(key)}
    words = set(found) - marks - _MISSING - {""}
    if not (words and all(any(map(str.isalnum, key)) for key in words)):
        marks = set()
    missing = dict.fromkeys(marks | _MISSING & set(found), "")
    return found | missing | {alike(name): name for name in names} | {name: name for name in names}


def spelled(label: str, spelling: dict[str, str]) -> str:
    """A plain label as it is to be written."""
    return spelling.get(label) or spelling.get(alike(label), label)


def label_spelling(gathered: Gathered, spelling: dict[str, str]) -> list[Problem]:
    """Labels that look like others, and those that stand for a missing value."""
    read = plain_labels(gathered)
    problems = []
    for label in sorted(set(read) - {""}):
        meant = spelled(label, spelling)
        if meant == label:
            continue
        rows = gathered.frame["row"][read == label]
        problems.append(gathered.table.problem("alike labels" if meant else "placeholder label", gathered.columns.output, rows,
                                               label=shown_text(label), meant=shown_text(meant)))
    return problems


def several(labels: Iterable[str]) -> list[str]:
    """Labels that are several in one cell: what stands between separators are labels too.

    Beside a separator that seldom is part of a label, these need not stand alone: it is enough that they are in other cells
    too, if that is so of most cells with that separator.
    """
    known, found = set(map(alike, labels)), []
    for mark, seldom in _UNITED.items():
        parts = {label: [alike(part.strip()) for part in label.split(mark) if part.strip()] for label in labels}
        parts = {label: each for label, each in parts.items() if len(each) > 1}
        used = Counter(part for each in parts.values() for part in set(each))
        again = [label for label, each in parts.items() if all(part in known or used[part] > 1 for part in each)]
        if not seldom or len(again) <= len(parts) / 2:
            again = [label for label, each in parts.items() if known.issuperset(each)]
        found += again
    return list(dict.fromkeys(found))


class Sieve:
    """The rows of one file on their way to being used; every row that is taken out leaves a reason.

    Parameters
    ----------
    gathered : Gathered
    frame : DataFrame
        From `cleaned`.
    """

    def __init__(self, gathered: Gathered, frame: pd.DataFrame):
        self.gathered, self.frame, self.unit = gathered, frame, gathered.table.unit
        self.dropped = dict(gathered.dropped)
        self.problems: list[Problem] = []

    @property
    def keys(self) -> pd.Series:
        """What makes two inputs the same: the text, or both of a pair, on one line, as every model reads them."""
        keys = self.frame["text"].map(on_one_line)
        return keys + "\0" + self.frame["text_pair"].map(on_one_line) if "text_pair" in self.frame else keys

    @property
    def classes(self) -> pd.DataFrame:
        """The frame, with a row for each label of a row that has several."""
        mark = self.gathered.columns.separator
        return self.frame.assign(output=self.frame["output"].map(lambda output: split_labels(output, mark))).explode("output")

    def warn(self, check: str, where: pd.Series | None, **values: Any) -> None:
        """Note a problem of some rows' texts."""
        rows = [] if where is None else self.frame["row"][where]
        self.problems.append(self.gathered.table.problem(check, "' and '".join(self.gathered.columns.text), rows, **values))

    def drop(self, out: pd.Series, reason: str) -> None:
        """Take rows out."""
        if out.any():
            self.dropped[reason] = [*self.dropped.get(reason, []), *self.frame["row"][out]]
            self.frame = self.frame[~out]

    def without_empty(self) -> None:
        """Take out rows with an empty text or output; `cells` has named them."""
        for role in self.gathered.columns.roles:
            label = role == "output" and self.gathered.columns.task_type == "classification"
            self.drop(self.frame[role].map(str.strip) == "", "without a label" if label else "with an empty text")

    def without_duplicates(self) -> None:
        """Take out all but the first of rows that are the same in every used column."""
        keys = self.keys + ("\0" + self.frame["output"].map(on_one_line) if "output" in self.frame else "")
        first = keys.map(self._rows(keys)).where(keys.duplicated())
        self.drop(self._warn_like("exact duplicate", first, self), "exact duplicates")

    def without_contradictions(self) -> None:
        """Take out rows whose text has more than one label."""
        keys = self.keys
        out = self.frame.groupby(keys)["output"].transform("nunique") > 1
        if out.any():
            both = self.frame[keys == keys[out].iloc[0]]
            shown = " and ".join(f"{shown_text(row.output)} ({self.unit} {row.row})" for row in both[:3].itertuples())
            self.warn("two labels", out, shown=shown)
        self.drop(out, "with a text that has two labels")

    def without_known(self, other: Sieve) -> None:
        """Take out rows whose text is one of another file; name those whose text nearly is."""
        role = other.gathered.role
        known = self.keys.map(self._rows(other.keys, other))
        self.drop(self._warn_like(f"also in {role}", known, other), f"also in {other.gathered.table.file}")
        self._warn_like(f"nearly in {role}", self._near(other), other)

    def check_near(self) -> None:
        """Rows whose text is nearly that of an earlier one; they are used."""
        self._warn_like("near duplicate", self._near(self), self)
        if len(self.frame) > NEAR_ROWS:
            self.warn("near duplicates not looked for", None, most=NEAR_ROWS)

    def check_length(self, pieces: int) -> None:
        """Texts of which the model reads only the start, by an estimate: no tokenizer is loaded for a check."""
        estimated = sum(self.frame[name].map(_pieces).astype(float) for name in ("text", "text_pair") if name in self.frame)
        long = estimated > pieces
        if long.any():
            self.warn("long text", long, number=long.sum(), of=len(long), pieces=pieces, characters=CHARACTERS_A_PIECE,
                      longest=math.ceil(estimated.max()))

    def _rows(self, keys: pd.Series, of: Sieve | None = None) -> dict[str, int]:
        """The first row that has each key."""
        return dict(zip(keys[::-1], (of or self).frame["row"][::-1], strict=True))

    def _warn_like(self, check: str, found: pd.Series, other: Sieve) -> pd.Series:
        """Warn of rows that are like one of this file or another: `found` has its number, or none. Return which."""
        where = found.notna()
        if where.any():
            here, there = self.frame["row"][where].iloc[0], int(found[where].iloc[0])
            self.warn(check, where, other=other.gathered.table.file, place=f"{self.unit} {here}, {other.unit} {there}")
        return where

    def _near(self, other: Sieve) -> pd.Series:
        """The number of the row in the other's frame (of its own: before it) that each row nearly is, or none."""
        mine, held = ([text[:NEAR_CHARACTERS] for text in sieve.keys[:NEAR_ROWS]] for sieve in (self, other))
        places = first_near(mine, None if other is self else held) if mine and held else []
        rows = list(other.frame["row"])
        found = [rows[place] if place >= 0 else math.nan for place in places]
        return pd.Series(found, index=self.frame.index[: len(found)], dtype=float).reindex(self.frame.index)


def _pieces(text: str) -> float:
    """Word pieces of a text, estimated."""
    single = 0 if text.isascii() else len(PIECES.findall(text))
    return single + (len(text) - single) / CHARACTERS_A_PIECE


def labels(gold: Sieve, names: dict[str, str]) -> list[Problem]:
    """Check the classes of the labelled rows: how many there are, how often each, and if they are classes."""
    frame, columns = gold.classes, gold.gathered.columns
    counts = frame["output"].value_counts()
    if not len(counts):
        return []
    united = [] if columns.separator else several([label for label in counts.index if label not in names])
    found = [("several labels", united, {"shown": listed(map(shown_text, united))})] if united else []
    found += list(_no_classes(counts, names)) or [*_class_sizes(counts), *_class_names(counts, names)]
    return [gold.gathered.table.problem(check, columns.output, frame["row"][frame["output"].isin(list(having))], **values)
            for check, having, values in found]


# The name of a check, the labels of the rows that it is about, and what its sentences are filled in with.
Found = Iterator[tuple[str, Iterable[str], dict[str, Any]]]


def _numbers(counts: pd.Series) -> pd.Series:
    return pd.to_numeric(pd.Series(counts.index).str.rstrip("%").str.replace(",", "."), errors="coerce")


def _no_classes(counts: pd.Series, names: dict[str, str]) -> Found:
    """Scores and ids, of which nothing else is to be said."""
    numbers = _numbers(counts)
    if names:
        return
    if numbers.notna().all() and (numbers % 1 != 0).any():
        yield "label is a number", [], {"number": len(counts), "shown": listed(counts.index[:3])}
    elif counts.sum() >= IDS_FROM and len(counts) >= 0.9 * counts.sum():
        yield "label is an id", [], {"number": len(counts), "of": counts.sum()}


def _class_sizes(counts: pd.Series) -> Found:
    """Too few rows of a class, and too few or too many classes."""
    few = counts[counts < FEW]
    if len(counts) == 1:
        yield "one class", counts.index, {"shown": shown_text(counts.index[0])}
    elif len(few):
        yield "few rows", few.index, {
            "classes": f"{len(few):,} classes have" if len(few) > 1 else "one class has", "fewest": FEW,
            "shown": listed([f"{shown_text(label)} ({number})" for label, number in few.items()])}
    if len(counts) > MOST_CLASSES:
        yield "many classes", [], {"number": len(counts), "most": MOST_CLASSES}


def _class_names(counts: pd.Series, names: dict[str, str]) -> Found:
    """Labels without a name and names without a label; where none has a name, labels that need one."""
    unnamed = [label for label in counts.index if label not in names]
    unused = [name for name in names if name not in counts.index]
    unsure = [label for label in unnamed if not names and alike(label) in _MAYBE_MISSING]
    if names and unnamed:
        yield "label without a name", unnamed, {"shown": listed(map(shown_text, unnamed))}
    if unused:
        yield "name without a label", [], {"shown": listed(map(shown_text, unused))}
    if not names and _numbers(counts).notna().all():
        yield "labels are numbers", [], {"shown": listed(counts.index, most=12)}
    if unsure:
        yield "class or missing", unsure, {"shown": listed(map(shown_text, unsure))}


def unknown_labels(test: Sieve, gold: Sieve) -> list[Problem]:
    """Labels of the test file that no labelled row has."""
    there, tested = gold.classes["output"], test.classes
    unknown = tested[~tested["output"].isin(there)]
    if not len(unknown):
        return []
    return [test.gathered.table.problem(
        "unknown label" if len(unknown) < len(tested) else "unknown labels only", test.gathered.columns.output, unknown["row"],
        other=gold.gathered.table.file, shown=listed(map(shown_text, unknown["output"].unique())),
        known=listed(map(shown_text, there.unique())))]
