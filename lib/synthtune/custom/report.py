"""What was found in custom data: guesses that were made, rows that were counted, problems to act on."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

SENTENCES = yaml.safe_load(Path(__file__).with_name("problems.yaml").read_text("utf-8"))

# Row numbers that a sentence names before it says how many more there are.
SHOWN_ROWS = 5

# Characters of a cell that a sentence quotes.
SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Guess:
    """Something the task file leaves out, what was taken for it, and why."""

    file: str
    what: str
    value: str
    why: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}: {self.value} ({self.why})")


@dataclass(frozen=True)
class Problem:
    """One kind of problem in one column of one file.

    Attributes
    ----------
    severity : str
        "error": nothing can be trained before it is solved. "warning": it can, as `advice` says.
    name : str
        Short name of the check, the same in every version of its sentence.
    file, column : str
        `column` is empty where the whole row or file is meant.
    rows : tuple of int
        Every row concerned, as the user counts them: lines of a text file (the header is line 1), rows of a
        spreadsheet, rows of a table from 1. Empty where the whole file or column is meant.
    unit : str
        "line" or "row": what `rows` counts.
    what, advice : str
        What is wrong, and what to do or what is done about it.
    """

    severity: Literal["error", "warning"]
    name: str
    file: str
    column: str
    rows: tuple[int, ...]
    unit: str
    what: str
    advice: str

    def __str__(self) -> str:
        place = [self.file]
        if self.rows:
            place.append(numbered(self.unit, self.rows))
        if self.column:
            place.append(f"column '{self.column}'")
        return printable(f"{', '.join(place)}: {self.what}. {self.advice}".rstrip())


def problem(check: str, file: str, column: str = "", rows: Iterable[int] = (), unit: str = "row", **values: Any) -> Problem:
    """A problem with the sentences that `problems.yaml` has for a check; `values` fill them in."""
    said = SENTENCES[check]
    return Problem(said.get("severity", "warning"), said.get("name", check), file, column, tuple(map(int, rows)), unit,
                   said["what"].format(**values), said["advice"].format(**values))


@dataclass(frozen=True)
class Count:
    """Where the rows of a file went.

    Attributes
    ----------
    file, role : str
        `role` is "rows", "unlabelled" or "test".
    rows_in, used : int
        Blank lines are not rows.
    dropped : dict
        Number of rows by the reason they are not used; these and `used` add up to `rows_in`.
    """

    file: str
    role: str
    rows_in: int
    used: int
    dropped: dict[str, int]

    @property
    def reasons(self) -> str:
        return "; ".join(f"{number:,} {reason}" for reason, number in self.dropped.items())

    def __str__(self) -> str:
        out = f", {self.rows_in - self.used:,} dropped ({self.reasons})" if self.dropped else ""
        return printable(f"{self.role}: {self.file}: {self.rows_in:,} rows in, {self.used:,} used{out}")


@dataclass(frozen=True)
class Report:
    """Everything that reading a task's files found.

    Attributes
    ----------
    title : str
    guesses : list of Guess
    counts : list of Count
    labels : dict
        Gold rows of each label; empty for text-to-text generation.
    problems : list of Problem
    """

    title: str
    guesses: list[Guess] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """Problems that must be solved before anything is trained."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """Problems that training goes on with, in the way each one's advice says."""
        return [problem for problem in self.problems if problem.severity == "warning"]

    def __str__(self) -> str:
        lines = [printable(self.title)]
        if self.guesses:
            lines += ["", "Guessed, because the task file does not say:"]
            lines += [f"  {guess}" for guess in self.guesses]
        if self.counts:
            lines += ["", "Rows:", *(f"  {count}" for count in self.counts)]
        if self.labels:
            shown = [f"{shown_text(label)} {number:,}" for label, number in self.labels.items()]
            lines += ["", f"Labels ({len(shown)}): {listed(shown, most=12)}"]
        for name, problems in (("Errors", self.errors), ("Warnings", self.warnings)):
            if problems:
                lines += ["", f"{name} ({len(problems)}):", *(f"  {problem}" for problem in problems)]
        if not self.problems:
            lines += ["", "No problems found."]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The report in a notebook; whatever texts and labels hold is shown and not run as HTML."""
        rows = {
            ("file", "what", "value", "why"): map(astuple, self.guesses),
            ("file", "role", "rows_in", "used", "dropped"): (
                (count.file, count.role, count.rows_in, count.used, count.reasons) for count in self.counts),
            ("label", "rows"): self.labels.items(),
            ("", "problem"): ((problem.severity, str(problem)) for problem in self.errors + self.warnings),
        }
        tables = [pd.DataFrame(each, columns=list(header)).map(lambda cell: printable(cell) if isinstance(cell, str) else cell)
                  for header, each in rows.items()]
        with pd.option_context("display.max_colwidth", None):
            shown = [table.to_html(index=False, escape=True, justify="left") for table in tables if len(table)]
        # Viewers put cells on the right unless told otherwise; what cells hold is escaped, so this is no cell's text.
        return "\n".join(table.replace("<td>", '<td style="text-align: left">') for table in shown)


def numbered(unit: str, rows: Sequence[int]) -> str:
    """Row numbers in words: "lines 3, 4 and 12", or the first few and how many more."""
    return f"{unit}{'s' * (len(rows) > 1)} {listed(map(str, rows))}"


def listed(items: Iterable[str], most: int = SHOWN_ROWS) -> str:
    """Join words as in a sentence: the first few, and how many more there are."""
    words = list(items)
    if len(words) > most + 1:
        words = [*words[:most], f"{len(words) - most:,} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def printable(text: str) -> str:
    """A line with nothing in it that a terminal would act on, or that no file can hold: such letters as escapes."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shown_text(text: str) -> str:
    """Quote the start of a cell, with nothing in it that a terminal would act on."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return f"'{printable(cut)}'"
