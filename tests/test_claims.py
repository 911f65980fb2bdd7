"""The claims, checked on made-up results."""

import numpy as np
import pandas as pd
import pytest
from synthtune.analysis import claims
from synthtune.analysis.results import Results
from synthtune.conditions import ANNOTATED, GOLD


@pytest.mark.parametrize(
    "low, high, threshold, expected",
    [
        (0.1, 2, 0, "holds"),
        (-2, -0.1, 0, "does not hold"),
        (-1, 1, 0, "not decided"),
        (-0.9, 0.5, -1, "holds"),
        (-3, -1.5, -1, "does not hold"),
        (float("nan"), float("nan"), 0, "not decided"),
    ],
)
def test_verdicts(low, high, threshold, expected):
    assert claims.verdict(low, high, threshold) == expected


def test_synthetic_examples_that_make_a_student_worse_replace_no_labels(laptop):
    results = Results.read(*laptop)
    scores = results.resampled["tweets"]
    for cell in scores:
        if cell[0] == 125 and cell[1] != GOLD:
            scores[cell] = scores[125, GOLD, 0] - 5
    checked = claims.claims(results)
    [worth] = checked[(checked.claim == "g") & (checked["where"] == "Tweets")].to_dict("records")
    assert (worth["value"], worth["low"], worth["high"]) == (125, 125, 125) and worth["verdict"] == "not decided"


def test_claims(laptop):
    folder, settings = laptop
    checked = pd.read_csv(folder / "figures" / "claims.csv")
    assert set(checked.claim) == set(claims.SENTENCES)
    results = Results.read(folder, settings)
    gain = checked[(checked.claim == "a") & (checked["where"] == "SGD format, own corpus")].iloc[0]
    means = [results.rows("sgd", 125, condition).bleu.mean() for condition in (ANNOTATED, GOLD)]
    assert gain.value == pytest.approx(means[0] - means[1], abs=1e-3) and gain.verdict == "holds"
    mean = checked[(checked.claim == "a") & (checked["where"] == "mean of 4 classification tasks")].iloc[0]
    parts = checked[(checked.claim == "a") & (checked.scope == "task") & (checked.unit == "accuracy points")]
    assert mean.value == pytest.approx(parts.value.mean(), abs=1e-3)
    worth = checked[(checked.claim == "g") & (checked["where"] == "Tweets")].iloc[0]
    reached, *curve = (results.rows("tweets", 125, ANNOTATED).accuracy.mean(),
                       *(results.rows("tweets", budget, GOLD).accuracy.mean() for budget in (125, 500)),
                       results.ceiling("tweets").accuracy.mean())
    pool = int(results.ceiling("tweets").budget.iloc[0])
    assert worth.value == pytest.approx(np.exp(np.interp(reached, curve, np.log([125, 500, pool]))), rel=1e-3)
    assert worth.threshold == 125 < worth.low <= worth.value <= worth.high <= pool and worth.verdict == "holds"
    page = (folder / "figures" / "claims.md").read_text()
    assert f"| {worth.value:,.0f} labels | {worth.low:,.0f} to {worth.high:,.0f} (threshold 125) |" in page
    assert "holds* if the 95 % interval" in page and "GPT-3.5" in page
    for sentence in claims.SENTENCES.values():
        assert sentence in page
