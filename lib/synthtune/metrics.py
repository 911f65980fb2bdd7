"""Scores of predictions, and measures of the diversity and novelty of generated texts.

All scores are percentages, 0 to 100. Each corpus score comes with a small record per test example, from which the
score can be computed on any resample of the test set; `synthtune.analysis.statistics` does that.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import f1_score

# BLEU counts n-grams of one to this many tokens.
ORDERS = 4

# Numbers kept per test example: matched n-grams, all n-grams (orders 1 to 4), lengths of output and of
# reference.
STATISTICS = 2 * ORDERS + 2

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Metric:
    """A metric of predictions; the truth is a label an example, or in text generation a sequence of references.

    Attributes
    ----------
    title : str
        Its name in figures and tables.
    task_type : str
        The tasks that it measures, "classification" or "generation".
    per_example : function of (truth, predicted), optional
        A record of each example: an array of shape (N,) between 0 and 1, of which the metric is the mean, or what `corpus` takes.
    corpus : function, optional
        Percent, from the records if there is `per_example`, otherwise from (truth, predicted).
    unit : str
    """

    title: str
    task_type: str
    per_example: Callable | None = None
    corpus: Callable | None = None
    unit: str = "0–100"

    @property
    def in_sentences(self) -> str:
        """Its name inside a sentence: accuracy is a word, the others are proper names."""
        return self.title.lower() if self.unit == "%" else self.title


def metrics_of(task_type: str) -> dict[str, Metric]:
    """The metrics of a type of task, by name."""
    return {name: metric for name, metric in METRICS.items() if metric.task_type == task_type}


def main_metric(task_type: str) -> str:
    """Name of the metric that figures show and claims are about: the first of its type. It needs `per_example`."""
    return next(iter(metrics_of(task_type)))


def _same_length(truth: Sequence, predicted: Sequence) -> None:
    if len(truth) != len(predicted) or not len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} test examples: give exactly one each, and at least one.")


def _measured(task_type: str, truth: Sequence, predicted: Sequence[str]) -> dict:
    """Every metric of a type of task, and the records of the main one as `per_example`."""
    scores, records = {}, {}
    for name, metric in metrics_of(task_type).items():
        if metric.per_example:
            records[name] = np.asarray(metric.per_example(truth, predicted), dtype=float)
            scores[name] = metric.corpus(records[name]) if metric.corpus else 100 * float(np.mean(records[name]))
        else:
            scores[name] = metric.corpus(truth, predicted)
    return scores | {"per_example": records[main_metric(task_type)].ravel().tolist()}


def classification(truth: Sequence[str], predicted: Sequence[str]) -> dict:
    """Score predicted labels.

    Parameters
    ----------
    truth, predicted : sequence of str, length N
        A prediction that is not a label of the task (a prompted model may answer anything) counts as wrong.

    Returns
    -------
    dict
        `accuracy` and `macro_f1` (mean F1 over the labels that occur in `truth`), in percent; `per_example`,
        N times 1.0 for right and 0.0 for wrong.

    Raises
    ------
    ValueError
        If the lengths differ or are zero.
    """
    _same_length(truth, predicted)
    return _measured("classification", list(truth), list(predicted))


def _right(truth: Sequence[str], predicted: Sequence[str]) -> list[bool]:
    return [right == guess for right, guess in zip(truth, predicted)]


def _macro_f1(truth: Sequence[str], predicted: Sequence[str]) -> float:
    return 100 * float(f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0))


def split_labels(output: str, separator: str) -> list[str]:
    """The labels that an output names: several where a separator stands between them, otherwise the output itself."""
    return output.split(f"{separator} ") if separator else [output]


def joined_labels(labels: Iterable[str], separator: str) -> str:
    """Several labels as one output: each once, in alphabetical order."""
    return f"{separator} ".join(sorted(set(labels)))


def classes_of(outputs: Iterable[str], separator: str) -> tuple[str, ...]:
    """Every label that outputs name, sorted."""
    return tuple(sorted({label for output in outputs for label in split_labels(output, separator)}))


def label_sets(outputs: Sequence[str], classes: Sequence[str], separator: str) -> np.ndarray:
    """1 where an output names a class and 0 elsewhere, of shape (outputs, classes)."""
    return np.array([np.isin(classes, split_labels(output, separator)) for output in outputs], dtype=float).reshape(-1, len(classes))


def multi_label(truth: Sequence[str], predicted: Sequence[str], separator: str) -> dict:
    """Score predicted sets of labels: `classification`, where a set is right if it is the whole true one, with F1 of single labels.

    Returns
    -------
    dict
        As `classification`, `macro_f1` over the labels that occur in `truth`; and `micro_f1`, of all decisions, in percent.
    """
    classes = classes_of([*truth, *predicted], separator)
    true, found = (label_sets(outputs, classes, separator) for outputs in (truth, predicted))
    there = true.any(0)
    return classification(truth, predicted) | {
        "macro_f1": 100 * float(f1_score(true[:, there], found[:, there], average="macro", zero_division=0)),
        "micro_f1": 100 * float(f1_score(true, found, average="micro", zero_division=0))}


def generation(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict:
    """Score texts against one or more references each.

    BLEU is computed on lower-cased text, as the WebNLG evaluation does, with sacrebleu's 13a tokens and
    exponential smoothing; chrF is sacrebleu's default chrF2 with case kept; ROUGE-L is the F-measure of the
    best reference (without stemming), averaged over the examples.

    Parameters
    ----------
    references : sequence of length N of sequences of str
        At least one each; the number may differ from example to example.
    predicted : sequence of str, length N

    Returns
    -------
    dict
        `bleu`, `chrf`, `rouge_l` in percent; `per_example`, N x 10 BLEU statistics flattened row by row:
        matched 1- to 4-grams, all 1- to 4-grams, output length, length of the closest reference (see
        `bleu_from`).

    Raises
    ------
    ValueError
        If the lengths differ or are zero, or an example has no reference.

    Source
    ------
    Papineni et al. 2002 (BLEU); Popović 2015 (chrF); Lin 2004 (ROUGE); Post 2018 (sacrebleu).
    """
    _same_length(references, predicted)
    for row, texts in enumerate(references):
        if isinstance(texts, str) or not texts:
            raise ValueError(f"Test example {row} needs a sequence of at least one reference text, got {texts!r}.")
    return _measured("generation", references, predicted)


def _chrf(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> float:
    # sacrebleu wants one list per reference position, None where an example has fewer references.
    return CHRF().corpus_score(list(predicted), list(itertools.zip_longest(*references))).score


def _rouge_l(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> list[float]:
    # Loading it takes more than a second, and only NLG needs it.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return [scorer.score_multi(texts, guess)["rougeL"].fmeasure for texts, guess in zip(references, predicted)]


def chrf_of_each(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> np.ndarray:
    """sacrebleu's default chrF2 of each text by itself, between 0 and 1, shape (N,)."""
    scorer = CHRF()
    return np.array([scorer.sentence_score(guess, list(texts)).score / 100 for texts, guess in zip(references, predicted)])


