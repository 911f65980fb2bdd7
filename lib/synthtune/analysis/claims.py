"""The paper's claims, each with our number, its interval, and whether it holds here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthtune.analysis import statistics
from synthtune.analysis.figures import equal_amount
from synthtune.analysis.results import (
    ANNOTATED,
    BOTH,
    FINE_TUNED,
    FULL,
    GENERATED,
    GOLD,
    KIND_NAMES,
    METRIC,
    Results,
    corpora_sentence,
)
from synthtune.files import atomic_path

MARGIN = {"classification": 1.0, "nlg": 2.0}
"""How far half-and-half may stay behind all-annotated and still be "almost as good": accuracy or BLEU points.
"""

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"

SENTENCES = {
    "a": "With the fewest gold examples, adding examples annotated by the fine-tuned teacher makes the "
    "student better.",
    "b": "With the fewest gold examples, adding examples that the fine-tuned teacher generated makes "
    "the student better.",
    "c": "Synthetic data helps most where gold is scarcest: the gain at the smallest budget is larger "
    "than at the largest.",
    "d": "Returns diminish: on the NLG tasks, the more annotated data there is already, the less "
    "further data adds.",
    "e": "Half annotated, half generated is almost as good as all annotated at an equal amount: behind by "
    f"less than {MARGIN['classification']:g} accuracy point or {MARGIN['nlg']:g} BLEU points.",
    "f": "A fine-tuned small teacher beats prompting. The paper prompts GPT-3.5; here the stand-in is the "
    "teacher's own language model before fine-tuning, prompted with 0 and with several gold examples, "
    "and an endpoint's model if the settings name one. This is a weaker opponent than the paper's.",
    "g": "Synthetic data replaces a large part of the labels: with the fewest gold examples and annotated ones a student is "
    "as good as with many more gold examples alone. How many is read off the scores of gold at every budget and of all "
    "true labels, on a logarithmic scale; a student better than that of all true labels counts as the whole pool.",
}
"""Each claim in our own words, by its letter."""

RULE = (
    "A claim *holds* if the {confidence} interval lies wholly on the claim's side of the threshold, "
    "*does not hold* if it lies wholly on the other side, and is *not decided* otherwise. Intervals are "
    "percentile intervals of a paired bootstrap over seeds and test examples ({resamples:,} resamples; "
    "Koehn 2004): both are drawn again with replacement, the same draw for everything compared. Where a "
    "condition has one seed, the interval covers test examples only; with two or three, it understates "
    "the spread between seeds. A mean over tasks takes the tasks as they are, with no interval for which "
    "tasks were chosen. Nothing is corrected for the number of comparisons: read the means first."
)
"""How verdicts are reached; written at the top of claims.md."""


def verdict(low: float, high: float, threshold: float = 0.0) -> str:
    """Verdict on the claim that a number is above `threshold`, from its interval; NaN decides nothing."""
    if low > threshold:
        return HOLDS
    return FAILS if high < threshold else OPEN


def claims(results: Results) -> pd.DataFrame:
    """Every claim that the results allow to check, one row per task and one per mean over tasks.

    Returns
    -------
    DataFrame
        claim (letter), sentence, scope ("mean" or "task"), where (for people), quantity, unit, value, low,
        high, threshold, probability (share of the resamples above the threshold), seeds (fewest of any
        condition compared), test_examples, verdict.
    """
    rows = []
    for letter, by_task in (
        ("a", _gains(results, ANNOTATED, "gold+annotated minus gold")),
        ("b", _gains(results, GENERATED, "gold+generated minus gold")),
        ("c", _scarcity(results, ANNOTATED)),
        ("c", _scarcity(results, GENERATED)),
        ("d", _returns_per_example(results)),
        ("d", _returns_per_doubling(results)),
        ("e", _half_and_half(results)),
        *(("f", _against(results, system)) for system in _systems(results)),
        ("g", _worth(results)),
    ):
        checked = list(by_task)
        for kind in METRIC:
            of_kind = [entry for entry in checked if results.kind(entry["task"]) == kind]
            if len(of_kind) > 1:
                of_kind.insert(
                    0,
                    of_kind[0]
                    | {
                        "task": "",
                        "scores": np.mean([entry["scores"] for entry in of_kind], axis=0),
                        "at": of_kind[0]["at"] if len({entry["at"] for entry in of_kind}) == 1 else "",
                        "seeds": min(entry["seeds"] for entry in of_kind),
                        "test_examples": sum(entry["test_examples"] for entry in of_kind),
                        "count": len(of_kind),
                    },
                )
            rows += [_row(results, letter, kind, entry) for entry in of_kind]
    return pd.DataFrame(rows)


def _row(results: Results, letter: str, kind: str, entry: dict) -> dict:
    found = statistics.estimate(entry["scores"], results.settings.figures.confidence)
    threshold = entry.get("threshold", 0.0)
    draws = entry["scores"][1:]
    where = (
        results.title(entry["task"])
        if entry["task"]
        else f"mean of {entry['count']} {KIND_NAMES[kind]} tasks"
    )
    unit = entry.get("unit") or {"classification": "accuracy", "nlg": "BLEU"}[kind] + " points" + entry.get("per", "")
    return {
        "claim": letter,
        "sentence": SENTENCES[letter],
        "scope": "task" if entry["task"] else "mean",
        "where": where,
        "quantity": ", ".join(filter(None, (entry["quantity"], entry["at"]))),
        "unit": unit,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "threshold": threshold,
        "probability": float((draws > threshold).mean() + (draws == threshold).mean() / 2),
        "seeds": entry["seeds"],
        "test_examples": entry["test_examples"],
        "verdict": verdict(found.low, found.high, threshold),
    }


def _entry(
    results: Results, task: str, scores: np.ndarray, quantity: str, at: str, cells: list[tuple], **more: Any
) -> dict:
    """One number of one task: its meaning, the numbers of examples (`at`), and the cells (budget, condition, amount)
    that it compares.
    """
    rows = [results.rows(task, *cell) for cell in cells]
    record = statistics.examples_of(rows[0].kind.iloc[0], rows[0].per_example.iloc[0])
    return {
        "task": task,
        "scores": scores,
        "quantity": quantity,
        "at": at,
        "seeds": min(map(len, rows)),
        "test_examples": len(record),
        **more,
    }


def _gain(results: Results, task: str, budget: int, condition: str) -> tuple[np.ndarray, list[tuple]] | None:
    """Gain of a condition over gold at its headline amount, and the compared cells; None if one was not run.
    """
    condition_scores, gold = (
        results.resampled_cell(task, budget, condition),
        results.resampled_cell(task, budget, GOLD),
    )
    if condition_scores is None or gold is None:
        return None
    amount = results.headline_amount(task, budget, condition)
    return condition_scores - gold, [(budget, condition, amount), (budget, GOLD, 0)]


def _gains(results: Results, condition: str, quantity: str) -> Iterator[dict]:
    for task in results.tasks():
        budgets = results.budgets(task)
        gain = _gain(results, task, budgets[0], condition) if budgets else None
        if gain is not None:
            scores, cells = gain
            yield _entry(results, task, scores, quantity, f"{budgets[0]:,} gold + {cells[0][2]:,}", cells)


def _scarcity(results: Results, condition: str) -> Iterator[dict]:
    for task in results.tasks():
        budgets = results.budgets(task)
        if len(budgets) < 2:
            continue
        first, last = (_gain(results, task, budget, condition) for budget in (budgets[0], budgets[-1]))
        if first is not None and last is not None:
            yield _entry(
                results,
                task,
                first[0] - last[0],
                f"gain of {condition} at the smallest budget minus at the largest",
                f"{budgets[0]:,} and {budgets[-1]:,} gold",
                first[1] + last[1],
            )


def _sweep(results: Results, task: str) -> tuple[int, list[int]]:
    """The budget with the most amounts of annotated data, and those amounts."""
    swept = {budget: results.amounts(task, budget, ANNOTATED) for budget in results.budgets(task)}
    budget = max(swept, key=lambda budget: (len(swept[budget]), -budget), default=0)
    return budget, swept.get(budget, [])


def _returns_per_example(results: Results) -> Iterator[dict]:
    """Slope from gold alone to the smallest amount, minus slope from the last amount but one to the last."""
    for task in results.tasks("nlg"):
        budget, amounts = _sweep(results, task)
        gold = results.resampled_cell(task, budget, GOLD)
        if len(amounts) < 2 or gold is None:
            continue
        first, before, last = (
            results.resampled_cell(task, budget, ANNOTATED, amount) for amount in (amounts[0], *amounts[-2:])
        )
        slopes = 100 * ((first - gold) / amounts[0] - (last - before) / (amounts[-1] - amounts[-2]))
        at = f"0 to {amounts[0]:,} and {amounts[-2]:,} to {amounts[-1]:,}, {budget:,} gold"
        cells = [(budget, GOLD, 0), *((budget, ANNOTATED, amount) for amount in (amounts[0], *amounts[-2:]))]
        yield _entry(
            results,
            task,
            slopes,
            "gain per 100 annotated examples, first step minus last",
            at,
            cells,
            per=" per 100 examples",
        )


def _returns_per_doubling(results: Results) -> Iterator[dict]:
    """The stronger form of the claim, a curve that flattens even on a logarithmic axis: first step minus last step,
    per doubling.
    """
    for task in results.tasks("nlg"):
        budget, amounts = _sweep(results, task)
        if len(amounts) < 3:
            continue
        steps = [(amounts[0], amounts[1]), (amounts[-2], amounts[-1])]
        gains = [
            (
                results.resampled_cell(task, budget, ANNOTATED, upper)
                - results.resampled_cell(task, budget, ANNOTATED, lower)
            )
            / math.log2(upper / lower)
            for lower, upper in steps
        ]
        at = f"{steps[0][0]:,} to {steps[0][1]:,} and {steps[1][0]:,} to {steps[1][1]:,}, {budget:,} gold"
        cells = [(budget, ANNOTATED, amount) for step in steps for amount in step]
        yield _entry(
            results,
            task,
            gains[0] - gains[1],
            "gain per doubling of annotated examples, first step minus last",
            at,
            cells,
            per=" per doubling",
        )


def _half_and_half(results: Results) -> Iterator[dict]:
    for task in results.tasks():
        budget = min(results.budgets(task), default=0)
        amount = equal_amount(results, task, budget)
        if amount is None:
            continue
        both, annotated = (results.resampled_cell(task, budget, route, amount) for route in (BOTH, ANNOTATED))
        if both is not None and annotated is not None:
            yield _entry(
                results,
                task,
                both - annotated,
                "gold+both minus gold+annotated",
                f"{budget:,} gold + {amount:,}",
                [(budget, BOTH, amount), (budget, ANNOTATED, amount)],
                threshold=-MARGIN[results.kind(task)],
            )


def _systems(results: Results) -> list[str]:
    """Prompted systems, in the order of the results."""
    return [system for system in dict.fromkeys(results.teachers.system) if system != FINE_TUNED]


def _against(results: Results, system: str) -> Iterator[dict]:
    for task in results.tasks():
        rows = results.teachers[results.teachers.task == task]
        budget = min((int(budget) for budget in rows.budget), default=0)
        if not len(results.teacher(task, budget)) or not len(results.teacher(task, budget, system)):
            continue
        scores = results.resampled_systems(task, budget, [FINE_TUNED, system])
        row = results.teacher(task, budget, system).iloc[0]
        yield {
            "task": task,
            "scores": scores[FINE_TUNED] - scores[system],
            "seeds": 1,
            "quantity": f"fine-tuned teacher minus {system}",
            "at": f"{budget:,} gold",
            "test_examples": len(statistics.examples_of(row.kind, row.per_example)),
        }


def _worth(results: Results) -> Iterator[dict]:
    """Number of gold examples with which gold alone reaches the score of gold+annotated at the smallest budget."""
    for task in results.tasks():
        budgets, full = results.budgets(task), results.ceiling(task)
        cells = [(budget, GOLD, 0) for budget in budgets]
        if len(full):
            cells.append((int(full.budget.iloc[0]), FULL, 0))
        reached = results.resampled_cell(task, budgets[0], ANNOTATED) if budgets else None
        curve = [results.resampled_cell(task, *cell) for cell in cells]
        if reached is None or len(curve) < 2 or any(scores is None for scores in curve):
            continue
        labels = np.log([budget for budget, _, _ in cells])
        # More labels never make a student worse; where they seem to, that is the spread of seeds.
        rising = np.maximum.accumulate(np.stack(curve), axis=0)
        found = np.exp([np.interp(score, scores, labels) for score, scores in zip(reached, rising.T, strict=True)])
        amount = results.headline_amount(task, budgets[0], ANNOTATED)
        yield _entry(
            results,
            task,
            found,
            "labels with which gold alone is as good as gold+annotated",
            f"{budgets[0]:,} gold + {amount:,}",
            [*cells, (budgets[0], ANNOTATED, amount)],
            unit="labels",
            threshold=float(budgets[0]),
        )


def markdown(checked: pd.DataFrame, results: Results) -> str:
    """The claims as a Markdown page: the rule, the means of all claims, then every number."""
    settings = results.settings
    lines = [
        "# The paper's claims, checked",
        "",
        RULE.format(
            confidence=f"{100 * settings.figures.confidence:g} %", resamples=settings.figures.resamples
        ),
        "",
        corpora_sentence(results.tasks(), settings),
        "",
    ]
    means = checked[checked.scope == "mean"] if len(checked) else checked
    if len(means):
        lines += [
            "## At a glance",
            "",
            "Means over tasks of one kind.",
            "",
            *_rows(means, ["claim", "where", "quantity", "number", "interval", "verdict"]),
            "",
        ]
    for letter in SENTENCES:
        lines += [f"## Claim {letter}", "", SENTENCES[letter], ""]
        rows = checked[checked.claim == letter] if len(checked) else checked
        if len(rows):
            lines += [
                *_rows(
                    rows,
                    [
                        "where",
                        "quantity",
                        "number",
                        "interval",
                        "probability",
                        "seeds",
                        "test examples",
                        "verdict",
                    ],
                ),
                "",
            ]
        else:
            lines += ["Not checked: this run has no results for it.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(rows: pd.DataFrame, columns: list[str]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for cells in printed(rows, columns):
        lines.append(
            "| "
            + " | ".join(
                f"**{cell}**" if column == "verdict" else cell for column, cell in zip(columns, cells)
            )
            + " |"
        )
    return lines


def printed(rows: pd.DataFrame, columns: list[str]) -> list[list[str]]:
    """Rows of `claims` with their numbers formatted: "number", "interval", "probability" and "test examples"
    are text.
    """
    texts = []
    for row in rows.itertuples():
        number = "{:,.0f}" if row.unit == "labels" else "{:+.2f}"
        against = "" if row.threshold == 0 else f" (threshold {'' if row.unit == 'labels' else '+' * (row.threshold > 0)}{row.threshold:g})"
        cells = {
            "claim": row.claim,
            "where": row.where,
            "quantity": row.quantity,
            "number": f"{number.format(row.value)} {row.unit}",
            "interval": f"{number.format(row.low)} to {number.format(row.high)}{against}",
            "probability": f"{row.probability:.3f}",
            "seeds": str(row.seeds),
            "test examples": f"{row.test_examples:,}",
            "verdict": row.verdict,
        }
        texts.append([cells[column] for column in columns])
    return texts


def write(run_dir: str | Path, settings: Any) -> list[Path]:
    """Write claims.md and claims.csv into `run_dir`/figures and return their paths."""
    results = Results.read(run_dir, settings)
    checked = claims(results)
    written = []
    for name, text in (
        ("claims.md", markdown(checked, results)),
        ("claims.csv", checked.to_csv(index=False, float_format="%.6g")),
    ):
        path = Path(run_dir) / "figures" / name
        with atomic_path(path) as temporary:
            temporary.write_text(text, "utf-8")
        written.append(path)
    return written
