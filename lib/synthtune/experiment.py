"""The cells of the study: which students are trained, and on which examples each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from synthtune.conditions import ANNOTATED, CONDITIONS, FULL, GOLD, HARD, condition
from synthtune.errors import StageError
from synthtune.settings import Settings
from synthtune.tasks.example import log_probability

if TYPE_CHECKING:
    from synthtune.context import Context

# The routes to synthetic examples, by the objective of the teacher that each takes.
ROUTES = {"annotate": "annotated", "generate": "generated"}
# What a prompted model annotates beside the teacher (`annotate.beside`).
PROMPTED_ROUTE = "prompted"
# Share of an amount that is as good as the amount.
NEARLY = 0.9


@dataclass(frozen=True)
class Cell:
    """One student run: task × budget × condition × amount × seed."""

    budget: int
    condition: str
    amount: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One training example of a student: text, output and, where a classifier learns from it, the distribution over labels."""

    text: str
    output: str
    soft: tuple[float, ...] | None = None


def cells(context: Context) -> list[Cell]:
    """The cells of a task, in the order in which they are run.

    Each route with all that it gave, at every budget and seed; half of each, as many as the smaller route gave; the ceiling;
    and, at the smallest budget, what figures 5 and 6 and the claims compare there besides: annotated examples at smaller
    amounts (NLG), as many as the smaller route gave, and these with hard labels (classification). A route that gave nothing
    is no condition; one that gave nearly as little as the other is cut to as many.

    Raises
    ------
    StageError
        If the annotated or generated examples of a budget have not been made.
    """
    settings, there = context.settings, {}
    for here in map(context.at, settings.budgets):
        there[here.budget] = {made: len(synthetic(here.folder / f"{made}.parquet")) for made in routes(here.budget, settings)}
    return cells_given(there, len(context.task.pool), context.task.task_type, settings)


def cells_given(there: dict[int, dict[str, int]], pool: int, task_type: str, settings: Settings) -> list[Cell]:
    """The cells of a task of which so many examples are there: by budget, and then by route."""
    chosen, found = settings.students, []
    smallest = settings.budgets[0]
    for budget in settings.budgets:
        seeds = chosen.seeds if budget == smallest else chosen.seeds_larger
        most = {route: there[budget].get(route, 0) for route in ROUTES.values()}
        equal = min(most.values())
        if equal >= NEARLY * max(most.values()):
            most = dict.fromkeys(most, equal)
        most[PROMPTED_ROUTE] = min(there[budget].get(PROMPTED_ROUTE, 0), most["annotated"])
        wanted = list(amounts(most).items())
        if budget == smallest:
            wanted.append((ANNOTATED, equal))
            # A prompted model's labels are hard in any case.
            if task_type == "classification" and chosen.synthetic_labels == "soft" and settings.annotate.source != "endpoint":
                wanted.append((HARD, equal))
        found += [Cell(budget, condition, amount, seed) for seed in seeds for condition, amount in wanted if amount or condition == GOLD]
    found += [Cell(pool, FULL, 0, seed) for seed in chosen.seeds_full]
    if task_type == "generation":
        most = there[smallest]["annotated"]
        found += [Cell(smallest, ANNOTATED, min(amount, most), seed) for seed in chosen.seeds_larger for amount in chosen.sweep if most]
    return list(dict.fromkeys(found))


def amounts(there: dict[str, int]) -> dict[str, int]:
    """Synthetic examples of each condition, from how many each route gave: all of its route's; of several, as many as the smallest."""
    return {name: min((there.get(route, 0) for route in each.shares), default=0) for name, each in CONDITIONS.items()}


def routes(budget: int, settings: Settings) -> list[str]:
    """The routes that give synthetic examples at a budget."""
    beside = [PROMPTED_ROUTE] if settings.annotate.beside else []
    return [ROUTES[objective] for objective in settings.objectives(budget)] + beside


def training_rows(context: Context, cell: Cell) -> tuple[list[Row], dict[str, int]]:
    """The examples a cell trains on, and how many of each kind.

    Raises
    ------
    StageError
        If the annotated or generated examples it needs have not been made.
    """
    task, settings, here = context.task, context.settings, context.at(cell.budget)
    if cell.condition == FULL:
        rows = [Row(example.text, example.target) for example in task.pool]
        return rows, {"n_gold": len(rows), "n_annotated": 0, "n_generated": 0}
    gold = [Row(example.text, example.target) for example in here.gold]
    soft = task.labels if settings.students.synthetic_labels == "soft" and cell.condition != HARD else ()
    # The annotator has no say in pairs that keep the label they were sampled with, and a prompted model says labels alone.
    labels = {"annotated": soft, "generated": () if settings.generate.labels == "raw" else soft}
    added = {route: synthetic_rows(synthetic(here.folder / f"{route}.parquet").head(number), labels.get(route, ()), settings)
             for route, number in shares(cell).items()}
    return gold + [row for rows in added.values() for row in rows], {
        "n_gold": len(gold), "n_annotated": sum(len(rows) for route, rows in added.items() if route != "generated"),
        "n_generated": len(added.get("generated", []))}


def shares(cell: Cell) -> dict[str, int]:
    """How many examples of each of its routes a cell trains on, the first that were kept."""
    found = {route: int(cell.amount * share) for route, share in condition(cell.condition).shares.items()}
    if found:  # what rounding leaves is the first route's
        found[next(iter(found))] += cell.amount - sum(found.values())
    return found


def synthetic(path: Path) -> pd.DataFrame:
    """Synthetic pairs a student can be trained on: what is kept of the table that annotation or generation wrote."""
    if not path.exists():
        raise StageError(f"{path} is missing: run 0{3 if 'generated' in path.name else 2} for this budget first.")
    table = pd.read_parquet(path)
    return table[table["dropped"] == ""]


def synthetic_rows(kept: pd.DataFrame, labels: Sequence[str], settings: Settings) -> list[Row]:
    """Synthetic pairs as training examples, with soft labels if the labels are given.

    A soft label is the annotating teacher's distribution over the labels, softmax(log P / temperature) (Hinton et al. 2015).
    """
    soft: Sequence[Any] = [None] * len(kept)
    if labels:
        import torch  # planning a run needs no more of this module than which cells there are

        logs = torch.tensor(kept[[*map(log_probability, labels)]].to_numpy(float)) / settings.students.temperature
        soft = [tuple(row) for row in logs.softmax(-1).tolist()]
    return [Row(*row) for row in zip(kept["text"], kept["output"], soft, strict=True)]


def steps(context: Context, cell: Cell, rows: Sequence[Row]) -> int:
    """Optimizer steps of a cell: as many as its examples take by the settings.

    Gold alone takes as many as with all annotated examples of its budget: no gain is owed to longer training.
    """
    number, annotated = len(rows), context.at(cell.budget).folder / "annotated.parquet"
    if cell.condition == GOLD and annotated.exists():
        number += len(synthetic(annotated))
    return context.settings.steps(number)
