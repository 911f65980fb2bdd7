"""The paper's claims, each with our number, its interval, and whether it holds here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthtune.analysis import statistics
from synthtune.analysis.report import rendered
from synthtune.analysis.results import FINE_TUNED, TYPE_NAMES, Results, corpora_sentence, where, write_texts
from synthtune.conditions import ANNOTATED, BOTH, CONDITIONS, FULL, GENERATED, GOLD
from synthtune.files import read_yaml
from synthtune.metrics import METRICS, main_metric

# How far half-and-half may stay behind all-annotated and still be "almost as good": accuracy or BLEU points.
MARGIN = {"classification": 1.0, "generation": 2.0}

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"

# Each claim in our own words, by its letter.
SENTENCES = {letter: said.format(**MARGIN) for letter, said in read_yaml(Path(__file__).with_name("claims.yaml")).items()}


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
    systems = [system for system in dict.fromkeys(results.teachers.system) if system != FINE_TUNED]
    checks: list[tuple[str, Callable, Any]] = [
        ("a", _gain, ANNOTATED), ("b", _gain, GENERATED), ("c", _scarcity, ANNOTATED), ("c", _scarcity, GENERATED),
        ("d", _returns, "example"), ("d", _returns, "doubling"), ("e", _half_and_half, BOTH),
        *(("f", _against, system) for system in systems), ("g", _worth, None)]
    rows = []
    for letter, check, of in checks:
        for task_type in TYPE_NAMES:
            entries = [check(results, task, of) for task in results.tasks(task_type) if results.budgets(task)]
            entries = [entry for entry in entries if entry is not None]
            if len(entries) > 1:
                mean = {"task": "", "scores": np.mean([entry["scores"] for entry in entries], axis=0),
                        "at": entries[0]["at"] if len({entry["at"] for entry in entries}) == 1 else "",
                        "seeds": min(entry["seeds"] for entry in entries),
                        "test_examples": sum(entry["test_examples"] for entry in entries), "count": len(entries)}
                entries.insert(0, entries[0] | mean)
            rows += [_row(results, letter, task_type, entry) for entry in entries]
    return pd.DataFrame(rows)


def _row(results: Results, letter: str, task_type: str, entry: dict) -> dict:
    threshold = entry.get("threshold", 0.0)
    found = results.estimate(entry["scores"], threshold)
    metric = METRICS[main_metric(task_type)]
    return {
        "claim": letter, "sentence": SENTENCES[letter], "scope": "task" if entry["task"] else "mean",
        "where": results.title(entry["task"]) if entry["task"] else f"mean of {entry['count']} {TYPE_NAMES[task_type]} tasks",
        "quantity": ", ".join(filter(None, (entry["quantity"], entry["at"]))),
        "unit": entry.get("unit") or f"{metric.in_sentences} points{entry.get('per', '')}",
        "value": found.value, "low": found.low, "high": found.high, "threshold": threshold, "probability": found.probability,
        "seeds": entry["seeds"], "test_examples": entry["test_examples"], "verdict": verdict(found.low, found.high, threshold)}


# A budget, a condition and an amount; the amount is None where the condition was not run.
Cell = tuple[int, str, int | None]


def _headline(results: Results, task: str, budget: int, condition: str) -> Cell:
    return budget, condition, results.headline_amount(task, budget, condition)


def _entry(results: Results, task: str, cells: list[Cell], of: Callable[..., np.ndarray], quantity: str, at: str,
           **more: Any) -> dict | None:
    """One number of one task; None if a cell that it compares was not run.

    Parameters
    ----------
    cells : list
        What is compared.
    of : function
        The number, from the bootstrap scores of each of them.
    quantity, at : str
        What the number means, and for which numbers of examples it is.
    """
    scores = [results.resampled[task].get(cell) for cell in cells]
    if any(each is None for each in scores):
        return None
    rows = [results.rows(task, *cell) for cell in cells]
    record = statistics.examples_of(rows[0].task_type.iloc[0], rows[0].per_example.iloc[0])
    return {"task": task, "scores": of(*scores), "quantity": quantity, "at": at, "seeds": min(map(len, rows)),
            "test_examples": len(record), **more}


def _gain(results: Results, task: str, condition: str) -> dict | None:
    """Gain of a condition over gold, at the smallest budget."""
    budget = results.budgets(task)[0]
    cells = [_headline(results, task, budget, name) for name in (condition, GOLD)]
    return _entry(results, task, cells, np.subtract, f"{condition} minus gold", f"{budget:,} gold + {cells[0][2] or 0:,}")


def _scarcity(results: Results, task: str, condition: str) -> dict | None:
    """Gain of a condition over gold at the smallest budget minus that at the largest."""
    first, last = results.budgets(task)[0], results.budgets(task)[-1]
    if first == last:
        return None
    cells = [_headline(results, task, budget, name) for budget in (first, last) for name in (condition, GOLD)]
    return _entry(results, task, cells, lambda most, gold, least, more: (most - gold) - (least - more),
                  f"gain of {condition} at the smallest budget minus at the largest", f"{first:,} and {last:,} gold")


def _returns(results: Results, task: str, unit: str) -> dict | None:
    """First step minus last step of the amount of annotated examples, in text generation.

    Per example the first step is that from gold alone to the smallest amount. Per doubling, it is that between the two
    smallest amounts, and the claim is stronger: the curve flattens even on a logarithmic axis.
    """
    budget = results.swept_budget(task, [ANNOTATED])
    if results.task_type(task) != "generation" or budget is None:
        return None
    amounts = results.amounts(task, budget, ANNOTATED)
    steps = [0, *amounts] if unit == "example" else amounts
    if len(steps) < 3:
        return None
    (a, b), (c, d) = steps[:2], steps[-2:]
    cells = [(budget, ANNOTATED if amount else GOLD, amount) for amount in (a, b, c, d)]
    first, last = ((high - low) / 100 if unit == "example" else math.log2(high / low) for low, high in ((a, b), (c, d)))
    gain, per = {"example": ("100 annotated examples", "100 examples"), "doubling": ("doubling of annotated examples", "doubling")}[unit]
    return _entry(results, task, cells, lambda at_a, at_b, at_c, at_d: (at_b - at_a) / first - (at_d - at_c) / last,
                  f"gain per {gain}, first step minus last", f"{a:,} to {b:,} and {c:,} to {d:,}, {budget:,} gold", per=f" per {per}")


def _half_and_half(results: Results, task: str, condition: str) -> dict | None:
    budget = results.budgets(task)[0]
    amount = results.equal_amount(task, budget)
    return _entry(results, task, [(budget, condition, amount), (budget, ANNOTATED, amount)], np.subtract,
                  f"{condition} minus gold+annotated", f"{budget:,} gold + {amount or 0:,}",
                  threshold=-MARGIN[results.task_type(task)])


def _against(results: Results, task: str, system: str) -> dict | None:
    """The fine-tuned teacher against a prompted model, at the smallest budget that has a teacher."""
    budget = min((int(budget) for budget in where(results.teachers, task=task).budget), default=0)
    compared = [results.teacher(task, budget, name) for name in (FINE_TUNED, system)]
    if not all(map(len, compared)):
        return None
    scores = results.resampled_systems(task, budget, [FINE_TUNED, system])
    row = compared[1].iloc[0]
    return {"task": task, "scores": scores[FINE_TUNED] - scores[system], "seeds": 1,
            "quantity": f"fine-tuned teacher minus {system}", "at": f"{budget:,} gold",
            "test_examples": len(statistics.examples_of(row.task_type, row.per_example))}


def _worth(results: Results, task: str, _: None) -> dict | None:
    """Number of gold examples with which gold alone reaches the score of the best condition at the smallest budget."""
    budgets, full = results.budgets(task), results.ceiling(task)
    curve: list[Cell] = [(budget, GOLD, 0) for budget in budgets]
    if len(full):
        curve.append((int(full.budget.iloc[0]), FULL, 0))
    if len(curve) < 2:
        return None
    labels = np.log([budget for budget, _, _ in curve])

    def worth(*scores: np.ndarray) -> np.ndarray:
        # More labels never make a student worse; where they seem to, that is the spread of seeds.
        rising = np.maximum.accumulate(np.stack(scores[:-1]), axis=0)
        found = np.exp([np.interp(score, at, labels) for score, at in zip(scores[-1], rising.T, strict=True)])
        return np.where(scores[-1] > rising[0], found, budgets[0])  # no fewer labels were tried; exactly, for the verdict

    tried = [_headline(results, task, budgets[0], name) for name, condition in CONDITIONS.items() if condition.shares]
    scores = {cell: results.resampled[task][cell][0] for cell in tried if cell in results.resampled[task]}
    if not scores:
        return None
    best = max(scores, key=scores.get)
    return _entry(results, task, [*curve, best], worth, "labels with which gold alone is as good as the best condition",
                  f"{best[1]}, {budgets[0]:,} gold + {best[2]:,}", unit="labels", threshold=float(budgets[0]))


def markdown(checked: pd.DataFrame, results: Results) -> str:
    """The claims as a Markdown page: the rule, the means of all claims, then every number."""
    figures = results.settings.figures
    return rendered("claims.md.jinja", checked=[_cells(row) for row in checked.itertuples()], sentences=SENTENCES,
                    confidence=f"{100 * figures.confidence:g} %", resamples=f"{figures.resamples:,}",
                    corpora=corpora_sentence(results.tasks(), results.settings))


def _cells(row: Any) -> dict[str, Any]:
    """A checked claim as the page shows it, by column: numbers are texts."""
    number = "{:,.0f}" if row.unit == "labels" else "{:+.2f}"
    against = "" if row.threshold == 0 else f" (threshold {'' if row.unit == 'labels' else '+' * (row.threshold > 0)}{row.threshold:g})"
    return row._asdict() | {
        "number": f"{number.format(row.value)} {row.unit}", "probability": f"{row.probability:.3f}",
        "interval": f"{number.format(row.low)} to {number.format(row.high)}{against}",
        "test examples": f"{row.test_examples:,}", "verdict": f"**{row.verdict}**"}


def write(run_dir: str | Path, settings: Any) -> list[Path]:
    """Write claims.md and claims.csv into `run_dir`/figures and return their paths."""
    results = Results.read(run_dir, settings)
    checked = claims(results)
    return write_texts(Path(run_dir) / "figures", {"claims.md": markdown(checked, results),
                                                   "claims.csv": checked.to_csv(index=False, float_format="%.6g")})
