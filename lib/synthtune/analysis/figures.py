"""Figures 1 to 7, each as PDF, SVG and PNG at its print size, with the CSV of exactly what it shows.

Every figure has two halves: a function that takes the results and returns the table of what will be shown,
and one that draws such a table. `draw_all` runs them all and writes the files; the same results give the same
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from synthtune.analysis import statistics
from synthtune.analysis.results import (
    ANNOTATED,
    BOTH,
    CONDITIONS,
    FINE_TUNED,
    FULL,
    GENERATED,
    GOLD,
    HARD,
    METRIC,
    METRIC_NAMES,
    Results,
    corpora_sentence,
)
from synthtune.files import atomic_path

WIDTH = 6.9
"""Width of every figure in inches: the text width of a two-column page. Fonts are 7 pt and more at that size.
"""

TEACHER = "teacher"

# Okabe and Ito's palette, whose colours differ in all common kinds of colour blindness. Markers and line styles
# differ as well, for print without colour.
STYLES = {
    GOLD: {"color": "#E69F00", "marker": "o", "linestyle": "-"},
    ANNOTATED: {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    GENERATED: {"color": "#009E73", "marker": "^", "linestyle": "-."},
    BOTH: {"color": "#CC79A7", "marker": "D", "linestyle": (0, (4, 1))},
    TEACHER: {"color": "#D55E00", "marker": "", "linestyle": (0, (5, 2))},
    FULL: {"color": "#444444", "marker": "", "linestyle": ":"},
    HARD: {"color": "#56B4E9", "marker": "v", "linestyle": "-"},
}
_SYSTEM_STYLES = [
    ("#D55E00", "o"),
    ("#56B4E9", "v"),
    ("#0072B2", "s"),
    ("#CC79A7", "D"),
    ("#009E73", "^"),
    ("#E69F00", "P"),
    ("#000000", "X"),
    ("#F0E442", "*"),
]
_LABELS = {FULL: "full (all true labels)", TEACHER: "teacher"}

CAPTIONS = {
    1: "The method in three steps. A language model is fine-tuned on a few gold examples (the teacher). It "
    "then labels texts that have no label, P(Y|X), or generates new pairs, P(X,Y), which are filtered. "
    "A small student is trained on gold and synthetic examples together.",
    2: "Classification: accuracy on the test set against the number of labelled examples. Points are means "
    "over seeds, bars {bars}. Dashed: the fine-tuned teacher itself. Dotted: a student trained on the "
    "true labels of the whole pool. {added} {corpora}",
    3: "Natural language generation: BLEU (lower-cased) on the test set against the number of labelled "
    "examples. Points are means over seeds, bars {bars}. Dashed: the fine-tuned teacher itself. Dotted: a "
    "student trained on all true pairs of the pool. {added} {corpora}",
    4: "The teacher, fine-tuned on {budget} gold examples, against models that are only prompted, with 0 or "
    "more examples taken from the same gold. Bars are {confidence} bootstrap intervals over test "
    "examples. {corpora}",
    5: "BLEU against the number of synthetic examples added to the gold ones (logarithmic axis). Points are "
    "means over seeds, bars {bars}. Horizontal lines: gold alone, the teacher, and a student "
    "trained on all true pairs. {corpora}",
    6: "Annotation, generation, and half of each, at equal amounts of synthetic data (the number beside each "
    "task) added to {budget} gold examples: gain over gold alone, in points. In classification "
    "students learn the teacher's distribution over the labels; with hard labels they learn its most probable label. Bars are {confidence} "
    "intervals of a paired bootstrap over seeds and test examples. {corpora}",
    7: "What a score costs: its mean over seeds against the price of labels and machine time together "
    "({cost_per_label} dollars a label, {cost_per_hour} a machine hour; both are settings). Along a line "
    "the number of labelled examples grows. Machine time is that of the teacher's notebook, of the "
    "synthetic examples used and of training the student. {corpora}",
}
"""Caption of each figure; `caption` fills in the numbers and says which corpora are real."""


def caption(number: int, results: Results) -> str:
    """Caption of a figure for these results."""
    settings = results.settings
    confidence = f"{100 * settings.figures.confidence:g} %"
    tasks = {1: [], 2: results.tasks("classification"), 3: results.tasks("nlg"), 5: results.tasks("nlg")}
    shown = tasks.get(number, results.tasks())
    text = CAPTIONS[number].format(
        confidence=confidence,
        bars=f"{confidence} bootstrap intervals over seeds and test examples (none where there is one seed)",
        budget=_smallest_budget(results),
        cost_per_label=f"{settings.cost_per_label:g}",
        cost_per_hour=f"{settings.cost_per_hour:g}",
        added=results.added(shown),
        corpora=corpora_sentence(shown, settings),
    )
    return text.strip()


def _smallest_budget(results: Results) -> str:
    budgets = sorted({min(results.budgets(task)) for task in results.tasks() if results.budgets(task)})
    return " or ".join(f"{budget:,}" for budget in budgets)


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
    """Write a figure as PDF, SVG and PNG (300 dpi) and its table as CSV; no file has a date or a random id.
    """
    written = []
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None}), ("png", {})):
        path = stem.with_name(f"{stem.name}.{suffix}")
        with atomic_path(path) as temporary, style():
            figure.savefig(temporary, dpi=300, metadata=metadata)
        written.append(path)
    path = stem.with_name(f"{stem.name}.csv")
    with atomic_path(path) as temporary:
        shown.to_csv(temporary, index=False, float_format="%.6g")
    return [*written, path]


@contextmanager
def style() -> Iterator[None]:
    """Style of all figures, while they are drawn and saved."""
    fonts = {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
    }
    lines = {
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 4.5,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
    }
    files = {"svg.hashsalt": "synthtune", "pdf.fonttype": 42, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context({**seaborn.axes_style("ticks"), **fonts, **lines, **files}):
        yield


# Figure 1: the method ---------------------------------------------------------------------------------------


def method(results: Results) -> pd.DataFrame:
    """The three steps of the method: their input, model and output."""
    return pd.DataFrame(
        [
            ("1 fine-tune", "gold (x, y)", "teacher, a large language model", "fine-tuned teacher"),
            ("2 annotate, P(Y|X)", "unlabelled x", "fine-tuned teacher", "annotated (x, ŷ)"),
            ("2 generate, P(X,Y)", "nothing", "fine-tuned teacher, then a filter", "generated (x̂, ŷ)"),
            ("3 train", "gold and synthetic examples", "student, a small model", "trained student"),
        ],
        columns=["step", "input", "model", "output"],
    )


def draw_method(shown: pd.DataFrame) -> Figure:
    """Draw the method as boxes and arrows; the text does not depend on `shown`."""
    height = 2.55
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    tint = {
        "data": "#FDF3DC",
        "model": "#FBE3D6",
        ANNOTATED: "#DCEBF5",
        GENERATED: "#DAF0E8",
        "plain": "#F2F2F2",
    }
    for left, right, heading in (
        (0.08, 1.92, "1  Fine-tune"),
        (2.06, 4.84, "2  Annotate or generate"),
        (4.98, 6.82, "3  Train the student"),
    ):
        axes.add_patch(
            FancyBboxPatch(
                (left, 0.1),
                right - left,
                height - 0.2,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="none",
                edgecolor="#999999",
                linewidth=0.7,
                linestyle=(0, (3, 2)),
            )
        )
        axes.text(left + 0.1, height - 0.28, heading, fontsize=9, fontweight="bold", va="center")

    def box(x: float, y: float, width: float, tall: float, fill: str, edge: str, text: str) -> None:
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - tall / 2),
                width,
                tall,
                facecolor=tint[fill],
                edgecolor=edge,
                linewidth=0.9,
                boxstyle="round,pad=0,rounding_size=0.06",
            )
        )
        axes.text(x, y, text, fontsize=7.5, ha="center", va="center", linespacing=1.25)

    def arrow(start: tuple[float, float], end: tuple[float, float], bend: float = 0) -> None:
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=8,
                linewidth=0.9,
                color="#333333",
                shrinkA=0,
                shrinkB=0,
                connectionstyle=f"arc3,rad={bend}",
            )
        )

    gold, blue, green, red, grey = (
        STYLES[name]["color"] for name in (GOLD, ANNOTATED, GENERATED, TEACHER, FULL)
    )
    box(1.0, 1.72, 1.56, 0.56, "data", gold, "Gold examples (x, y)\na few, labelled by people")
    box(1.0, 0.72, 1.56, 0.56, "model", red, "Teacher\nlarge language model")
    arrow((1.0, 1.44), (1.0, 1.00))
    box(2.72, 1.72, 1.06, 0.56, "plain", grey, "Unlabelled\ntexts x")
    box(4.14, 1.72, 1.2, 0.56, ANNOTATED, blue, "Annotated\n(x, ŷ)")
    arrow((3.25, 1.72), (3.54, 1.72))
    box(2.72, 0.72, 1.06, 0.56, "plain", grey, "New pairs,\nfiltered")
    box(4.14, 0.72, 1.2, 0.56, GENERATED, green, "Generated\n" + "(x̂, ŷ)")
    arrow((3.25, 0.72), (3.54, 0.72))
    arrow((1.78, 0.80), (2.19, 1.60))
    arrow((1.78, 0.72), (2.19, 0.72))
    axes.text(2.72, 1.22, "labels them: P(Y|X)", fontsize=7.5, ha="center", va="center", color=blue)
    axes.text(2.72, 0.28, "generates them: P(X,Y)", fontsize=7.5, ha="center", va="center", color=green)
    box(5.9, 1.72, 1.56, 0.56, "data", gold, "Gold + synthetic\nexamples together")
    box(5.9, 0.72, 1.56, 0.56, "model", red, "Student\nsmall, quick to run")
    arrow((4.74, 1.72), (5.12, 1.72))
    arrow((4.74, 0.80), (5.12, 1.60))
    arrow((5.9, 1.44), (5.9, 1.00))
    return figure


# Figures 2 and 3: metric against budget ---------------------------------------------------------------------


def _line_row(results: Results, rows: pd.DataFrame, **columns: Any) -> dict:
    """One value of a figure without interval: the mean of `rows` over their seeds."""
    first = rows.iloc[0]
    metric = METRIC[first.kind]
    return {
        "task": first.task,
        "title": results.title(first.task),
        "metric": METRIC_NAMES[metric],
        **columns,
        "mean": float(rows[metric].mean()),
        "seeds": len(rows),
    }


def _score_row(results: Results, rows: pd.DataFrame, **columns: Any) -> dict:
    """One mark of a figure: the mean of `rows` over their seeds, with its bootstrap interval if there are
    several.

    Not a t interval: with two seeds, which is what a larger budget often has, that is 25 standard errors
    wide.
    """
    first, low, high = rows.iloc[0], math.nan, math.nan
    if len(rows) > 1:
        scores = results.resampled_cell(first.task, int(first.budget), first.condition, int(first.amount))
        found = statistics.estimate(scores, results.settings.figures.confidence)
        low, high = found.low, found.high
    return _line_row(results, rows, **columns) | {"low": low, "high": high}


def classification_by_budget(results: Results) -> pd.DataFrame:
    """Accuracy of each condition at its headline amount, of the teacher and of the ceiling, by task and
    budget.
    """
    return _by_budget(results, "classification")


def nlg_by_budget(results: Results) -> pd.DataFrame:
    """The same as `classification_by_budget` for the NLG tasks, in BLEU."""
    return _by_budget(results, "nlg")


def _by_budget(results: Results, kind: str) -> pd.DataFrame:
    marks = []
    for task in results.tasks(kind):
        for budget in results.budgets(task):
            for condition in CONDITIONS:
                amount = results.headline_amount(task, budget, condition)
                if amount is not None:
                    rows = results.rows(task, budget, condition, amount)
                    marks.append(
                        _score_row(results, rows, series=condition, labelled=budget, synthetic=amount)
                    )
            teacher = results.teacher(task, budget)
            if len(teacher):
                marks.append(_line_row(results, teacher, series=TEACHER, labelled=budget, synthetic=0))
        if len(results.ceiling(task)):
            ceiling = results.ceiling(task)
            marks.append(
                _line_row(results, ceiling, series=FULL, labelled=int(ceiling.budget.iloc[0]), synthetic=0)
            )
    return pd.DataFrame(marks)


def draw_by_budget(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over budgets, the teacher and the ceiling as reference lines."""
    figure, panels = _panels(shown, columns=2, height=2.15)
    for axes, rows in panels:
        students = rows[rows.series.isin(CONDITIONS)]
        _log_axis(axes, sorted(students.labelled.unique()))
        _reference_lines(axes, rows)
        _condition_lines(axes, students, "labelled")
        axes.set(title=rows.title.iloc[0], ylabel=f"{rows.metric.iloc[0]} ({_unit(rows)})")
        _score_limits(axes)
    _label_lowest(panels, "Labelled examples")
    _legend(figure, shown.series)
    return figure


