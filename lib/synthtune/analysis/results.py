"""The results of a run, read from its files for the figures, the table and the claims."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthtune import task_list
from synthtune.analysis import statistics
from synthtune.conditions import CONDITIONS, FULL
from synthtune.errors import StageError
from synthtune.files import atomic_path, read_costs, read_json
from synthtune.metrics import METRICS
from synthtune.task_list import SPECS, is_custom, is_own_corpus

FINE_TUNED = "fine-tuned teacher"

# Kinds of tasks, in the order of figures and claims.
TYPE_NAMES = {"classification": "classification", "generation": "NLG"}


def corpora_sentence(tasks: Iterable[str], settings: Any) -> str:
    """A sentence that says which of `tasks` are real corpora and which are the package's own; empty for no task."""
    tasks = list(tasks)
    real = [SPECS[task].title for task in tasks if not (is_custom(task) or is_own_corpus(task, settings.data_root))]
    custom = [task_list.title(task, settings.data_root) for task in tasks if is_custom(task)]
    own = [SPECS[task].title for task in tasks if is_own_corpus(task, settings.data_root)]
    said = {"Real corpora: {0}.": real,
            "Written for this package, in the official file format only: {0}; not the published {0} data.": own,
            "Custom tasks: {0}.": custom}
    return " ".join(sentence.format(_listed(names)) for sentence, names in said.items() if names)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def where(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Rows of a table whose columns have these values."""
    found = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        found &= (table[column] == value).to_numpy(bool)
    return table[found]


@dataclass(frozen=True)
class Results:
    """What the stages of a run wrote and the figures need.

    Attributes
    ----------
    settings : object
        The run's settings.
    students : DataFrame
        One row per student cell, as `results.parquet` has them.
    teachers : DataFrame
        One row per system and budget, as `teacher.parquet` has them; empty if there are none yet.
    synthetic : DataFrame
        One row per task, budget and route ("annotated" or "generated"): `examples` made, `seconds` they took.
    minutes : DataFrame
        One row per executed notebook: notebook, task, budget, minutes, peak_rss_gib; empty if there are none.
    """

    settings: Any
    students: pd.DataFrame
    teachers: pd.DataFrame
    synthetic: pd.DataFrame
    minutes: pd.DataFrame

    @classmethod
    def read(cls, run_dir: str | Path, settings: Any) -> Results:
        """Read the results of those tasks of the settings that have any.

        Raises
        ------
        StageError
            If no task has student results, or a results file cannot be read.
        """
        folders = [Path(run_dir) / task for task in settings.tasks]
        students = [_parquet(folder / "results.parquet") for folder in folders if (folder / "results.parquet").exists()]
        if not students:
            raise StageError(f"No task has results under {run_dir}: run the students' notebooks ({', '.join(settings.tasks)}) first.")
        budgets = [budget for folder in folders for budget in sorted(folder.glob("budget-*"))]
        # Columns by name, for a run that has no such file yet.
        columns = ["task", "task_type", "budget", "system", "model", *METRICS, "per_example", "seconds", "number_format", "device",
                   "data_digest", "model_digest"]
        teachers = [_parquet(path) for budget in budgets for path in budget.glob("teacher.parquet")] or [pd.DataFrame(columns=columns)]
        synthetic = [
            {"task": path.parent.parent.name, "budget": int(record["budget"]), "route": route, "examples": int(record["kept"]),
             "seconds": float(record["seconds"])}
            for budget in budgets for route, name in (("annotated", "annotation.json"), ("generated", "generation.json"))
            for path in budget.glob(name) for record in [read_json(path)]]
        return cls(
            settings, pd.concat(students, ignore_index=True), pd.concat(teachers, ignore_index=True),
            pd.DataFrame(synthetic, columns=["task", "budget", "route", "examples", "seconds"]),
            pd.DataFrame(read_costs(Path(run_dir)), columns=["notebook", "task", "budget", "minutes", "peak_rss_gib"]))

    def tasks(self, task_type: str | None = None) -> list[str]:
        """Tasks with student results, in the order of the settings; of one type only, if it is given."""
        there = self.students if task_type is None else self.students[self.students.task_type == task_type]
        return [task for task in self.settings.tasks if task in set(there.task)]

    def task_type(self, task: str) -> str:
        """ "classification" or "generation"."""
        return self.students.loc[self.students.task == task, "task_type"].iloc[0]

    def title(self, task: str) -> str:
        """Name of the task in figures and tables; the package's own corpora are named as such."""
        return task_list.title(task, self.settings.data_root)

    def budgets(self, task: str) -> list[int]:
        """Budgets at which the task has students, ascending, without the ceiling."""
        rows = where(self.students, task=task)
        return sorted(int(budget) for budget in rows.budget[rows.condition != FULL].unique())

    @property
    def smallest_budget(self) -> str:
        """The smallest budget of each task, in words."""
        smallest = sorted({min(budgets) for budgets in map(self.budgets, self.tasks()) if budgets})
        return " or ".join(f"{budget:,}" for budget in smallest)

    def amounts(self, task: str, budget: int, condition: str) -> list[int]:
        """Amounts of synthetic data that a condition was run with, ascending; [0] for gold and for the ceiling."""
        rows = where(self.students, task=task, budget=budget, condition=condition)
        return sorted(int(amount) for amount in rows.amount.unique())

    def headline_amount(self, task: str, budget: int, condition: str) -> int | None:
        """The largest amount of synthetic data, which represents the condition where only one amount is shown.

        None if the condition was not run.
        """
        return max(self.amounts(task, budget, condition), default=None)

    def equal_amount(self, task: str, budget: int) -> int | None:
        """The largest amount that was run with every kind of synthetic data of a task; None if there is none."""
        amounts = [set(self.amounts(task, budget, name)) for name, condition in CONDITIONS.items() if condition.shares]
        common = set.intersection(*(there for there in amounts if there)) if any(amounts) else set()
        return max(common, default=None)

    def swept_budget(self, task: str, conditions: Iterable[str]) -> int | None:
        """The budget with most amounts of one of these conditions, the smallest of several; None if none was run."""
        most = {budget: max(len(self.amounts(task, budget, name)) for name in conditions) for budget in self.budgets(task)}
        budget = max(most, key=lambda budget: (most[budget], -budget), default=None)
        return budget if budget and most[budget] else None

    def rows(self, task: str, budget: int, condition: str, amount: int | None = None) -> pd.DataFrame:
        """Cells of one condition, one row per seed; at its headline amount unless another is given."""
        if amount is None:
            amount = self.headline_amount(task, budget, condition)
        return where(self.students, task=task, budget=budget, condition=condition, amount=amount).sort_values("seed")

    def compared(self, task: str, budget: int) -> list[pd.DataFrame]:
        """Cells of every condition that was run, at its headline amount."""
        return [rows for condition in CONDITIONS if len(rows := self.rows(task, budget, condition))]

    def ceiling(self, task: str) -> pd.DataFrame:
        """Cells of the ceiling, trained on all true labels, one row per seed."""
        return where(self.students, task=task, condition=FULL).sort_values("seed")

    def teacher(self, task: str, budget: int, system: str = FINE_TUNED) -> pd.DataFrame:
        """The row of one system at one budget; no row if it was not run."""
        return where(self.teachers, task=task, budget=budget, system=system)

    @cached_property
    def resampled(self) -> dict[str, dict[tuple, np.ndarray]]:
        """For each task, bootstrap scores of every student condition, all on the same resamples.

        Keys are (budget, condition, amount); values are as `statistics.resample` returns them.
        """
        scores = {}
        for task in self.tasks():
            cells: dict[tuple, dict[int, np.ndarray]] = {}
            for row in where(self.students, task=task).itertuples():
                cell = cells.setdefault((int(row.budget), row.condition, int(row.amount)), {})
                cell[int(row.seed)] = statistics.examples_of(row.task_type, row.per_example)
            scores[task] = self.resample(task, cells)
        return scores

    def resample(self, task: str, cells: statistics.Cells) -> dict[Any, np.ndarray]:
        """`statistics.resample` with the resamples, the seed and the stream of this run and task."""
        return statistics.resample(cells, self.settings.figures.resamples, self.settings.seed, task)

    def estimate(self, scores: np.ndarray, threshold: float = 0.0) -> statistics.Estimate:
        """`statistics.estimate` at the confidence of this run."""
        return statistics.estimate(scores, self.settings.figures.confidence, threshold)

    def resampled_systems(self, task: str, budget: int, systems: Iterable[str]) -> dict[str, np.ndarray]:
        """Bootstrap scores of teachers and prompted models on the test examples that all of them answered.

        An endpoint may answer fewer examples than the teacher. Every system answers the first examples of the
        test set, so the common ones are the first ones too.
        """
        rows = {system: self.teacher(task, budget, system).iloc[0] for system in systems}
        records = {system: statistics.examples_of(row.task_type, row.per_example) for system, row in rows.items()}
        common = min(map(len, records.values()))
        return self.resample(task, {system: {0: record[:common]} for system, record in records.items()})


def added(results: Results, tasks: Iterable[str]) -> str:
    """A sentence on the headline amounts of some tasks, from the smallest to the largest; empty if nothing was added."""
    found: dict[str, list[int]] = {}
    for task in tasks:
        for rows in (rows for budget in results.budgets(task) for rows in results.compared(task, budget)):
            if amount := int(rows.amount.iloc[0]):
                found.setdefault(rows.condition.iloc[0], []).append(amount)
    each = [f"{' to '.join(f'{amount:,}' for amount in dict.fromkeys([min(found[name]), max(found[name])]))} {condition.kinds}"
            for name, condition in CONDITIONS.items() if name in found]
    return f"Synthetic examples added: {', '.join(each)}." if each else ""


def computed(results: Results) -> pd.DataFrame:
    """What computed the rows: columns task, rows ("teachers" or "students"), number_format, device, n."""
    columns = ["task", "rows", "number_format", "device"]
    each = pd.concat([results.teachers.assign(rows="teachers"), results.students.assign(rows="students")])
    each = each[each["number_format"] != ""]  # an endpoint's rows were computed elsewhere
    return each.value_counts(columns, sort=False).rename("n").reset_index()


def mixture(results: Results) -> str:
    """A sentence if rows were computed in more than one number format or on more than one device; "" otherwise."""
    counts = computed(results).groupby(["number_format", "device"])["n"].sum()
    if len(counts) < 2:
        return ""
    each = [f"{number} in {format_} on {device}" for (format_, device), number in counts.items()]
    return f"Not all results were computed alike: {_listed(each)}."


def deployed(students: pd.DataFrame, teachers: pd.DataFrame) -> pd.DataFrame:
    """Size and speed of the fine-tuned teacher and of the students of a task.

    Returns
    -------
    DataFrame
        Columns system, model, million_parameters, seconds_for_1000_texts (the median of all budgets or cells).
    """
    rows = []
    tuned = teachers[teachers["system"] == FINE_TUNED] if len(teachers) else teachers
    for name, table in (("teacher", tuned), ("student", students)):
        if len(table) and "parameters" in table:
            seconds = table["answer_seconds"] if "answer_seconds" in table else 1000 * table["seconds"] / table["per_example"].map(len)
            rows.append({"system": name, "model": table["model"].iloc[0], "million_parameters": table["parameters"].median() / 1e6,
                         "seconds_for_1000_texts": seconds.median()})
    return pd.DataFrame(rows)


def write_texts(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write a text file by each name, whole or not at all, and return their paths."""
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    return [folder / name for name in texts]


def lowered(path: Path) -> str:
    """A Markdown file with its headings one level lower."""
    return re.sub("^(#+ )", r"#\1", path.read_text("utf-8"), flags=re.MULTILINE)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StageError(f"{path} cannot be read ({error}): delete it and run again to compute it anew.") from error
