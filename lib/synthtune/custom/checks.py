"""What can be wrong with labelled rows, looked for all at once before anything is trained.

Cells are checked as they are in the file, by tables of rules (a schema library would report each of them once more, in its own
words); rows are then cleaned in the ways that change no meaning, and checked against each other.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from synthtune.analysis.metrics import split_labels
from synthtune.custom.gather import Gathered
from synthtune.custom.readers import DECODED
from synthtune.custom.report import Problem, listed, shown_text
from synthtune.custom.task_file import MOST_CLASSES, on_one_line, plain
from synthtune.tasks.splits import first_near

FEW = 4
"""Rows a class should have at least: fewer cannot be split into some to learn from and some to test."""

NEAR_ROWS = 10_000
NEAR_CHARACTERS = 500
"""Rows of a file, and characters of a text, up to which near-duplicates are looked for."""

CHARACTERS_A_PIECE = 4.4
"""Characters of English text that make a word piece, roughly: tells texts longer than the model reads."""

PIECES = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Characters that are a word piece each: Chinese, Japanese and Korean."""

IDS_FROM = 10
"""Labelled rows from which a label column with hardly a value twice is taken for an id."""

STRAY = re.compile("[\0\ufeff]")
SPREADSHEET_START = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that starts with one of these for a formula."""

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
_MISSING = {
    "nan", "null", "<null>", "n/a", "n.a.", "#n/a", "<na>", "(blank)", "#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!",
    "undefined", "tbd", "todo", "unlabeled", "unlabelled", "not labeled", "not labelled", "no label",
}
_MAYBE_MISSING = {"none", "na", "nil"}
"""Words, in lower case, that stand for a missing value wherever they are; those that are also names of classes."""

_MARKS = re.compile(r"[-?._*/]+")
"""Labels of only such characters stand for a missing value where all other labels are words or numbers."""

_LOOKS = str.maketrans("‐‑‒–—−’‘ʼ`´“”„авекмнорстухіјѕ", "-" * 6 + "'" * 5 + '"' * 3 + "abekmhopctyxijs")
"""Dashes, quotes and small Cyrillic letters that look like others; what they look like."""

_UNITED = {";": True, "|": True, ",": True, "/": False, "&": False, "+": False, " ": False}
"""What stands between several labels of a cell, and whether it seldom is part of a label."""


@dataclass(frozen=True)
class Rule:
    """A check of single cells: what is wrong where `finds` says so, and what is done about it."""

    name: str
    what: str
    advice: str
    finds: Callable[[str], Any]


_RIGHT_COLUMN = "It is read as the text it is; check that this is the right column."
_ESCAPED = "It is escaped with a ' in front wherever it is written as CSV."

TEXT_RULES = [
    Rule("empty text", "an empty text", "These rows are left out; --fix removes them.", lambda cell: not _bare(cell)),
    Rule("number as text", "a number where a text should be", _RIGHT_COLUMN, lambda cell: is_number(cell)),
    Rule("date as text", "a date where a text should be", _RIGHT_COLUMN, lambda cell: _DATE.fullmatch(cell.strip())),
    Rule("placeholder", "a word that stands for a missing value in many files",
         "It is read as a text; remove the row if it is none.", lambda cell: cell.strip().lower() in _MISSING | _MAYBE_MISSING),
    Rule("spreadsheet formula", "a text that a spreadsheet would run as a formula", _ESCAPED,
         lambda cell: cell.startswith(SPREADSHEET_START)),
    Rule("HTML", "HTML tags or entities",
         "They are read as they are, and escaped in reports; remove them if they are not part of what the model should read.",
         _TAG.search),
]
LABEL_RULES = [
    Rule("empty label", "no label",
         "These rows are left out; --fix removes them. Put them into the unlabelled file if they should be used.",
         lambda cell: not plain(cell)),
    Rule("spaces in label", "a label with spaces around it, or with other space between its words than one blank",
         "It is read with none around it and one blank between words; --fix writes it so.",
         lambda cell: cell.strip() and cell != on_one_line(cell)),
    Rule("unseen in label",
         "a label with characters that are not seen, HTML entities, letters made of parts, or the quotes and brackets of a list",
         "It is read without them, in whole letters; --fix writes it so.",
         lambda cell: plain(cell) != on_one_line(STRAY.sub("", cell))),
    Rule("formula as label", "a label that a spreadsheet would run as a formula", _ESCAPED, lambda cell: runs(cell)),
    Rule("date as label", "a date or a time where a label should be",
         "A spreadsheet makes dates of labels such as 1-2 and MAR1: write what was meant, in a column of the format Text.",
         lambda cell: _DATE.fullmatch(cell.strip())),
]
CELL_RULES = [
    Rule("NUL byte", "NUL bytes or byte-order marks inside", "They are removed; --fix removes them in the file.", STRAY.search),
    Rule("damaged letters", "letters that could not be decoded (\ufffd)", "Correct them, or name the file's 'encoding'.",
         lambda cell: "\ufffd" in cell),
]
JSON_RULE = Rule("JSON", "a list or an object as JSON or Python writes it",
                 "It is read as the text it is; write the one text or label that is meant.",
                 lambda cell: _JSON.fullmatch(plain(cell)))


def is_number(cell: str) -> bool:
    """Say whether a cell holds a number and nothing else."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def runs(cell: str) -> bool:
    """Say whether a spreadsheet would run a cell as a formula; a sign alone and numbers it would not."""
    return cell.startswith(SPREADSHEET_START) and len(cell) > 1 and not is_number(cell)