def _unit(rows: pd.DataFrame) -> str:
    return "%" if rows.metric.iloc[0] == METRIC_NAMES["accuracy"] else "0–100"


def _panels(
    shown: pd.DataFrame, columns: int, height: float
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A grid with one panel per task, and the task's rows; a row of panels is `height` inches high, and empty places
    are removed.
    """
    groups = [shown[shown.task == task] for task in dict.fromkeys(shown.task)]
    columns = min(columns, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(WIDTH, height * lines + 0.35), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(groups) :]:
        axes.remove()
    return figure, list(zip(grid, groups))


def _label_lowest(panels: list[tuple[Axes, pd.DataFrame]], label: str) -> None:
    """Label the x axis, which means the same in all panels, under the lowest panel of each column."""
    columns = panels[0][0].get_gridspec().ncols
    for axes, _ in panels[-columns:]:
        axes.set_xlabel(label)


def _log_axis(axes: Axes, places: list[int]) -> None:
    """Logarithmic x axis with a tick at every measured place, and room for marks side by side.
    """
    axes.set_xscale("log")
    room = 1.25 if len(places) > 1 else 1.6
    axes.set_xlim(min(places) / room, max(places) * room)
    # The labels of 169 and 170 would overlap, and so would 430 and 500 on an axis of more than a decade.
    apart: list[int] = []
    gap = max(1.1, (max(places) / min(places)) ** 0.09)
    for place in places:
        if not apart or place > gap * apart[-1]:
            apart.append(place)
    axes.xaxis.set_major_locator(FixedLocator(apart))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
    # Neighbours such as 1,000 and 1,500 would touch if the axis spans a decade and a panel is narrow.
    if len(places) > 5:
        axes.tick_params(axis="x", rotation=30)


def _dodge(places: Iterable[float], position: int, count: int) -> np.ndarray:
    """Place the marks of `count` series side by side on a logarithmic axis, so that their bars do not
    overlap.
    """
    return np.asarray(list(places), dtype=float) * 1.035 ** (position - (count - 1) / 2)


def _condition_lines(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    """A line with intervals for each series of `rows` over column `x`."""
    series = [name for name in CONDITIONS if name in set(rows.series)]
    for position, name in enumerate(series):
        marks = rows[rows.series == name].sort_values(x)
        axes.errorbar(
            _dodge(marks[x], position, len(series)),
            marks["mean"],
            yerr=_error(marks),
            capsize=1.5,
            elinewidth=0.8,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3,
            **STYLES[name],
        )


def _error(marks: pd.DataFrame) -> np.ndarray:
    """Lengths of the bars below and above, shape (2, marks); zero where there is no interval."""
    return np.nan_to_num(np.array([marks["mean"] - marks.low, marks.high - marks["mean"]]).clip(0))


def _reference_lines(axes: Axes, rows: pd.DataFrame) -> None:
    """The teacher, by budget where it has several, and the ceiling, across the whole panel."""
    left, right = axes.get_xlim()
    for name in (TEACHER, FULL):
        marks = rows[rows.series == name].sort_values("labelled")
        if len(marks):
            # The ceiling has one value; the teacher's first and last reach on to the panel's edges.
            x = marks.labelled if name == TEACHER else marks.labelled.clip(left, right)
            y = marks["mean"]
            axes.plot([left, *x, right], [y.iloc[0], *y, y.iloc[-1]], zorder=2, **STYLES[name])


def _score_limits(axes: Axes) -> None:
    """Margins around the marks; no axis goes below 0 or above 100 unless an interval does."""
    bottom, top = axes.dataLim.intervaly
    air = max(0.06 * (top - bottom), 0.5)
    axes.set_ylim(
        bottom - air if bottom < 0 or bottom > air else 0, top + air if top > 100 else min(top + air, 100.8)
    )
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    seaborn.despine(ax=axes)


def _legend(figure: Figure, series: Iterable[str], styles: dict[str, dict] = STYLES) -> None:
    """One legend for all panels, under them."""
    there = set(series)
    names = [name for name in styles if name in there]
    handles = [Line2D([], [], markeredgecolor="white", markeredgewidth=0.4, **styles[name]) for name in names]
    figure.legend(
        handles,
        [_LABELS.get(name, name) for name in names],
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        handlelength=2.6,
        columnspacing=1.4,
    )


# Figure 4: teacher against prompted models ------------------------------------------------------------------


def teachers(results: Results) -> pd.DataFrame:
    """Score of the fine-tuned teacher and of every prompted model at the smallest budget, by task."""
    confidence = results.settings.figures.confidence
    marks = []
    for task in results.tasks():
        rows = results.teachers[results.teachers.task == task]
        if not len(rows):
            continue
        rows = rows[rows.budget == rows.budget.min()]
        for row in rows.itertuples():
            scores = results.resampled_systems(task, int(row.budget), [row.system])
            found = statistics.estimate(scores[row.system], confidence)
            marks.append(
                {
                    "task": task,
                    "title": results.title(task),
                    "kind": row.kind,
                    "metric": METRIC_NAMES[METRIC[row.kind]],
                    "system": row.system,
                    "model": row.model,
                    "labelled": int(row.budget),
                    "test_examples": len(statistics.examples_of(row.kind, row.per_example)),
                    "mean": found.value,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return pd.DataFrame(marks)


def draw_teachers(shown: pd.DataFrame) -> Figure:
    """A row per task and a mark per system; classification and NLG in their own panels."""
    systems = list(
        dict.fromkeys([name for name in (FINE_TUNED,) if name in set(shown.system)] + list(shown.system))
    )
    styles = {
        name: dict(zip(("color", "marker"), _SYSTEM_STYLES[i % len(_SYSTEM_STYLES)]))
        for i, name in enumerate(systems)
    }
    return _dot_rows(
        shown, "system", systems, styles, {"classification": "Accuracy (%)", "nlg": "BLEU (0–100)"}
    )


def _dot_rows(
    shown: pd.DataFrame, column: str, series: list[str], styles: dict[str, dict], axis_labels: dict[str, str]
) -> Figure:
    """Dots with horizontal intervals: a panel per kind of task, a row per task, the series of `column` side
    by side.
    """
    kinds = [kind for kind in METRIC if kind in set(shown.kind)]
    tallest = max(shown[shown.kind == kind].title.nunique() for kind in kinds)
    line = 0.13 * len(series) + 0.14
    legend_lines = -(-len(series) // 4)
    figure = Figure(figsize=(WIDTH, line * tallest + 0.6 + 0.2 * legend_lines), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False).ravel()
    for axes, kind in zip(panels, kinds):
        rows = shown[shown.kind == kind]
        titles = list(dict.fromkeys(rows.title))
        for position, name in enumerate(series):
            marks = rows[rows[column] == name]
            y = [
                titles.index(text) + (position - (len(series) - 1) / 2) * 0.7 / len(series)
                for text in marks.title
            ]
            axes.errorbar(
                marks["mean"],
                y,
                xerr=_error(marks),
                linestyle="",
                capsize=1.5,
                elinewidth=0.9,
                zorder=3,
                markeredgecolor="white",
                markeredgewidth=0.4,
                **styles[name],
            )
        axes.set_yticks(range(len(titles)), [text.replace(", own", ",\nown") for text in titles])
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlabel(axis_labels[kind])
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", visible=False)
        for edge in range(1, len(titles)):
            axes.axhline(edge - 0.5, color="#cccccc", linewidth=0.5, zorder=1)
        seaborn.despine(ax=axes, left=True)
        axes.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], linestyle="", markeredgecolor="white", markeredgewidth=0.4, **styles[name])
        for name in series
    ]
    figure.legend(handles, series, loc="outside lower center", ncols=min(4, len(series)), frameon=False)
    return figure


# Figure 5: amount of synthetic data -------------------------------------------------------------------------


def by_amount(results: Results) -> pd.DataFrame:
    """BLEU by amount of synthetic data, at the budget with most amounts, with the lines to compare it to."""
    marks = []
    for task in results.tasks("nlg"):
        swept = {
            budget: max(len(results.amounts(task, budget, condition)) for condition in (ANNOTATED, GENERATED))
            for budget in results.budgets(task)
        }
        if not swept or not max(swept.values()):
            continue
        budget = max(swept, key=lambda budget: (swept[budget], -budget))
        for condition in (ANNOTATED, GENERATED, BOTH):
            for amount in results.amounts(task, budget, condition):
                rows = results.rows(task, budget, condition, amount)
                marks.append(_score_row(results, rows, series=condition, labelled=budget, synthetic=amount))
        for name, rows in (
            (GOLD, results.rows(task, budget, GOLD)),
            (TEACHER, results.teacher(task, budget)),
            (FULL, results.ceiling(task)),
        ):
            if len(rows):
                labelled = int(rows.budget.iloc[0])
                marks.append(_line_row(results, rows, series=name, labelled=labelled, synthetic=0))
    return pd.DataFrame(marks)


def draw_by_amount(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over amounts; gold alone, teacher and ceiling as horizontal
    lines.
    """
    figure, panels = _panels(shown, columns=2, height=2.35)
    for axes, rows in panels:
        swept = rows[rows.synthetic > 0]
        _log_axis(axes, sorted(swept.synthetic.unique()))
        for row in rows[rows.synthetic == 0].itertuples():
            axes.axhline(row.mean, zorder=2, **(STYLES[row.series] | {"marker": ""}))
            axes.update_datalim([(swept.synthetic.min(), row.mean)])
        _condition_lines(axes, swept, "synthetic")
        labelled = int(swept.labelled.iloc[0])
        axes.set(
            title=rows.title.iloc[0],
            ylabel=f"{rows.metric.iloc[0]} ({_unit(rows)})",
            xlabel=f"Synthetic examples added to {labelled:,} gold ones",
        )
        _score_limits(axes)
    _legend(figure, shown.series, STYLES | {GOLD: STYLES[GOLD] | {"marker": ""}})
    return figure


# Figure 6: annotation, generation and half of each ----------------------------------------------------------


_ROUTES = (ANNOTATED, HARD, GENERATED, BOTH)


def by_route(results: Results) -> pd.DataFrame:
    """Gain over gold alone of each kind of synthetic data, at equal amounts and the smallest budget, by task."""
    marks = []
    for kind in METRIC:
        sums: dict[str, list[np.ndarray]] = {}
        for task in results.tasks(kind):
            budget = min(results.budgets(task), default=None)
            gold = None if budget is None else results.resampled_cell(task, budget, GOLD)
            amount = equal_amount(results, task, budget)
            if gold is None or amount is None:
                continue
            for route in _ROUTES:
                scores = results.resampled_cell(task, budget, route, amount)
                if scores is not None:
                    sums.setdefault(route, []).append(scores - gold)
                    title = f"{results.title(task)} ({amount:,})"
                    marks.append(_gain_row(results, scores - gold, kind, task, title, route, budget, amount))
        for route, gains in sums.items():
            # A mean over tasks is shown only where it covers the same tasks for every route.
            if len(gains) == max(map(len, sums.values())) > 1:
                title = f"Mean of {len(gains)} tasks"
                marks.append(
                    _gain_row(results, np.mean(gains, axis=0), kind, "mean", title, route, None, None)
                )
    return pd.DataFrame(marks)


def equal_amount(results: Results, task: str, budget: int) -> int | None:
    """The largest amount that was run with every kind of synthetic data of a task; None if there is none."""
    amounts = [set(results.amounts(task, budget, route)) for route in (ANNOTATED, GENERATED, BOTH)]
    common = set.intersection(*(there for there in amounts if there)) if any(amounts) else set()
    return max(common, default=None)


def _gain_row(
    results: Results,
    gain: np.ndarray,
    kind: str,
    task: str,
    title: str,
    route: str,
    budget: int | None,
    amount: int | None,
) -> dict:
    found = statistics.estimate(gain, results.settings.figures.confidence)
    return {
        "task": task,
        "title": title,
        "kind": kind,
        "metric": METRIC_NAMES[METRIC[kind]],
        "series": route,
        "labelled": budget,
        "synthetic": amount,
        "mean": found.value,
        "low": found.low,
        "high": found.high,
    }


def draw_by_route(shown: pd.DataFrame) -> Figure:
    """A row per task and a mark per kind of synthetic data, around the line of no gain."""
    series = [name for name in _ROUTES if name in set(shown.series)]
    styles = {name: {key: STYLES[name][key] for key in ("color", "marker")} for name in series}
    figure = _dot_rows(
        shown,
        "series",
        series,
        styles,
        {"classification": "Gain over gold (accuracy points)", "nlg": "Gain over gold (BLEU points)"},
    )
    for axes in figure.axes:
        axes.axvline(0, color="#444444", linewidth=0.8, zorder=2)
    return figure


# Figure 7: cost ---------------------------------------------------------------------------------------------


def by_cost(results: Results) -> pd.DataFrame:
    """Score of each condition against labels bought and machine hours spent, by task and budget."""
    marks, settings = [], results.settings
    for task in results.tasks():
        for budget in results.budgets(task):
            for condition in CONDITIONS:
                amount = results.headline_amount(task, budget, condition)
                if amount is not None:
                    rows = results.rows(task, budget, condition, amount)
                    hours = machine_hours(results, task, budget, rows)
                    marks.append(
                        _line_row(
                            results, rows, series=condition, labelled=budget, synthetic=amount, hours=hours
                        )
                    )
        if len(results.ceiling(task)):
            rows = results.ceiling(task)
            marks.append(
                _line_row(
                    results,
                    rows,
                    series=FULL,
                    labelled=int(rows.budget.iloc[0]),
                    synthetic=0,
                    hours=float(rows.train_seconds.mean()) / 3600,
                )
            )
    shown = pd.DataFrame(marks)
    if len(shown):
        cost = shown.labelled * settings.cost_per_label + shown.hours * settings.cost_per_hour
        shown.insert(shown.columns.get_loc("hours") + 1, "cost", cost)
    return shown


def machine_hours(results: Results, task: str, budget: int, rows: pd.DataFrame) -> float:
    """Machine hours of one student: its own training, and its share of the teacher's work.

    Fine-tuning counts as the minutes of the teacher's notebook, including its evaluation, and at least as the sum of
    the seconds in the systems' rows (a notebook that was run again and reused its teacher took less). Annotation and
    generation count as their seconds, in proportion to the examples that the student used.
    """
    seconds = float(rows.train_seconds.mean())
    used = {"annotated": rows.n_annotated.mean(), "generated": rows.n_generated.mean()}
    if any(used.values()):
        minutes = results.minutes
        minutes = minutes[
            (minutes.task == task) & (minutes.budget == budget) & (minutes.notebook == "01_teacher")
        ].minutes
        teachers = results.teachers[(results.teachers.task == task) & (results.teachers.budget == budget)]
        seconds += max(60 * float(minutes.sum()), float(teachers.seconds.sum()))
    for route, number in used.items():
        made = results.synthetic
        made = made[(made.task == task) & (made.budget == budget) & (made.route == route)]
        if number and len(made):
            seconds += float(made.seconds.iloc[0]) * min(1.0, float(number) / max(1, made.examples.iloc[0]))
    return seconds / 3600


def draw_by_cost(shown: pd.DataFrame) -> Figure:
    """One panel a task: a line per condition over total cost, the ceiling as a single point."""
    # The ceiling is a line in the other figures; here it has a price, so it is a point.
    styles = STYLES | {
        FULL: {"color": STYLES[FULL]["color"], "marker": "*", "linestyle": "", "markersize": 7}
    }
    figure, panels = _panels(shown, columns=3, height=1.95)
    for axes, rows in panels:
        for name in (*CONDITIONS, FULL):
            marks = rows[rows.series == name].sort_values("labelled")
            if len(marks):
                axes.plot(
                    marks.cost,
                    marks["mean"],
                    markeredgecolor="white",
                    markeredgewidth=0.4,
                    zorder=3,
                    **styles[name],
                )
        axes.set(title=rows.title.iloc[0], ylabel=f"{rows.metric.iloc[0]} ({_unit(rows)})")
        low, high = rows.cost.min(), rows.cost.max()
        # Settings may make labels and hours free; a logarithmic axis has no place for 0.
        if low > 0:
            axes.set_xscale("log")
            axes.set_xlim(low / 1.35, high * 1.35)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_locator(FixedLocator(_round_costs(low, high)))
        _score_limits(axes)
    _label_lowest(panels, "Total cost (US dollars)")
    _legend(figure, shown.series, styles)
    return figure


def _round_costs(low: float, high: float) -> list[float]:
    """Ticks at 1, 2, 5, 10, 20, … between two costs, at most six."""
    exponents = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if low / 1.3 <= tick <= high * 1.3]
    return inside if len(inside) <= 6 else [tick for tick in inside if f"{tick:e}".startswith("1")]


FIGURES: dict[int, tuple[Callable[[Results], pd.DataFrame], Callable[[pd.DataFrame], Figure]]] = {
    1: (method, draw_method),
    2: (classification_by_budget, draw_by_budget),
    3: (nlg_by_budget, draw_by_budget),
    4: (teachers, draw_teachers),
    5: (by_amount, draw_by_amount),
    6: (by_route, draw_by_route),
    7: (by_cost, draw_by_cost),
}
"""For each figure, the function that makes its table and the one that draws it."""
