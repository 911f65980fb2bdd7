"""Intervals against known answers; the vectorised BLEU against sacrebleu's."""

import numpy as np
import pytest
from scipy import stats
from synthtune import metrics
from synthtune.analysis import statistics


def bleu_rows(generator, rows, quality=0.6):
    """Plausible BLEU statistics of made-up texts, shape (rows, 10)."""
    length = generator.integers(3, 25, rows)
    totals = np.maximum(length[:, None] - np.arange(4), 0)
    matched = generator.binomial(totals, quality ** np.arange(1, 5))
    return np.column_stack([matched, totals, length, generator.integers(3, 25, rows)])


def difference(condition, baseline, seed=0, resamples=2000):
    """Estimate of `condition` minus `baseline`, each by seed."""
    drawn = statistics.resample({"condition": condition, "baseline": baseline}, resamples, seed)
    return statistics.estimate(drawn["condition"] - drawn["baseline"])


def test_t_interval():
    mean, low, high = statistics.mean_interval([1.0, 2.0, 3.0, 6.0])
    expected = stats.t.interval(0.95, 3, loc=3, scale=stats.sem([1, 2, 3, 6]))
    assert mean == 3 and (low, high) == pytest.approx(expected)
    mean, low, high = statistics.mean_interval([5.0])
    assert mean == 5 and np.isnan(low) and np.isnan(high)


def test_vectorised_bleu_equals_sacrebleu():
    generator = np.random.default_rng(0)
    corpora = [bleu_rows(generator, 30, quality) for quality in np.linspace(0, 1, 40)]
    corpora += [bleu_rows(generator, 1, 0.2) for _ in range(40)]
    corpora += [
        np.zeros((1, 10), int),
        np.array([[1, 0, 0, 0, 2, 1, 0, 0, 2, 2]]),
        np.array([[3, 0, 0, 0, 5, 4, 3, 2, 5, 9]]),
    ]
    found = statistics.bleu_of_totals(np.array([rows.sum(axis=0) for rows in corpora]))
    assert found == pytest.approx([metrics.bleu_from(rows) for rows in corpora], abs=1e-9)


def test_point_estimate_is_the_difference_of_means_over_seeds():
    generator = np.random.default_rng(1)
    better = {seed: generator.binomial(1, 0.8, 400).astype(float) for seed in range(3)}
    worse = {seed: generator.binomial(1, 0.7, 400).astype(float) for seed in range(3)}
    found = difference(better, worse, seed=4)
    expected = 100 * (np.mean(list(better.values())) - np.mean(list(worse.values())))
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high and found.probability > 0.95
    assert found == difference(better, worse, seed=4)
    assert found != difference(better, worse, seed=5)


def test_pairing_cancels_what_is_hard_for_both():
    generator = np.random.default_rng(2)
    hard = generator.binomial(1, 0.6, 500).astype(float)
    better = hard.copy()
    better[np.flatnonzero(hard == 0)[:15]] = 1
    found = difference({0: better}, {0: hard})
    assert found.value == pytest.approx(3)
    assert found.high - found.low < 4  # two independent samples of this size would give about 12
    same = difference({0: hard}, {0: hard})
    assert (same.value, same.low, same.high, same.probability) == (0, 0, 0, 0.5)


def test_single_seed_interval_has_the_binomial_width():
    record = np.zeros(900)
    record[:630] = 1
    found = statistics.estimate(statistics.resample({"cell": {0: record}}, 8000, 0)["cell"])
    half = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 900)
    assert (found.low, found.high) == pytest.approx((70 - half, 70 + half), abs=0.25)


def test_spread_between_seeds_widens_the_interval():
    record = np.tile([1.0, 0.0], 300)
    alike = {seed: record for seed in range(3)}
    spread = {0: np.ones(600), 1: record, 2: np.zeros(600)}
    width = [
        statistics.estimate(statistics.resample({"cell": cell}, 1000, 0)["cell"]) for cell in (alike, spread)
    ]
    assert width[1].high - width[1].low > 3 * (width[0].high - width[0].low)


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(150):
        chance = generator.beta(4, 2, 200)
        better = {0: (generator.random(200) < np.minimum(chance + 0.05, 1)).astype(float)}
        worse = {0: (generator.random(200) < chance).astype(float)}
        truth = 100 * np.mean(np.minimum(chance + 0.05, 1) - chance)
        found = difference(better, worse, resamples=300)
        covered += found.low <= truth <= found.high
    assert 0.88 * 150 <= covered


def test_bleu_difference_and_draws_shared_between_cells():
    generator = np.random.default_rng(3)
    good = {seed: bleu_rows(generator, 200, 0.8) for seed in range(2)}
    poor = {seed: bleu_rows(generator, 200, 0.5) for seed in range(2)}
    scores = statistics.resample({"good": good, "poor": poor, "again": good}, 500, 0, "webnlg")
    assert scores["good"][0] == pytest.approx(np.mean([metrics.bleu_from(rows) for rows in good.values()]))
    assert (scores["good"] == scores["again"]).all()
    assert statistics.estimate(scores["good"] - scores["poor"]).low > 0
    other = statistics.resample({"good": good}, 500, 0, "sgd")
    assert not (other["good"][1:] == scores["good"][1:]).all()


def test_different_test_sets_cannot_be_paired():
    with pytest.raises(ValueError, match="different sizes"):
        difference({0: np.ones(5)}, {0: np.ones(6)})


def test_examples_of_reads_a_results_row():
    assert statistics.examples_of("classification", [1.0, 0.0]).shape == (2,)
    assert statistics.examples_of("generation", [0.0] * 30).shape == (3, 10)


def test_the_gain_of_the_best_of_equals_is_zero_though_it_was_chosen_where_it_is_measured():
    generator = np.random.default_rng(3)
    measured, corrected = [], []
    for number in range(60):
        cells = {name: {seed: generator.binomial(1, 0.7, 80).astype(float) for seed in range(2)} for name in "gabc"}
        means = {name: 100 * np.mean(list(records.values())) for name, records in cells.items()}
        measured.append(max(means.values()) - means["g"])
        corrected.append(statistics.of_the_best(cells, "g", 200, number))
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert np.mean(measured) > 2.5 and abs(np.mean(corrected)) < 3 * error < 2.5


def test_the_gain_of_what_is_clearly_the_best_is_left_as_it_is():
    generator = np.random.default_rng(4)
    right = generator.binomial(1, 0.6, 300).astype(float)
    cells = {"g": {0: right * (np.arange(300) % 5 > 0)}, "a": {0: right * (np.arange(300) % 9 > 0)}, "b": {0: right}}
    assert statistics.of_the_best(cells, "g", 500, 0) == pytest.approx(100 * (right - cells["g"][0]).mean(), abs=0.5)
    assert statistics.of_the_best({"g": cells["g"]}, "g", 50, 0) == 0
    texts = {name: {0: bleu_rows(generator, 200, quality)} for name, quality in {"g": 0.4, "a": 0.6}.items()}
    drawn = statistics.resample(texts, 0, 0)
    assert statistics.of_the_best(texts, "g", 300, 0) == pytest.approx((drawn["a"] - drawn["g"])[0], abs=1)
