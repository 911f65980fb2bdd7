"""Uncertainty of a number: intervals over seeds, and a paired bootstrap over seeds and test examples.

A student's score varies with the seed it was trained with and with the test examples. The bootstrap draws both again,
thousands of times, and uses the same draw for every condition, so that examples which are hard for all conditions cancel
in their difference.
"""

import math
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from synthtune.metrics import ORDERS, STATISTICS, main_metric

# For each cell (any name), for each seed, the per-example record: (N,) right or wrong, or (N, 10) for BLEU.
Cells = Mapping[Hashable, Mapping[int, np.ndarray]]


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, and how often the bootstrap found it above a threshold.

    Attributes
    ----------
    value, low, high : float
        In the metric's unit, percentage points.
    probability : float
        Share of the resamples in which the number is above the threshold, ties counted half.
    """

    value: float
    low: float
    high: float
    probability: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean over seeds and its Student t interval.

    Returns
    -------
    tuple
        mean, low, high; low and high are NaN for a single value.
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def bleu_of_totals(totals: np.ndarray) -> np.ndarray:
    """Corpus BLEU of many corpora at once, from their summed statistics: `metrics.bleu_from`, vectorised.

    sacrebleu scores one corpus a call; a run's bootstrap needs hundreds of thousands.

    Parameters
    ----------
    totals : array of shape (..., 10)

    Returns
    -------
    array of shape (...)
        BLEU in percent, with exponential smoothing, of those orders of n-grams for which the texts are long enough (effective order).
    """
    totals = np.asarray(totals, dtype=float)
    matched, total = totals[..., :ORDERS], totals[..., ORDERS : 2 * ORDERS]
    output, reference = totals[..., -2], totals[..., -1]
    present = total > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        # The k-th order without a match counts as 1/2^k of one match.
        smoothed = np.where(matched == 0, 0.5 ** np.cumsum(matched == 0, axis=-1), matched)
        logs = np.where(present, np.log(100 * smoothed / total), 0.0).sum(axis=-1) / present.sum(axis=-1)
        brevity = np.where(output < reference, np.exp(1 - reference / output), 1.0)
        scores = brevity * np.exp(logs)
    return np.where(matched.sum(axis=-1) > 0, scores, 0.0)


def score(examples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy or BLEU of weighted test sets.

    Parameters
    ----------
    examples : array of shape (N,) or (N, 10)
        Right or wrong, or BLEU statistics.
    weights : array of shape (R, N)
        How often each example was drawn in each of R resamples.

    Returns
    -------
    array of shape (R,)
        Percent.
    """
    totals = weights @ examples
    return 100 * totals / weights.sum(axis=1) if examples.ndim == 1 else bleu_of_totals(totals)


def examples_of(task_type: str, per_example: Sequence[float]) -> np.ndarray:
    """The per-example record of a results row in the shape that `score` takes: (N,) or, for BLEU, (N, 10)."""
    record = np.asarray(per_example, dtype=float)
    return record.reshape(-1, STATISTICS) if main_metric(task_type) == "bleu" else record


def resample(cells: Cells, resamples: int, seed: int, stream: str = "") -> dict[Hashable, np.ndarray]:
    """Score every cell of one task on the same bootstrap resamples of test examples and seeds.

    Each resample draws N test examples with replacement, the same for all cells; and, of a cell's S seeds, S
    with replacement, the same for all cells trained with the same seeds. With few seeds this understates the
    spread between them (by a factor of sqrt(2/3) for three); with one seed only the test examples vary.

    Parameters
    ----------
    cells : mapping of name to (mapping of seed to record)
        All records must be of the same N test examples in the same order.
    resamples : int
        R.
    seed : int
    stream : str
        Name of the task: two tasks get independent draws from one seed.

    Returns
    -------
    dict
        For each cell an array of shape (R + 1,): first the score on the test set as it is, then the
        resamples.

    Raises
    ------
    ValueError
        If the cells were not scored on the same number of test examples.

    Source
    ------
    Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation.
    """
    sizes = {len(record) for records in cells.values() for record in records.values()}
    if len(sizes) > 1:
        raise ValueError(f"The cells {stream and 'of ' + stream + ' '}were scored on test sets of different sizes "
                         f"({sorted(sizes)}): paired comparison needs one test set. Delete their results and run again.")
    if not sizes:
        return {}
    size = sizes.pop()
    generator = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
    weights = np.vstack([np.ones(size), drawn])
    seed_weights: dict[tuple[int, ...], np.ndarray] = {}
    for seeds in sorted({tuple(sorted(records)) for records in cells.values()}):
        drawn = generator.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=resamples)
        seed_weights[seeds] = np.vstack([np.ones(len(seeds)), drawn]) / len(seeds)
    scores = {}
    for name, records in cells.items():
        seeds = tuple(sorted(records))
        by_seed = np.column_stack([score(records[one], weights) for one in seeds])
        scores[name] = (by_seed * seed_weights[seeds]).sum(axis=1)
    return scores


def of_the_best(cells: Cells, baseline: Hashable, resamples: int, seed: int) -> float:
    """Gain of the best cell over the baseline, corrected for choosing and measuring it on the same examples.

    Each resample chooses the best cell on the examples that it drew, and measures it on the examples that it did not draw.

    Parameters
    ----------
    cells : mapping of name to (mapping of seed to record)
        As for `resample`; the baseline is among them.
    baseline : name of a cell
    resamples : int
    seed : int

    Returns
    -------
    float
        Mean over the resamples, in points.

    Source
    ------
    Tsamardinos, Greasidou and Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation.
    """
    size = len(next(iter(cells[baseline].values())))
    generator = np.random.default_rng([seed, size])
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
    drawn = drawn[(drawn == 0).any(axis=1)]
    names = list(cells)
    inside, outside = (np.stack([np.mean([score(record, weights) for record in cells[name].values()], axis=0) for name in names])
                       for weights in (drawn, (drawn == 0).astype(float)))
    chosen = outside[inside.argmax(axis=0), np.arange(len(drawn))]
    return float((chosen - outside[names.index(baseline)]).mean())


def estimate(resampled: np.ndarray, confidence: float = 0.95, threshold: float = 0.0) -> Estimate:
    """Percentile interval of a number computed on resamples.

    Parameters
    ----------
    resampled : array of shape (R + 1,)
        As `resample` returns, or any difference or mean of such arrays: the first entry is the number itself.
    confidence, threshold : float
    """
    value, draws = float(resampled[0]), resampled[1:]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), float((draws > threshold).mean() + (draws == threshold).mean() / 2))
