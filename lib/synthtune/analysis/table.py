"""Table 1: every task and condition at the smallest budget, as CSV, Markdown and LaTeX."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from synthtune.analysis import statistics
from synthtune.analysis.report import rendered
from synthtune.analysis.results import FINE_TUNED, Results, added, corpora_sentence, deployed, mixture, where, write_texts
from synthtune.conditions import CONDITIONS, FULL, TEACHER
from synthtune.metrics import metrics_of


def columns(shown: pd.DataFrame) -> list[str]:
    """The conditions and references of the table."""
    return [name.removesuffix(" seeds") for name in shown if name.endswith(" seeds")]


def table_1(results: Results) -> pd.DataFrame:
    """Mean and t interval over seeds of every metric, at each task's smallest budget.

    Returns
    -------
    DataFrame
        Columns task, title, metric, labelled, synthetic (the number added in the conditions that add any),
        and for each condition that was run, teacher and full: `<name>` (mean,
        percent), `<name> ±` (half the interval; NaN for one seed, and for the teacher, which is trained
        once), `<name> seeds`; and `best`, the condition with the highest mean.
    """
    lines, there = [], [name for name in CONDITIONS if name in set(results.students["condition"])]
    for task in results.tasks():
        budget = min(results.budgets(task), default=None)
        if budget is None:
            continue
        cells = {condition: results.rows(task, budget, condition) for condition in there}
        cells |= {TEACHER: results.teacher(task, budget), FULL: results.ceiling(task)}
        synthetic = max(int(rows.amount.iloc[0]) for rows in cells.values() if "amount" in rows and len(rows))
        for name, metric in metrics_of(results.task_type(task)).items():
            line: dict[str, Any] = {"task": task, "title": results.title(task), "metric": metric.title, "labelled": budget,
                                    "synthetic": synthetic}
            for column, rows in cells.items():
                mean, low = math.nan, math.nan
                if len(rows):
                    mean, low, _ = statistics.mean_interval(rows[name], results.settings.figures.confidence)
                line |= {column: mean, f"{column} ±": mean - low, f"{column} seeds": len(rows)}
            means = {condition: line[condition] for condition in there if not math.isnan(line[condition])}
            lines.append(line | {"best": max(means, key=means.get)})
    return pd.DataFrame(lines)


def notes(results: Results) -> str:
    """The notes below the table: budget, interval, which corpora are real."""
    tasks = results.tasks()
    confidence = f"{100 * results.settings.figures.confidence:g} %"
    sentences = (added(results, tasks), corpora_sentence(tasks, results.settings), mixture(results), _sizes(results))
    return (
        f"At {results.smallest_budget} labelled examples. Percent; mean over seeds ± half the {confidence} "
        "t interval over seeds (no ± where there is one seed). Bold: highest mean of the four conditions, whether or not the "
        "difference is more than chance (the claims say that). The teacher is the large model "
        f"itself{_fewer(results)}; full is a student trained on all true labels of the pool. " + " ".join(filter(None, sentences)))


def _sizes(results: Results) -> str:
    """A sentence on the size and speed of student and teacher (medians over tasks); "" if they were not measured."""
    each = pd.concat([deployed(where(results.students, task=task), where(results.teachers, task=task)) for task in results.tasks()])
    if not len(each) or set(each["system"]) != {"teacher", "student"}:
        return ""
    of = each.groupby("system")[["million_parameters", "seconds_for_1000_texts"]].median().round(1)
    return "The student has {:,.0f} million parameters and takes {:g} s for 1,000 texts, the teacher {:,.0f} million and {:g} s.".format(
        *of.loc["student"], *of.loc["teacher"])


def _fewer(results: Results) -> str:
    """Say so if the teacher answered fewer test examples than the students did."""
    for task in results.tasks():
        teacher = where(results.teachers, task=task, system=FINE_TUNED)
        students = where(results.students, task=task)
        if len(teacher) and len(teacher.per_example.iloc[0]) < len(students.per_example.iloc[0]):
            return " (on a part of the test set: see figure 4)"
    return ""


def _number(line: pd.Series, name: str, plus_minus: str) -> str:
    if math.isnan(line[name]):
        return "–"
    half = line[f"{name} ±"]
    return f"{line[name]:.1f}" + ("" if math.isnan(half) else f"{plus_minus}{half:.1f}")


def _lines(shown: pd.DataFrame, bold: str, plus_minus: str) -> list[tuple[str, str, list[str]]]:
    """Task, metric and numbers of each line, the best number in bold."""
    lines = []
    for _, line in shown.iterrows():
        cells = {name: _number(line, name, plus_minus) for name in columns(shown)}
        cells[line.best] = bold.format(cells[line.best])
        lines.append((line.title, line.metric, list(cells.values())))
    return lines


def markdown(shown: pd.DataFrame) -> str:
    """The table as GitHub shows it."""
    return rendered("table_1.md.jinja", names=columns(shown), lines=_lines(shown, "**{}**", " ± "))


def latex(shown: pd.DataFrame) -> str:
    r"""The table as a LaTeX tabular with booktabs rules, ready for \input."""
    return rendered("table_1.tex.jinja", names=columns(shown), lines=_lines(shown, r"\textbf{{{}}}", r" $\pm$ "))


def write(run_dir: str | Path, settings: Any) -> list[Path]:
    """Write table_1.csv, table_1.md and table_1.tex into `run_dir`/figures and return their paths."""
    results = Results.read(run_dir, settings)
    shown = table_1(results)
    return write_texts(Path(run_dir) / "figures", {
        "table_1.csv": shown.to_csv(index=False, float_format="%.6g"),
        "table_1.md": markdown(shown) + "\n" + notes(results) + "\n",
        "table_1.tex": "% " + notes(results) + "\n" + latex(shown)})