def _bare(cell: str) -> str:
    return on_one_line(STRAY.sub("", cell))


def cells(gathered: Gathered) -> list[Problem]:
    """Check every cell of a file as it is there."""
    frame, table = gathered.frame, gathered.table
    labels = gathered.columns.kind == "classification"
    problems = []
    for role, column in gathered.columns.roles.items():
        rules = LABEL_RULES if labels and role == "output" else TEXT_RULES
        for rule in [*rules, *CELL_RULES, *([JSON_RULE] if labels else [])]:  # texts to be written may well be made from JSON
            found = frame[role].map(rule.finds).astype(bool)
            if found.any():
                example = frame[role][found].iloc[0]
                what = rule.what + (f", {shown_text(example)}" if example.strip() else "")
                problems.append(table.problem(rule.name, column, frame["row"][found], what, rule.advice))
    for column in gathered.columns.roles.values():
        computed = _noted(frame, f"formula:{table.columns.index(column)}")
        if computed.any():
            problems.append(table.problem("formula", column, frame["row"][computed], "a formula",
                                          "It is not run: the value that the spreadsheet last computed is read."))
    decoded = _noted(frame, DECODED)
    if decoded.any():
        what = f"not UTF-8, unlike the rest of the file ({shown_text(frame['text'][decoded].iloc[0])})"
        problems.append(table.problem("mixed encodings", "", frame["row"][decoded], what,
                                      "It is read as Windows-1252; check its letters. --fix writes all rows as UTF-8."))
    for reason, number in gathered.dropped.items():
        rows = gathered.named.get(reason, [])
        what, advice = (f"a row {reason}", "Left out; correct the row if it matters.") if rows else (
            f"{number:,} rows {reason}", "Left out, by chance and not by content.")
        problems.append(table.problem("row left out", "", rows, what, advice, more=number - len(rows) if rows else 0))
    return [*problems, *table.warnings]


