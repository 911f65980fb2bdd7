"""What reading and checking a user's files gives."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from synthtune.own_rows.gather import Columns, Gathered
from synthtune.own_rows.report import Report
from synthtune.own_rows.task_file import TaskFile


@dataclass(frozen=True, repr=False)
class OwnRows:
    """What a task file names, read, checked and clean.

    Attributes
    ----------
    task : TaskFile
    kind : str
        "classification" or "nlg"; "" if the labelled rows cannot be read.
    labels : tuple of str
        The classes, sorted, by the names the task file gives them; empty for text-to-text generation.
    gold, unlabelled, test : DataFrame
        Columns text, text_pair (of pairs only), output (not of unlabelled rows) and row, the row's number in
        its file. No text is in two of them. Empty where the task file names no such file.
    report : Report
        What was guessed, counted and found. Train only if it has no `errors`.
    columns : Columns or None
        Which columns of the labelled file were read.
    gathered : dict
        What was read of each file before rows were dropped, by role; `repairs` starts from it.
    """

    task: TaskFile
    kind: str
    labels: tuple[str, ...]
    gold: pd.DataFrame
    unlabelled: pd.DataFrame
    test: pd.DataFrame
    report: Report
    columns: Columns | None
    gathered: dict[str, Gathered]

    def __repr__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()
