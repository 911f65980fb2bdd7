"""Figures 1 to 7, each as PDF, SVG and PNG at its print size, with the CSV of exactly what it shows.

Every figure has two halves: a function that takes the results and returns the table of what will be shown,
and one that draws such a table. `draw_all` runs them all and writes the files; the same results give the same
bytes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import LogLocator, MaxNLocator

from synthtune.analysis import statistics
from synthtune.analysis.results import FINE_TUNED, TYPE_NAMES, Results, added, corpora_sentence, where, write_texts
from synthtune.conditions import ANNOTATED, CONDITIONS, FULL, GENERATED, GOLD, HARD, REFERENCES, TEACHER, condition
from synthtune.files import atomic_path, read_yaml
from synthtune.metrics import METRICS, main_metric

# Width of every figure in inches: the text width of a two-column page. Fonts are 7 pt and more at that size.
WIDTH = 6.9

_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.4}
_SYSTEM_STYLES = [{"color": color, "marker": marker} for color, marker in (
    ("#D55E00", "o"), ("#56B4E9", "v"), ("#0072B2", "s"), ("#CC79A7", "D"), ("#009E73", "^"), ("#E69F00", "P"), ("#000000", "X"),
    ("#F0E442", "*"))]

# What is said of each figure: its title, a description, and its caption.
WORDS = read_yaml(Path(__file__).with_name("figures.yaml"))

# Caption of each figure; `caption` fills in the numbers and says which corpora are real.
CAPTIONS = {number: said["caption"] for number, said in WORDS.items()}


def caption(number: int, results: Results) -> str:
    """Caption of a figure for these results."""
    settings = results.settings
    confidence = f"{100 * settings.figures.confidence:g} %"
    tasks = {1: [], 2: results.tasks("classification"), 3: results.tasks("generation"), 5: results.tasks("generation")}
    shown = tasks.get(number, results.tasks())
    text = CAPTIONS[number].format(
        confidence=confidence, bars=f"{confidence} bootstrap intervals over seeds and test examples (none where there is one seed)",
        budget=results.smallest_budget, cost_per_label=f"{settings.cost_per_label:g}", cost_per_hour=f"{settings.cost_per_hour:g}",
        added=added(results, shown), corpora=corpora_sentence(shown, settings))
    return text.strip()


def draw_all(run_dir: str | Path, settings: Any) -> list[Path]:
    """Draw every figure that the results of a run allow, into `run_dir`/figures.

    Returns
    -------
    list of Path
        The files written: four for each figure. A figure with nothing to show (no NLG task, say) is left out.

    Raises
    ------
    StageError
        If there are no results at all.
    """
    results = Results.read(run_dir, settings)
    written = []
    for number in FIGURES:
        shown = table_of(number, results)
        if len(shown):
            written += save(draw(number, shown), shown, Path(run_dir) / "figures" / f"figure_{number}")
    return written


def table_of(number: int, results: Results) -> pd.DataFrame:
    """The table behind figure `number`, one row per mark; empty if the results have nothing for it."""
    return FIGURES[number][0](results)


def draw(number: int, shown: pd.DataFrame) -> Figure:
    """Draw figure `number` from the table that `table_of` gives."""
    with style():
        return FIGURES[number][1](shown)


def save(figure: Figure, shown: pd.DataFrame, stem: Path) -> list[Path]:
    """Write a figure as PDF, SVG and PNG (300 dpi) and its table as CSV; no file has a date or a random id."""
    written = []
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None}), ("png", {})):
        path = stem.with_name(f"{stem.name}.{suffix}")
        with atomic_path(path) as temporary, style():
            figure.savefig(temporary, dpi=300, metadata=metadata)
        written.append(path)
    return written + write_texts(stem.parent, {f"{stem.name}.csv": shown.to_csv(index=False, float_format="%.6g")})


@contextmanager
def style() -> Iterator[None]:
    """Style of all figures, while they are drawn and saved."""
    sizes = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
             "legend.fontsize": 7, "lines.markersize": 4.5, "xtick.major.size": 2.5, "ytick.major.size": 2.5}
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.5,
             "xtick.major.width": 0.6, "ytick.major.width": 0.6}
    files = {"svg.hashsalt": "synthtune", "pdf.fonttype": 42, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context({**seaborn.axes_style("ticks"), **sizes, **lines, **files}):
        yield


# Figure 1: the method ---------------------------------------------------------------------------------------


def method(results: Results) -> pd.DataFrame:
    """The three steps of the method: their input, model and output."""
    return pd.DataFrame(columns=["step", "input", "model", "output"], data=[
        ("1 fine-tune", "gold (x, y)", "teacher, a large language model", "fine-tuned teacher"),
        ("2 annotate, P(Y|X)", "unlabelled x", "fine-tuned teacher", "annotated (x, ŷ)"),
        ("2 generate, P(X,Y)", "nothing", "fine-tuned teacher, then a filter", "generated (x̂, ŷ)"),
        ("3 train", "gold and synthetic examples", "student, a small model", "trained student")])


_HEIGHT = 2.55
# Left and right edge of the frame around each step, and its heading.
_STEPS = [(0.08, 1.92, "1  Fine-tune"), (2.06, 4.84, "2  Annotate or generate"), (4.98, 6.82, "3  Train the student")]

_ROWS = (1.72, 0.72)
# Centre, row, width, condition whose colour the edge has, filling and text of each box.
_BOXES = [
    (1.0, 0, 1.56, GOLD, "#FDF3DC", "Gold examples (x, y)\na few, labelled by people"),
    (1.0, 1, 1.56, TEACHER, "#FBE3D6", "Teacher\nlarge language model"),
    (2.72, 0, 1.06, FULL, "#F2F2F2", "Unlabelled\ntexts x"),
    (4.14, 0, 1.2, ANNOTATED, "#DCEBF5", "Annotated\n(x, ŷ)"),
    (2.72, 1, 1.06, FULL, "#F2F2F2", "New pairs,\nfiltered"),
    (4.14, 1, 1.2, GENERATED, "#DAF0E8", "Generated\n(x̂, ŷ)"),
    (5.9, 0, 1.56, GOLD, "#FDF3DC", "Gold + synthetic\nexamples together"),
    (5.9, 1, 1.56, TEACHER, "#FBE3D6", "Student\nsmall, quick to run"),
]

_ARROWS = [((1.0, 1.44), (1.0, 1.00)), ((3.25, 1.72), (3.54, 1.72)), ((3.25, 0.72), (3.54, 0.72)), ((1.78, 0.80), (2.19, 1.60)),
           ((1.78, 0.72), (2.19, 0.72)), ((4.74, 1.72), (5.12, 1.72)), ((4.74, 0.80), (5.12, 1.60)), ((5.9, 1.44), (5.9, 1.00))]


def draw_method(shown: pd.DataFrame) -> Figure:
    """Draw the method as boxes and arrows; the text does not depend on `shown`."""
    figure = Figure(figsize=(WIDTH, _HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, _HEIGHT))
    axes.axis("off")

    def box(left: float, bottom: float, width: float, height: float, rounding: float, **look: Any) -> None:
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=f"round,pad=0,rounding_size={rounding}", **look))

    for left, right, heading in _STEPS:
        box(left, 0.1, right - left, _HEIGHT - 0.2, 0.08, facecolor="none", edgecolor="#999999", linewidth=0.7,
            linestyle=(0, (3, 2)))
        axes.text(left + 0.1, _HEIGHT - 0.28, heading, fontsize=9, fontweight="bold", va="center")
    for x, row, width, name, fill, text in _BOXES:
        edge, tall = condition(name).color, 0.56
        box(x - width / 2, _ROWS[row] - tall / 2, width, tall, 0.06, facecolor=fill, edgecolor=edge, linewidth=0.9)
        axes.text(x, _ROWS[row], text, fontsize=7.5, ha="center", va="center", linespacing=1.25)
    for start, end in _ARROWS:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, linewidth=0.9, color="#333333",
                                       shrinkA=0, shrinkB=0))
    for y, text, name in ((1.22, "labels them: P(Y|X)", ANNOTATED), (0.28, "generates them: P(X,Y)", GENERATED)):
        axes.text(2.72, y, text, fontsize=7.5, ha="center", va="center", color=condition(name).color)
    return figure


# Figures 2 and 3: metric against budget ---------------------------------------------------------------------


def _marks(results: Results, cells: Iterable[pd.DataFrame], interval: bool = True, **columns: Any) -> list[dict]:
    """One mark of a figure for each cell that has rows: their mean over seeds, with its bootstrap interval if there are several.

    Not a t interval: with two seeds, which is what a larger budget often has, that is 25 standard errors wide.
    """
    marks = []
    for rows in cells:
        if not len(rows):
            continue
        first, low, high = rows.iloc[0], math.nan, math.nan
        metric, series, amount = main_metric(first.task_type), first.get("condition", TEACHER), int(first.get("amount", 0))
        if interval and series in CONDITIONS and len(rows) > 1:
            found = results.estimate(results.resampled[first.task][int(first.budget), series, amount])
            low, high = found.low, found.high
        marks.append({"task": first.task, "title": results.title(first.task), "metric": METRICS[metric].title, "series": series,
                      "labelled": int(first.budget), "synthetic": amount, **columns, "mean": float(rows[metric].mean()),
                      "seeds": len(rows), "low": low, "high": high})
    return marks


def by_budget(results: Results, task_type: str) -> pd.DataFrame:
    """Score of each condition at its headline amount, of the teacher and of the ceiling, by task and budget."""
    marks = []
    for task in results.tasks(task_type):
        for budget in results.budgets(task):
            marks += _marks(results, [*results.compared(task, budget), results.teacher(task, budget)])
        marks += _marks(results, [results.ceiling(task)])
    return pd.DataFrame(marks)


def draw_by_budget(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over budgets, the teacher and the ceiling as reference lines."""

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        students = rows[rows.series.isin(CONDITIONS)]
        _log_axis(axes, sorted(students.labelled.unique()))
        _reference_lines(axes, rows)
        _condition_lines(axes, students, "labelled")

    figure = _panels(shown, draw, columns=2, height=2.15, label="Labelled examples")
    _legend(figure, shown.series)
    return figure


