"""Table 1: every task and condition at the smallest budget, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from synthtune.analysis import statistics
from synthtune.analysis.results import (
    CONDITIONS,
    FINE_TUNED,
    FULL,
    METRIC_NAMES,
    Results,
    corpora_sentence,
    deployed,
)
from synthtune.files import atomic_path

TEACHER = "teacher"
COLUMNS = (*CONDITIONS, TEACHER, FULL)
_METRICS = {"classification": ("accuracy", "macro_f1"), "nlg": ("bleu", "chrf", "rouge_l")}


def table_1(results: Results) -> pd.DataFrame:
    """Mean and t interval over seeds of every metric, at each task's smallest budget.

    Returns
    -------
    DataFrame
        Columns task, title, metric, labelled, synthetic (the number added in the conditions that add any),
        and for each of gold, gold+annotated, gold+generated, gold+both, teacher, full: `<name>` (mean,
        percent), `<name> ±` (half the interval; NaN for one seed, and for the teacher, which is trained
        once), `<name> seeds`; and `best`, the condition with the highest mean of the four.
    """
    lines = []
    for task in results.tasks():
        budget = min(results.budgets(task), default=None)
        if budget is None:
            continue
        cells = {condition: results.rows(task, budget, condition) for condition in CONDITIONS}
        cells |= {TEACHER: results.teacher(task, budget), FULL: results.ceiling(task)}
        added = [int(rows.amount.iloc[0]) for rows in cells.values() if "amount" in rows and len(rows)]
        for metric in _METRICS[results.kind(task)]:
            line: dict[str, Any] = {
                "task": task,
                "title": results.title(task),
                "metric": METRIC_NAMES[metric],
                "labelled": budget,
                "synthetic": max(added),
            }
            for name in COLUMNS:
                rows = cells[name]
                mean, low = math.nan, math.nan
                if len(rows):
                    mean, low, _ = statistics.mean_interval(rows[metric], results.settings.figures.confidence)
                line |= {name: mean, f"{name} ±": mean - low, f"{name} seeds": len(rows)}
            means = {name: line[name] for name in CONDITIONS if not math.isnan(line[name])}
            lines.append(line | {"best": max(means, key=means.get)})
    return pd.DataFrame(lines)


def notes(results: Results) -> str:
    """The notes below the table: budget, interval, which corpora are real."""
    tasks = results.tasks()
    budgets = sorted({min(results.budgets(task)) for task in tasks if results.budgets(task)})
    return (
        f"At {' or '.join(f'{budget:,}' for budget in budgets)} labelled examples. Percent; mean over "
        f"seeds ± half the {100 * results.settings.figures.confidence:g} % t interval over seeds (no ± "
        "where there is one seed). Bold: highest mean of the four conditions, whether or not the "
        f"difference is more than chance (the claims say that). The teacher is the large model "
        f"itself{_fewer(results)}; full is a student trained on all true labels "
        "of the pool. "
        + " ".join(filter(None, [results.added(tasks), corpora_sentence(tasks, results.settings), results.mixture(), _sizes(results)]))
    )


def _sizes(results: Results) -> str:
    """A sentence on the size and speed of student and teacher (medians over tasks); "" if they were not measured."""
    each = pd.concat([deployed(results.students[results.students.task == task], results.teachers[results.teachers.task == task])
                      for task in results.tasks()])
    if not len(each) or set(each["system"]) != {"teacher", "student"}:
        return ""
    of = each.groupby("system")[["million_parameters", "seconds_for_1000_texts"]].median().round(1)
    return "The student has {:,.0f} million parameters and takes {:g} s for 1,000 texts, the teacher {:,.0f} million and {:g} s.".format(
        *of.loc["student"], *of.loc["teacher"])


def _fewer(results: Results) -> str:
    """Say so if the teacher answered fewer test examples than the students did."""
    for task in results.tasks():
        teacher = results.teachers[(results.teachers.task == task) & (results.teachers.system == FINE_TUNED)]
        students = results.students[results.students.task == task]
        if len(teacher) and len(teacher.per_example.iloc[0]) < len(students.per_example.iloc[0]):
            return " (on a part of the test set: see figure 4)"
    return ""


def _number(line: pd.Series, name: str, plus_minus: str) -> str:
    if math.isnan(line[name]):
        return "–"
    half = line[f"{name} ±"]
    return f"{line[name]:.1f}" + ("" if math.isnan(half) else f"{plus_minus}{half:.1f}")


def markdown(shown: pd.DataFrame) -> str:
    """The table as GitHub shows it."""
    lines = ["| Task | Metric | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
    for _, line in shown.iterrows():
        cells = [_number(line, name, " ± ") for name in COLUMNS]
        cells = [f"**{cell}**" if name == line.best else cell for name, cell in zip(COLUMNS, cells)]
        lines.append("| " + " | ".join([line.title, line.metric, *cells]) + " |")
    return "\n".join(lines) + "\n"


def latex(shown: pd.DataFrame) -> str:
    r"""The table as a LaTeX tabular with booktabs rules, ready for \input."""
    head = " & ".join(["Task", "Metric", *COLUMNS])
    lines = [r"\begin{tabular}{ll" + "r" * len(CONDITIONS) + "|rr}", r"\toprule", head + r" \\", r"\midrule"]
    previous = None
    for _, line in shown.iterrows():
        if previous not in (None, line.task):
            lines.append(r"\addlinespace")
        cells = [_number(line, name, r" $\pm$ ").replace("–", "--") for name in COLUMNS]
        cells = [rf"\textbf{{{cell}}}" if name == line.best else cell for name, cell in zip(COLUMNS, cells)]
        lines.append(" & ".join([line.title if line.task != previous else "", line.metric, *cells]) + r" \\")
        previous = line.task
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write(run_dir: str | Path, settings: Any) -> list[Path]:
    """Write table_1.csv, table_1.md and table_1.tex into `run_dir`/figures and return their paths."""
    results = Results.read(run_dir, settings)
    shown = table_1(results)
    written = []
    for suffix, text in (
        ("csv", shown.to_csv(index=False, float_format="%.6g")),
        ("md", markdown(shown) + "\n" + notes(results) + "\n"),
        ("tex", "% " + notes(results) + "\n" + latex(shown)),
    ):
        path = Path(run_dir) / "figures" / f"table_1.{suffix}"
        with atomic_path(path) as temporary:
            temporary.write_text(text, "utf-8")
        written.append(path)
    return written
