"""The results of a run, read from its files for the figures, the table and the claims."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthtune import task_list
from synthtune.analysis import statistics
from synthtune.errors import StageError
from synthtune.files import read_json
from synthtune.task_list import SPECS, is_custom, is_own_corpus

GOLD, ANNOTATED, GENERATED, BOTH, FULL = "gold", "gold+annotated", "gold+generated", "gold+both", "full"
CONDITIONS = (GOLD, ANNOTATED, GENERATED, BOTH)
"""What a student may be trained on, besides the ceiling `full`, in the order of the figures and the table."""

HARD = "gold+annotated, hard labels"
"""Annotated examples with the teacher's label alone, where `students.synthetic_labels` is "soft"; only figure 6 shows it."""

FINE_TUNED = "fine-tuned teacher"

METRIC = {"classification": "accuracy", "nlg": "bleu"}
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
}
KIND_NAMES = {"classification": "classification", "nlg": "NLG"}

def title(task: str, settings: Any) -> str:
    """Name of a task as figures and table print it; the package's own corpora are named as such."""
    return task_list.title(task, settings.data_root)


def corpora_sentence(tasks: Iterable[str], settings: Any) -> str:
    """A sentence that says which of `tasks` are real corpora and which are the package's own; empty for no task."""
    tasks = list(tasks)
    real = [SPECS[task].title for task in tasks if not (is_custom(task) or is_own_corpus(task, settings.data_root))]
    custom = [title(task, settings) for task in tasks if is_custom(task)]
    own = [SPECS[task].title for task in tasks if is_own_corpus(task, settings.data_root)]
    sentences = []
    if real:
        sentences.append(f"Real corpora: {_listed(real)}.")
    if own:
        sentences.append(
            f"Written for this package, in the official file format only: {_listed(own)}; not "
            f"the published {_listed(own)} data."
        )
    if custom:
        sentences.append(f"Custom tasks: {_listed(custom)}.")
    return " ".join(sentences)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
        run_dir = Path(run_dir)
        students, teachers, synthetic = [], [], []
        for task in settings.tasks:
            path = run_dir / task / "results.parquet"
            if path.exists():
                students.append(_parquet(path))
            for folder in sorted((run_dir / task).glob("budget-*")):
                if (folder / "teacher.parquet").exists():
                    teachers.append(_parquet(folder / "teacher.parquet"))
                for route, name in (("annotated", "annotation.json"), ("generated", "generation.json")):
                    if (folder / name).exists():
                        record = read_json(folder / name)
                        synthetic.append(
                            {
                                "task": task,
                                "budget": int(record["budget"]),
                                "route": route,
                                "examples": int(record["kept"]),
                                "seconds": float(record["seconds"]),
                            }
                        )
        if not students:
            raise StageError(
                f"No task has results under {run_dir}: run the students' notebooks "
                f"({', '.join(settings.tasks)}) first."
            )
        minutes = run_dir / "minutes.csv"
        return cls(
            settings,
            pd.concat(students, ignore_index=True),
            pd.concat(teachers, ignore_index=True)
            if teachers
            else pd.DataFrame(
                columns=["task", "kind", "budget", "system", "model", *METRIC_NAMES, "per_example", "seconds"]
            ),
            pd.DataFrame(synthetic, columns=["task", "budget", "route", "examples", "seconds"]),
            pd.read_csv(minutes)
            if minutes.exists()
            else pd.DataFrame(columns=["notebook", "task", "budget", "minutes", "peak_rss_gib"]),
        )

    def tasks(self, kind: str | None = None) -> list[str]:
        """Tasks with student results, in the order of the settings; of one kind only, if it is given."""
        there = self.students if kind is None else self.students[self.students.kind == kind]
        return [task for task in self.settings.tasks if task in set(there.task)]

    def kind(self, task: str) -> str:
        """ "classification" or "nlg"."""
        return self.students.loc[self.students.task == task, "kind"].iloc[0]

    def title(self, task: str) -> str:
        """Name of the task in figures and tables."""
        return title(task, self.settings)

    def budgets(self, task: str) -> list[int]:
        """Budgets at which the task has students, ascending, without the ceiling."""
        rows = self.students[(self.students.task == task) & (self.students.condition != FULL)]
        return sorted(int(budget) for budget in rows.budget.unique())

    def amounts(self, task: str, budget: int, condition: str) -> list[int]:
        """Amounts of synthetic data that a condition was run with, ascending; [0] for gold and for the
        ceiling.
        """
        rows = self.students
        rows = rows[(rows.task == task) & (rows.budget == budget) & (rows.condition == condition)]
        return sorted(int(amount) for amount in rows.amount.unique())

    def headline_amount(self, task: str, budget: int, condition: str) -> int | None:
        """The largest amount of synthetic data, which represents the condition where only one amount is shown.

        None if the condition was not run.
        """
        return max(self.amounts(task, budget, condition), default=None)

    def added(self, tasks: Iterable[str]) -> str:
        """A sentence on the headline amounts of some tasks, from the smallest to the largest; empty if nothing was added."""
        found = []
        for condition, name in ((ANNOTATED, "annotated"), (GENERATED, "generated"), (BOTH, "of both kinds")):
            amounts = [self.headline_amount(task, budget, condition) for task in tasks for budget in self.budgets(task)]
            if amounts := [amount for amount in amounts if amount]:
                ends = dict.fromkeys([min(amounts), max(amounts)])
                found.append(f"{' to '.join(f'{amount:,}' for amount in ends)} {name}")
        return f"Synthetic examples added: {', '.join(found)}." if found else ""

    def rows(self, task: str, budget: int, condition: str, amount: int | None = None) -> pd.DataFrame:
        """Cells of one condition, one row per seed; at its headline amount unless another is given."""
        if amount is None:
            amount = self.headline_amount(task, budget, condition)
        rows = self.students
        return rows[
            (rows.task == task)
            & (rows.budget == budget)
            & (rows.condition == condition)
            & (rows.amount == amount)
        ].sort_values("seed")

    def ceiling(self, task: str) -> pd.DataFrame:
        """Cells of the ceiling, trained on all true labels, one row per seed."""
        rows = self.students
        return rows[(rows.task == task) & (rows.condition == FULL)].sort_values("seed")

    def teacher(self, task: str, budget: int, system: str = FINE_TUNED) -> pd.DataFrame:
        """The row of one system at one budget; no row if it was not run."""
        rows = self.teachers
        return rows[(rows.task == task) & (rows.budget == budget) & (rows.system == system)]

    def computed(self) -> pd.DataFrame:
        """What computed the rows: columns task, rows ("teachers" or "students"), number_format, device, n."""
        tables = [table.assign(rows=name) for name, table in (("teachers", self.teachers), ("students", self.students))
                  if "number_format" in table]
        if not tables:
            return pd.DataFrame(columns=["task", "rows", "number_format", "device", "n"])
        each = pd.concat([table[["task", "rows", "number_format", "device"]] for table in tables])
        each = each[each["number_format"] != ""]  # an endpoint's rows were computed elsewhere
        return each.value_counts(["task", "rows", "number_format", "device"], sort=False).rename("n").reset_index()

    def mixture(self) -> str:
        """A sentence if rows were computed in more than one number format or on more than one device; "" otherwise."""
        counts = self.computed().groupby(["number_format", "device"])["n"].sum()
        if len(counts) < 2:
            return ""
        each = [f"{number} in {format_} on {device}" for (format_, device), number in counts.items()]
        return f"Not all results were computed alike: {_listed(each)}."

    @cached_property
    def resampled(self) -> dict[str, dict[tuple, np.ndarray]]:
        """For each task, bootstrap scores of every student condition, all on the same resamples.

        Keys are (budget, condition, amount); values are as `statistics.resample` returns them.
        """
        scores = {}
        for task in self.tasks():
            cells: dict[tuple, dict[int, np.ndarray]] = {}
            for row in self.students[self.students.task == task].itertuples():
                record = statistics.examples_of(row.kind, row.per_example)
                cells.setdefault((int(row.budget), row.condition, int(row.amount)), {})[int(row.seed)] = (
                    record
                )
            scores[task] = self.resample(task, cells)
        return scores

    def resample(self, task: str, cells: statistics.Cells) -> dict[Any, np.ndarray]:
        """`statistics.resample` with the resamples, the seed and the stream of this run and task."""
        return statistics.resample(cells, self.settings.figures.resamples, self.settings.seed, task)

    def resampled_systems(self, task: str, budget: int, systems: Iterable[str]) -> dict[str, np.ndarray]:
        """Bootstrap scores of teachers and prompted models on the test examples that all of them answered.

        An endpoint may answer fewer examples than the teacher. Every system answers the first examples of the
        test set, so the common ones are the first ones too.
        """
        rows = {system: self.teacher(task, budget, system).iloc[0] for system in systems}
        records = {system: statistics.examples_of(row.kind, row.per_example) for system, row in rows.items()}
        common = min(map(len, records.values()))
        return self.resample(task, {system: {0: record[:common]} for system, record in records.items()})

    def resampled_cell(
        self, task: str, budget: int, condition: str, amount: int | None = None
    ) -> np.ndarray | None:
        """Bootstrap scores of one condition at an amount (by default its headline amount); None if it was
        not run.
        """
        if amount is None:
            amount = self.headline_amount(task, budget, condition)
        return self.resampled[task].get((budget, condition, amount))


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


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StageError(
            f"{path} cannot be read ({error}): delete it and run again to compute it anew."
        ) from error