def _panels(shown: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None], columns: int, height: float, label: str) -> Figure:
    """A grid with one panel per task, drawn from the task's rows; a row of panels is `height` inches high.

    `label` stands below the lowest panel of each column.
    """
    groups = [where(shown, task=task) for task in dict.fromkeys(shown.task)]
    columns = min(columns, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(WIDTH, height * lines + 0.35), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for number, (axes, rows) in enumerate(zip(grid, groups)):
        draw(axes, rows)
        name = rows.metric.iloc[0]
        unit = next(metric.unit for metric in METRICS.values() if metric.title == name)
        axes.set(title=rows.title.iloc[0], ylabel=f"{name} ({unit})", xlabel=label if number >= len(groups) - columns else "")
        _score_limits(axes)
    for axes in grid[len(groups):]:
        axes.remove()
    return figure


def _log_axis(axes: Axes, places: list[int]) -> None:
    """Logarithmic x axis with a tick at every measured place, and room for marks side by side."""
    room = 1.25 if len(places) > 1 else 1.6
    # The labels of 169 and 170 would overlap, and so would 430 and 500 on an axis of more than a decade.
    apart: list[int] = []
    gap = max(1.1, (max(places) / min(places)) ** 0.09)
    for place in places:
        if not apart or place > gap * apart[-1]:
            apart.append(place)
    _log_ticks(axes, min(places) / room, max(places) * room, apart, ",.0f")
    # Neighbours such as 1,000 and 1,500 would touch if the axis spans a decade and a panel is narrow.
    if len(places) > 5:
        axes.tick_params(axis="x", rotation=30)


def _log_ticks(axes: Axes, low: float, high: float, ticks: list[float], number: str) -> None:
    """Logarithmic x axis between two places, with labels at these ticks only."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [format(tick, number) for tick in ticks])
    axes.minorticks_off()


def _condition_lines(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    """A line with intervals for each series of `rows` over column `x`."""
    series = [name for name in CONDITIONS if name in set(rows.series)]
    for position, name in enumerate(series):
        marks = where(rows, series=name).sort_values(x)
        # Marks of several series side by side on the logarithmic axis, so that their bars do not overlap.
        places = marks[x].to_numpy(float) * 1.035 ** (position - (len(series) - 1) / 2)
        axes.errorbar(places, marks["mean"], yerr=_error(marks), capsize=1.5, elinewidth=0.8, zorder=3, **_EDGE, **condition(name).style)


def _error(marks: pd.DataFrame) -> np.ndarray:
    """Lengths of the bars below and above, shape (2, marks); zero where there is no interval."""
    return np.nan_to_num(np.array([marks["mean"] - marks.low, marks.high - marks["mean"]]).clip(0))


def _reference_lines(axes: Axes, rows: pd.DataFrame) -> None:
    """The teacher, by budget where it has several, and the ceiling, across the whole panel."""
    left, right = axes.get_xlim()
    for name in (TEACHER, FULL):
        marks = where(rows, series=name).sort_values("labelled")
        if len(marks):
            # The ceiling has one value; the teacher's first and last reach on to the panel's edges.
            x = marks.labelled if name == TEACHER else marks.labelled.clip(left, right)
            y = marks["mean"]
            axes.plot([left, *x, right], [y.iloc[0], *y, y.iloc[-1]], zorder=2, **condition(name).style)


def _score_limits(axes: Axes) -> None:
    """Margins around the marks; no axis goes below 0 or above 100 unless an interval does."""
    bottom, top = axes.dataLim.intervaly
    air = max(0.06 * (top - bottom), 0.5)
    axes.set_ylim(bottom - air if bottom < 0 or bottom > air else 0, top + air if top > 100 else min(top + air, 100.8))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    seaborn.despine(ax=axes)


def _legend(figure: Figure, series: Iterable[str], **changed: dict[str, Any]) -> None:
    """One legend for all panels, under them; a series may be drawn with a `changed` style."""
    names = [name for name in (*CONDITIONS, *REFERENCES) if name in set(series)]
    handles = [Line2D([], [], **_EDGE, **(condition(name).style | changed.get(name, {}))) for name in names]
    figure.legend(handles, [condition(name).label or name for name in names], loc="outside lower center", ncols=len(names),
                  frameon=False, handlelength=2.6, columnspacing=1.4)


# Figure 4: teacher against prompted models ------------------------------------------------------------------


def _estimated(results: Results, scores: np.ndarray, task: str, title: str, task_type: str, **columns: Any) -> dict:
    """One mark of a figure from bootstrap scores."""
    found = results.estimate(scores)
    return {"task": task, "title": title, "task_type": task_type, "metric": METRICS[main_metric(task_type)].title, **columns,
            "mean": found.value, "low": found.low, "high": found.high}


def teachers(results: Results) -> pd.DataFrame:
    """Score of the fine-tuned teacher and of every prompted model at the smallest budget, by task."""
    marks = []
    for task in results.tasks():
        rows = where(results.teachers, task=task)
        for row in rows[rows.budget == rows.budget.min()].itertuples():
            budget, system = int(row.budget), row.system
            record = statistics.examples_of(row.task_type, row.per_example)
            marks.append(_estimated(results, results.resampled_systems(task, budget, [system])[system], task, results.title(task),
                                    row.task_type, system=system, model=row.model, labelled=budget, test_examples=len(record)))
    return pd.DataFrame(marks)


def draw_teachers(shown: pd.DataFrame) -> Figure:
    """A row per task and a mark per system; classification and NLG in their own panels."""
    systems = sorted(dict.fromkeys(shown.system), key=lambda name: name != FINE_TUNED)
    styles = {name: _SYSTEM_STYLES[number % len(_SYSTEM_STYLES)] for number, name in enumerate(systems)}
    return _dot_rows(shown, "system", styles, "{metric.title} ({metric.unit})")


def _dot_rows(shown: pd.DataFrame, column: str, styles: dict[str, dict], label: str) -> Figure:
    """Dots with horizontal intervals: a panel per type of task, a row per task, and side by side the series of `column`, which
    `styles` lists.
    """
    types = [task_type for task_type in TYPE_NAMES if task_type in set(shown.task_type)]
    tallest, number = shown.groupby("task_type").title.nunique().max(), len(styles)
    height = (0.13 * number + 0.14) * tallest + 0.6 + 0.2 * -(-number // 4)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    for axes, task_type in zip(figure.subplots(1, len(types), squeeze=False).ravel(), types):
        rows = where(shown, task_type=task_type)
        titles = list(dict.fromkeys(rows.title))
        for position, (name, look) in enumerate(styles.items()):
            marks = where(rows, **{column: name})
            y = [titles.index(text) + (position - (number - 1) / 2) * 0.7 / number for text in marks.title]
            axes.errorbar(marks["mean"], y, xerr=_error(marks), linestyle="", capsize=1.5, elinewidth=0.9, zorder=3, **_EDGE, **look)
        axes.set_yticks(range(len(titles)), [text.replace(", own", ",\nown") for text in titles])
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlabel(label.format(metric=METRICS[main_metric(task_type)]))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", visible=False)
        for edge in range(1, len(titles)):
            axes.axhline(edge - 0.5, color="#cccccc", linewidth=0.5, zorder=1)
        seaborn.despine(ax=axes, left=True)
        axes.tick_params(axis="y", length=0)
    handles = [Line2D([], [], linestyle="", **_EDGE, **look) for look in styles.values()]
    figure.legend(handles, list(styles), loc="outside lower center", ncols=min(4, number), frameon=False)
    return figure


# Figure 5: amount of synthetic data -------------------------------------------------------------------------


def by_amount(results: Results) -> pd.DataFrame:
    """BLEU by amount of synthetic data, at the budget with most amounts, with the lines to compare it to."""
    marks = []
    for task in results.tasks("generation"):
        budget = results.swept_budget(task, (ANNOTATED, GENERATED))
        if budget is None:
            continue
        for name in (name for name in CONDITIONS if name != GOLD):
            marks += _marks(results, [results.rows(task, budget, name, amount) for amount in results.amounts(task, budget, name)])
        marks += _marks(results, [results.rows(task, budget, GOLD), results.teacher(task, budget), results.ceiling(task)], interval=False)
    return pd.DataFrame(marks)


def draw_by_amount(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over amounts; gold alone, teacher and ceiling as horizontal
    lines.
    """

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        swept = rows[rows.synthetic > 0]
        _log_axis(axes, sorted(swept.synthetic.unique()))
        for row in rows[rows.synthetic == 0].itertuples():
            axes.axhline(row.mean, zorder=2, **(condition(row.series).style | {"marker": ""}))
            axes.update_datalim([(swept.synthetic.min(), row.mean)])
        _condition_lines(axes, swept, "synthetic")

    figure = _panels(shown, draw, columns=2, height=2.35, label="")
    for axes, (_, rows) in zip(figure.axes, shown[shown.synthetic > 0].groupby("task", sort=False)):
        axes.set_xlabel(f"Synthetic examples added to {rows.labelled.iloc[0]:,} gold ones")
    _legend(figure, shown.series, **{GOLD: {"marker": ""}})
    return figure


# Figure 6: annotation, generation and half of each ----------------------------------------------------------


def _routes() -> list[str]:
    """Conditions that add synthetic examples; hard labels stand beside the annotated examples that have them."""
    names = [name for name in CONDITIONS if CONDITIONS[name].shares]
    return [each for name in names for each in ((name, HARD) if name == ANNOTATED else (name,))]


def by_route(results: Results) -> pd.DataFrame:
    """Gain over gold alone of each kind of synthetic data, at equal amounts and the smallest budget, by task."""
    marks = []
    for task_type in TYPE_NAMES:
        sums: dict[str, list[np.ndarray]] = {}
        for task in results.tasks(task_type):
            budget = min(results.budgets(task), default=0)
            scores, amount = results.resampled[task], results.equal_amount(task, budget)
            if (budget, GOLD, 0) not in scores or amount is None:
                continue
            for route in _routes():
                if (budget, route, amount) in scores:
                    gain = scores[budget, route, amount] - scores[budget, GOLD, 0]
                    sums.setdefault(route, []).append(gain)
                    marks.append(_estimated(results, gain, task, f"{results.title(task)} ({amount:,})", task_type,
                                            series=route, labelled=budget, synthetic=amount))
        for route, gains in sums.items():
            # A mean over tasks is shown only where it covers the same tasks for every route.
            if len(gains) == max(map(len, sums.values())) > 1:
                marks.append(_estimated(results, np.mean(gains, axis=0), "mean", f"Mean of {len(gains)} tasks", task_type,
                                        series=route, labelled=None, synthetic=None))
    return pd.DataFrame(marks)


def draw_by_route(shown: pd.DataFrame) -> Figure:
    """A row per task and a mark per kind of synthetic data, around the line of no gain."""
    styles = {name: {"color": condition(name).color, "marker": condition(name).marker} for name in _routes() if name in set(shown.series)}
    figure = _dot_rows(shown, "series", styles, "Gain over gold ({metric.in_sentences} points)")
    for axes in figure.axes:
        axes.axvline(0, color="#444444", linewidth=0.8, zorder=2)
    return figure


# Figure 7: cost ---------------------------------------------------------------------------------------------


def by_cost(results: Results) -> pd.DataFrame:
    """Score of each condition against labels bought and machine hours spent, by task and budget."""
    marks, settings = [], results.settings
    for task in results.tasks():
        for rows in (rows for budget in results.budgets(task) for rows in results.compared(task, budget)):
            marks += _marks(results, [rows], interval=False, hours=machine_hours(results, task, int(rows.budget.iloc[0]), rows))
        full = results.ceiling(task)
        marks += _marks(results, [full], hours=float(full.train_seconds.mean()) / 3600)
    shown = pd.DataFrame(marks)
    if len(shown):
        cost = shown.labelled * settings.cost_per_label + shown.hours * settings.cost_per_hour
        shown.insert(shown.columns.get_loc("hours") + 1, "cost", cost)
    return shown.drop(columns=["low", "high"], errors="ignore")


def machine_hours(results: Results, task: str, budget: int, rows: pd.DataFrame) -> float:
    """Machine hours of one student: its own training, and its share of the teacher's work.

    Fine-tuning counts as the minutes of the teacher's notebook, including its evaluation, and at least as the sum of
    the seconds in the systems' rows (a notebook that was run again and reused its teacher took less). Annotation and
    generation count as their seconds, in proportion to the examples that the student used.
    """
    seconds = float(rows.train_seconds.mean())
    used = {"annotated": rows.n_annotated.mean(), "generated": rows.n_generated.mean()}
    if any(used.values()):
        minutes = where(results.minutes, task=task, budget=budget, notebook="01_teacher").minutes
        teachers = where(results.teachers, task=task, budget=budget)
        seconds += max(60 * float(minutes.sum()), float(teachers.seconds.sum()))
    for route, number in used.items():
        made = where(results.synthetic, task=task, budget=budget, route=route)
        if number and len(made):
            seconds += float(made.seconds.iloc[0]) * min(1.0, float(number) / max(1, made.examples.iloc[0]))
    return seconds / 3600


def draw_by_cost(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over total cost, the ceiling as a single point."""
    # The ceiling is a line in the other figures; here it has a price, so it is a point.
    point = {"marker": "*", "linestyle": "", "markersize": 7}

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        for name in (*CONDITIONS, FULL):
            marks = where(rows, series=name).sort_values("labelled")
            if len(marks):
                look = condition(name).style | (point if name == FULL else {})
                axes.plot(marks.cost, marks["mean"], zorder=3, **_EDGE, **look)
        low, high = rows.cost.min(), rows.cost.max()
        # Settings may make labels and hours free; a logarithmic axis has no place for 0.
        if low > 0:
            _log_ticks(axes, low / 1.35, high * 1.35, _round_costs(low, high), "g")

    figure = _panels(shown, draw, columns=3, height=1.95, label="Total cost (US dollars)")
    _legend(figure, shown.series, **{FULL: point})
    return figure


def _round_costs(low: float, high: float) -> list[float]:
    """Ticks at 1, 2, 5, 10, 20, … between two costs, at most six."""
    ticks = LogLocator(subs=(1, 2, 5), numticks=30).tick_values(low / 1.3, high * 1.3)
    inside = [tick for tick in ticks if low / 1.3 <= tick <= high * 1.3]
    return inside if len(inside) <= 6 else [tick for tick in inside if f"{tick:e}".startswith("1")]


# For each figure, the function that makes its table and the one that draws it.
FIGURES: dict[int, tuple[Callable[[Results], pd.DataFrame], Callable[[pd.DataFrame], Figure]]] = {
    1: (method, draw_method),
    2: (partial(by_budget, task_type="classification"), draw_by_budget),
    3: (partial(by_budget, task_type="generation"), draw_by_budget),
    4: (teachers, draw_teachers),
    5: (by_amount, draw_by_amount),
    6: (by_route, draw_by_route),
    7: (by_cost, draw_by_cost),
}
