"""Scores against sacrebleu itself and against values worked out by hand."""

import itertools

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from synthtune import metrics

REFERENCES = [
    ("The airport serves Aarhus .", "Aarhus is served by the airport.", "It serves Aarhus."),
    ("A cat sat on the mat.",),
    ("Ada Lovelace was born in London in 1815.", "Ada Lovelace, born 1815, is from London."),
    ("No match at all here",),
]
PREDICTED = [
    "the airport serves aarhus.",
    "A cat sat on a mat.",
    "Ada Lovelace was born in 1815 in London.",
    "",
]


def test_classification_counts_unknown_answers_as_wrong():
    scores = metrics.classification(["a", "a", "b", "b"], ["a", "b", "b", "no idea"])
    assert scores["accuracy"] == 50
    # a: precision 1, recall 1/2; b: precision 1/2, recall 1/2; "no idea" is no label, so no third class.
    assert scores["macro_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert scores["per_example"] == [1.0, 0.0, 1.0, 0.0]


def test_bleu_equals_sacrebleu_with_varying_references():
    scores = metrics.generation(REFERENCES, PREDICTED)
    streams = list(itertools.zip_longest(*REFERENCES))
    assert scores["bleu"] == sacrebleu.corpus_bleu(PREDICTED, streams, lowercase=True).score
    assert scores["bleu"] > 30
    assert scores["chrf"] == sacrebleu.corpus_chrf(PREDICTED, streams).score


def test_bleu_of_short_texts_counts_the_ngrams_that_they_have():
    assert metrics.generation([["it informs."], ["it asks."]], ["it informs.", "it asks."])["bleu"] == pytest.approx(100)
    assert 0 < metrics.generation([["it informs."], ["it asks."]], ["it informs.", "it offers."])["bleu"] < 100
    assert metrics.generation([["yes"], ["no"]], ["no", "yes"])["bleu"] == 0


def test_bleu_from_statistics_equals_sacrebleu_on_every_resample():
    statistics = np.array(metrics.generation(REFERENCES, PREDICTED)["per_example"]).reshape(-1, metrics.STATISTICS)
    generator = np.random.default_rng(5)
    for _ in range(25):
        drawn = generator.integers(0, len(PREDICTED), len(PREDICTED))
        streams = list(itertools.zip_longest(*[REFERENCES[i] for i in drawn]))
        expected = sacrebleu.corpus_bleu([PREDICTED[i] for i in drawn], streams, lowercase=True).score
        assert metrics.bleu_from(statistics[drawn]) == expected


def test_rouge_l_takes_the_best_reference_and_averages():
    scores = metrics.generation([("a b c d", "x y"), ("q",)], ["x y", "z"])
    assert scores["rouge_l"] == 50


@pytest.mark.parametrize("score", [metrics.classification, metrics.generation])
def test_lengths_must_agree(score):
    with pytest.raises(ValueError, match="1 predictions for 2 test examples"):
        score(["a", "b"], ["a"])


def test_an_example_without_reference_is_named():
    with pytest.raises(ValueError, match="Test example 1 "):
        metrics.generation([("a",), ()], ["a", "b"])


def test_distinct_n():
    assert metrics.distinct_n(["a b a b"], 1) == 0.5
    assert metrics.distinct_n(["a b a b", "c d"], 2) == pytest.approx(3 / 4)
    assert metrics.distinct_n(["a"], 2) == 0


def test_self_bleu_equals_sacrebleu_text_by_text():
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(list("abcdeF"), generator.integers(1, 12))) + "." for _ in range(30)]
    scorer = BLEU(lowercase=True, effective_order=True)
    expected = np.mean(
        [scorer.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    )
    assert metrics.self_bleu(texts, seed=0) == pytest.approx(expected, abs=1e-9)


def test_self_bleu_extremes_and_sample():
    assert metrics.self_bleu(["one and the same text"] * 5, seed=0) == pytest.approx(100)
    assert metrics.self_bleu(["alpha beta gamma", "delta epsilon zeta"], seed=0) == 0
    assert np.isnan(metrics.self_bleu(["alone"], seed=0))
    texts = [f"text number {i} of many" for i in range(50)]
    assert metrics.self_bleu(texts, seed=1, sample=10) == metrics.self_bleu(texts, seed=1, sample=10)


def test_longest_copied_ngram():
    gold = ["The plot is thin, but the cast shines.", "A dull film"]
    texts = ["Sadly THE PLOT IS thin.", "a dull film", "Zebra!", "", "cast a film"]
    assert metrics.longest_copied_ngram(texts, gold) == [4, 3, 0, 0, 1]
    assert metrics.longest_copied_ngram(["a"], []) == [0]