def bleu_statistics(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> np.ndarray:
    """Sufficient statistics of lower-cased BLEU, one row per example, int array of shape (N, 10)."""
    # effective_order changes a sentence's score, which is not used here, but not its counts.
    scorer = BLEU(lowercase=True, effective_order=True)
    rows = []
    for texts, guess in zip(references, predicted):
        score = scorer.sentence_score(guess, list(texts))
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.int64).reshape(-1, STATISTICS)


def bleu_from(statistics: np.ndarray) -> float:
    """Corpus BLEU from the statistics of its examples: exactly what sacrebleu gives for the texts themselves.

    If no text has four words, only the shorter n-grams count (sacrebleu's effective order); otherwise BLEU would always
    be 0.

    Parameters
    ----------
    statistics : array of shape (N, 10), or flattened as in a results file
        Rows as `nlg` returns them, in any order and with repetitions if a bootstrap drew some twice.

    Returns
    -------
    float
        BLEU in percent.
    """
    numbers = np.asarray(statistics).reshape(-1, STATISTICS).sum(axis=0).astype(int).tolist()
    return BLEU.compute_bleu(numbers[:ORDERS], numbers[ORDERS : 2 * ORDERS], sys_len=numbers[-2], ref_len=numbers[-1],
                             smooth_method="exp", effective_order=True).score


