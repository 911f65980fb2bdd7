"""What reading and checking a user's files gives, and its rows as examples of a task."""

import warnings
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from synthtune.custom.gather import Columns, Gathered
from synthtune.custom.report import Report, listed, problem, shown_text
from synthtune.custom.task_file import TaskFile
from synthtune.errors import RowsError
from synthtune.settings import Settings, seed_for
from synthtune.tasks import splits
from synthtune.tasks.example import Example, PromptTemplate, joined

# Labelled rows below which nothing can be trained and tested.
FEWEST = 8


@dataclass(frozen=True, repr=False)
class CustomData:
    """What a task file names, read, checked and clean.

    Attributes
    ----------
    task : TaskFile
    task_type : str
        "classification" or "generation"; "" if the labelled rows cannot be read.
    labels : tuple of str
        The classes, sorted, by the names the task file gives them; empty for text-to-text generation. Where rows have several
        labels, every set of labels that a row has.
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
    task_type: str
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


def template_of(own: CustomData) -> PromptTemplate:
    """How the task is written down for the teacher: from the names of its columns and the user's own sentence."""
    roles = own.columns.roles
    output = _name(roles["output"])
    instruction = own.task.description or (
        f"Give the {output.lower()} of the text." if own.task_type == "classification" else f"Write the {output.lower()}.")
    return PromptTemplate(instruction, "Texts" if "text_pair" in roles else _name(roles["text"]), output)


def pair_of(own: CustomData) -> tuple[str, ...]:
    """Names of the two texts of a pair; () for single texts."""
    roles = own.columns.roles
    if "text_pair" not in roles:
        return ()
    first, second = _name(roles["text"]), _name(roles["text_pair"])
    return (first, second) if first != second else (f"{first} 1", f"{second} 2")


def _name(column: str) -> str:
    """A column's name as a word for prompts: nothing in it that ends a line or a name."""
    words = " ".join(column.replace("_", " ").replace(":", " ").split())
    return words[:1].upper() + words[1:40] or "Text"


def inputs(rows: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Texts of rows, each on one line."""
    columns = ["text", "text_pair"] if names else ["text"]
    return [joined(names, texts) for texts in rows[columns].itertuples(index=False, name=None)]


def examples(rows: pd.DataFrame, names: tuple[str, ...], of: str) -> list[Example]:
    """Rows as examples: texts on one line, both texts of a pair named; the target is empty where there is none."""
    outputs = rows["output"] if "output" in rows else [""] * len(rows)
    return [Example(f"{of}-{row}", text, " ".join(output.split()))
            for row, text, output in zip(rows["row"], inputs(rows, names), outputs, strict=True)]


def held_out(own: CustomData, settings: Settings) -> list[set[int]]:
    """Places of the labelled rows that each fold holds out: labels in proportion, near-duplicates together.

    Returns
    -------
    list of set of int
        Empty where there is a test file.

    Raises
    ------
    RowsError
        There are too few labelled rows; or some fold would leave nothing, or one class only, to learn from.
    """
    if len(own.gold) < FEWEST:
        raise RowsError(str(problem("too few rows", own.task.rows, number=len(own.gold), fewest=FEWEST)))
    if len(own.test):
        return []
    gold = examples(own.gold, pair_of(own), "row")
    near, groups = splits.first_near([example.text for example in gold]), list(range(len(gold)))
    for place, first in enumerate(near):
        if first >= 0:
            groups[place] = groups[first]
    if len(set(groups)) == 1:
        raise RowsError(str(problem("all nearly the same", own.task.rows)))
    one_label = own.task_type == "classification" and not own.columns.separator  # sets of labels are too many to be balanced
    outputs = [example.target for example in gold] if one_label else [""] * len(gold)
    counts = Counter(outputs)
    if max(counts.values()) == 1:
        raise RowsError(str(problem("no class twice", own.task.rows)))
    number = max(2, min(settings.custom.folds, min(counts.values()), len(set(groups))))
    folds = StratifiedGroupKFold(number, shuffle=True, random_state=seed_for(settings, "folds"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # the check of labels has said so
        divided = [set(map(int, held)) for _, held in folds.split(outputs, outputs, groups)]
    for held in divided:
        learnt = {output for place, output in enumerate(outputs) if place not in held}
        if len(learnt) < min(2, len(counts)):
            alone = sorted(set(outputs) - learnt)
            shown = listed([f"{shown_text(label)} ({counts[label]})" for label in alone])
            classes = "class" if len(alone) == 1 else "classes"
            raise RowsError(str(problem("not learnt and tested", own.task.rows, classes=classes, shown=shown)))
    return [held for held in divided if held]