def _noted(frame: pd.DataFrame, note: str) -> pd.Series:
    """Which rows have a note."""
    return frame["notes"].map(lambda notes: note in notes).astype(bool)


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
    frame = gathered.frame.drop(columns="notes").copy()
    for role in gathered.columns.roles:
        if role == "output" and gathered.columns.kind == "classification":
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
        name, what, advice = (
            ("alike labels", f"the label {shown_text(label)} looks like {shown_text(meant)}",
             "It is read as that; --fix writes it so. If both are classes, name all classes in label_names.")
            if meant
            else ("placeholder label", f"the label {shown_text(label)} stands for a missing value in many files",
                  "These rows are left out; --fix removes them. If it is a class, name all classes in label_names.")
        )
        rows = gathered.frame["row"][read == label]
        problems.append(gathered.table.problem(name, gathered.columns.output, rows, what, advice))
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
        self.named = dict(gathered.named)
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

    def warn(self, name: str, where: pd.Series | None, what: str, advice: str) -> None:
        """Note a problem of some rows' texts."""
        rows = [] if where is None else self.frame["row"][where]
        self.problems.append(self.gathered.table.problem(name, "' and '".join(self.gathered.columns.text), rows, what, advice))

    def drop(self, out: pd.Series, reason: str) -> None:
        """Take rows out."""
        if out.any():
            rows = list(map(int, self.frame["row"][out]))
            self.dropped[reason] = self.dropped.get(reason, 0) + len(rows)
            self.named[reason] = [*self.named.get(reason, []), *rows]
            self.frame = self.frame[~out]

    def without_empty(self) -> None:
        """Take out rows with an empty text or output; `cells` has named them."""
        for role in self.gathered.columns.roles:
            label = role == "output" and self.gathered.columns.kind == "classification"
            self.drop(self.frame[role].map(str.strip) == "", "without a label" if label else "with an empty text")

    def without_duplicates(self) -> None:
        """Take out all but the first of rows that are the same in every used column."""
        keys = self.keys + ("\0" + self.frame["output"].map(on_one_line) if "output" in self.frame else "")
        first = keys.map(self._rows(keys)).where(keys.duplicated())
        self.drop(self._warn_like("exact duplicate", first, self, "the same as an earlier row",
                                  "Only the first is used; --fix removes the others."), "exact duplicates")

    def without_contradictions(self) -> None:
        """Take out rows whose text has more than one label."""
        keys = self.keys
        out = self.frame.groupby(keys)["output"].transform("nunique") > 1
        if out.any():
            both = self.frame[keys == keys[out].iloc[0]]
            shown = " and ".join(f"{shown_text(row.output)} ({self.unit} {row.row})" for row in both[:3].itertuples())
            self.warn("two labels", out, f"a text that has two labels, {shown}",
                      "None of these rows is used; decide which label is right and remove the others.")
        self.drop(out, "with a text that has two labels")

    def without_known(self, other: Sieve, advice: str) -> None:
        """Take out rows whose text is one of another file; name those whose text nearly is."""
        role, file = other.gathered.role, other.gathered.table.file
        known = self.keys.map(self._rows(other.keys, other))
        self.drop(self._warn_like(f"also in {role}", known, other, f"a text that is also in {file}", advice), f"also in {file}")
        self._warn_like(f"nearly in {role}", self._near(other), other, f"nearly the same text as one in {file}",
                        "They are used; if they are copies, remove them from one of the files.")

    def check_near(self) -> None:
        """Rows whose text is nearly that of an earlier one; they are used."""
        self._warn_like("near duplicate", self._near(self), self, "nearly the same text as an earlier row",
                        "They are used; they teach little more than one of them.")
        if len(self.frame) > NEAR_ROWS:
            self.warn("near duplicates not looked for", None,
                      f"near-duplicates were looked for among the first {NEAR_ROWS:,} rows only",
                      "Exact duplicates were looked for among all.")

    def check_length(self, pieces: int) -> None:
        """Texts of which the model reads only the start, by an estimate: no tokenizer is loaded for a check."""
        estimated = sum(self.frame[name].map(_pieces).astype(float) for name in ("text", "text_pair") if name in self.frame)
        long = estimated > pieces
        if long.any():
            self.warn(
                "long text", long,
                f"{long.sum():,} of {len(long):,} texts are longer than the {pieces} word pieces that are read of each at "
                f"most (estimated: one for {CHARACTERS_A_PIECE:g} characters, or for a Chinese, Japanese or Korean one; the "
                f"longest has about {math.ceil(estimated.max()):,})",
                "What is beyond is not read; raise custom.max_tokens (--set custom.max_tokens=256), or shorten the texts. "
                "Training counts them exactly, for the length that it reads: less where most labelled texts are short.")

    def _rows(self, keys: pd.Series, of: Sieve | None = None) -> dict[str, int]:
        """The first row that has each key."""
        return dict(zip(keys[::-1], (of or self).frame["row"][::-1], strict=True))

    def _warn_like(self, name: str, found: pd.Series, other: Sieve, what: str, advice: str) -> pd.Series:
        """Warn of rows that are like one of this file or another: `found` has its number, or none. Return which."""
        where = found.notna()
        if where.any():
            here, there = self.frame["row"][where].iloc[0], int(found[where].iloc[0])
            place = f"{self.unit} {here}, {other.unit} {there}{'' if other is self else ' there'}"
            self.warn(name, where, f"{what} ({place})", advice)
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


Found = tuple[Literal["error", "warning"], str, Iterable[str], str, str]
"""Severity and name of a problem of classes, the labels that have it, what is wrong, what to do."""


def labels(gold: Sieve, names: dict[str, str]) -> list[Problem]:
    """Check the classes of the labelled rows: how many there are, how often each, and if they are classes."""
    frame, columns = gold.classes, gold.gathered.columns
    counts = frame["output"].value_counts()
    if not len(counts):
        return []
    found = [] if columns.separator else list(_united([label for label in counts.index if label not in names]))
    found += list(_no_classes(counts, names)) or [*_class_sizes(counts), *_class_names(counts, names)]
    rows = frame["row"]
    return [gold.gathered.table.problem(name, columns.output, rows[frame["output"].isin(list(having))], what, advice, severity)
            for severity, name, having, what, advice in found]