# Every metric by the name of its column in results files, the main one of each type of task first. A new one needs an entry.
METRICS = {
    "accuracy": Metric("Accuracy", "classification", _right, unit="%"),
    "macro_f1": Metric("Macro-F1", "classification", corpus=_macro_f1),
    "bleu": Metric("BLEU", "generation", bleu_statistics, bleu_from),
    "chrf": Metric("chrF", "generation", corpus=_chrf),
    "rouge_l": Metric("ROUGE-L", "generation", _rouge_l),
}


def tokens(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks: the tokens that diversity and novelty are counted in."""
    return _TOKEN.findall(text.lower())


def _ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Number of different n-grams divided by the number of all n-grams in `texts`, 0 to 1; 0 if no text is long enough.

    Source
    ------
    Li et al. 2016, A Diversity-Promoting Objective Function for Neural Conversation Models. The share falls
    as texts are added, so compare equal numbers of texts only.
    """
    counts = Counter(itertools.chain.from_iterable(_ngrams(tokens(text), n) for text in texts))
    return len(counts) / counts.total() if counts else 0.0


def self_bleu(texts: Sequence[str], seed: int, sample: int = 200) -> float:
    """Mean BLEU of each text against all others, in percent: low is varied, 100 is the same text over and
    over.

    Parameters
    ----------
    texts : sequence of str
    seed : int
        Draws the sample, if there are more texts than `sample`.
    sample : int
        At most this many texts are compared; the value grows with the number of texts, so keep it the same.

    Returns
    -------
    float
        Sentence BLEU as sacrebleu computes it (lower-cased, 13a tokens, effective order), averaged; NaN for
        fewer than two texts.

    Source
    ------
    Zhu et al. 2018, Texygen: A Benchmarking Platform for Text Generation Models.
    """
    if len(texts) < 2:
        return float("nan")
    if len(texts) > sample:
        chosen = np.random.default_rng(seed).choice(len(texts), sample, replace=False)
        texts = [texts[i] for i in sorted(chosen)]
    scorer = BLEU(lowercase=True, effective_order=True)
    return float(np.mean([scorer.sentence_score(text, [*texts[:place], *texts[place + 1:]]).score for place, text in enumerate(texts)]))


def longest_copied_ngram(texts: Sequence[str], gold_texts: Sequence[str]) -> list[int]:
    """Length in tokens of the longest sequence that each text shares with a single gold text.

    Parameters
    ----------
    texts : sequence of str, length N
        Generated texts.
    gold_texts : sequence of str
        What the teacher was trained on.

    Returns
    -------
    list of int, length N
        0 where no token is shared; the text's own length where it is a piece of a gold text.
    """
    words = [tokens(text) for text in texts]
    gold = [tokens(text) for text in gold_texts]
    longest = [0] * len(words)
    growing = range(len(words))
    for n in itertools.count(1):
        known = set(itertools.chain.from_iterable(_ngrams(text, n) for text in gold))
        # A shared run of n tokens holds one of n - 1, so only texts that shared one of those can share this.
        growing = [i for i in growing if any(ngram in known for ngram in _ngrams(words[i], n))]
        if not growing:
            return longest
        for i in growing:
            longest[i] = n