def _united(labels: list[str]) -> Iterator[Found]:
    if united := several(labels):
        yield ("warning", "several labels", united, f"several labels in one cell, {listed(map(shown_text, united))}",
               "They are read as one class: say 'label_separator:' in the task file if a row may have several, or keep one.")


def _numbers(counts: pd.Series) -> pd.Series:
    return pd.to_numeric(pd.Series(counts.index).str.rstrip("%").str.replace(",", "."), errors="coerce")


def _no_classes(counts: pd.Series, names: dict[str, str]) -> Iterator[Found]:
    """Scores and ids, of which nothing else is to be said."""
    numbers = _numbers(counts)
    if names:
        return
    if numbers.notna().all() and (numbers % 1 != 0).any():
        yield ("error", "label is a number", [],
               f"the labels are {len(counts):,} different numbers, {listed(counts.index[:3])} among them: a score, not a class",
               "Name another column with 'label:', or put the scores into a few classes such as low and high.")
    elif counts.sum() >= IDS_FROM and len(counts) >= 0.9 * counts.sum():
        yield ("error", "label is an id", [],
               f"{len(counts):,} different labels in {counts.sum():,} rows: an id, a date or a text, not a class",
               "Name another column with 'label:', or with 'target:' if these are texts to be written.")


def _class_sizes(counts: pd.Series) -> Iterator[Found]:
    """Too few rows of a class, and too few or too many classes."""
    few = counts[counts < FEW]
    if len(counts) == 1:
        yield ("error", "one class", counts.index, f"the only label is {shown_text(counts.index[0])}",
               "Add rows of at least one other class.")
    elif len(few):
        shown = listed([f"{shown_text(label)} ({number})" for label, number in few.items()])
        classes = f"{len(few):,} classes have" if len(few) > 1 else "one class has"
        yield ("warning", "few rows", few.index, f"{classes} fewer than {FEW} rows: {shown}",
               "Label more rows of each, or join the class to another; results for it will mean little.")
    if len(counts) > MOST_CLASSES:
        yield ("warning", "many classes", [], f"{len(counts):,} classes, more than the {MOST_CLASSES} this is made for",
               "Expect low accuracy, or join classes.")


def _class_names(counts: pd.Series, names: dict[str, str]) -> Iterator[Found]:
    """Labels without a name and names without a label; where none has a name, labels that need one."""
    if names:
        if unnamed := [label for label in counts.index if label not in names]:
            yield ("error", "label without a name", unnamed, f"label_names has no name for {listed(map(shown_text, unnamed))}",
                   "Add it to label_names in the task file.")
        if unused := [name for name in names if name not in counts.index]:
            yield ("warning", "name without a label", [],
                   f"no row has the label {listed(map(shown_text, unused))} that label_names names",
                   "Nothing can be learnt about it.")
        return
    if _numbers(counts).notna().all():
        yield ("warning", "labels are numbers", [], f"the labels are the numbers {listed(counts.index, most=12)}",
               "They are read as class names; say in words what they mean with 'label_names:', for the teacher reads the words. "
               + "If they are scores, put them into a few classes.")
    if unsure := [label for label in counts.index if alike(label) in _MAYBE_MISSING]:
        yield ("warning", "class or missing", unsure,
               f"the label {listed(map(shown_text, unsure))} stands for a missing value in many files",
               "It is read as a class: empty these cells if it is none; name all classes in label_names if it is one.")


def unknown_labels(test: Sieve, gold: Sieve) -> list[Problem]:
    """Labels of the test file that no labelled row has."""
    there, tested = gold.classes["output"], test.classes
    unknown = tested[~tested["output"].isin(there)]
    if not len(unknown):
        return []
    file, shown = gold.gathered.table.file, listed(map(shown_text, unknown["output"].unique()))
    severity, name, what, advice = (
        "warning", "unknown label", f"a label that no row of {file} has, {shown}",
        "No model can learn it: these rows will count as wrong. Add rows of that class, or correct it.")
    if len(unknown) == len(tested):
        known = listed(map(shown_text, there.unique()))
        severity, name, what, advice = (
            "error", "unknown labels only", f"no label of the test file is one of {file}: {shown} there, {known} here",
            "Write the labels of both files in the same way.")
    return [test.gathered.table.problem(name, test.gathered.columns.output, unknown["row"], what, advice, severity)]
