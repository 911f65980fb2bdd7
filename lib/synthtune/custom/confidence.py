"""How sure the small model is of an output, calibrated on rows held out that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression

# Spread of the scores below which they tell nothing.
NO_MATTER = 1e-6

# A quality is taken to be this far from 0 and 1 at least: a logistic curve reaches neither.
EDGE = 1e-3


@dataclass(frozen=True)
class OfLabels:
    """The probability that a label is right.

    Attributes
    ----------
    temperature : float
        Divides the logits: the one at which the true labels are likeliest (Guo et al. 2017, temperature scaling).
    """

    temperature: float

    @classmethod
    def fit(cls, scores: np.ndarray, truth: Sequence[int]) -> OfLabels:
        """From logits or log-probabilities of shape (N, labels) and the places of the true labels, -1 for an unknown one."""
        known = np.asarray(truth) >= 0
        logits, places = scores[known].astype(float), np.asarray(truth)[known]

        def loss(log_temperature: float) -> float:
            return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(places)), places].mean())

        return cls(float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(20.0)), method="bounded").x)))

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Of all labels, shape (N, labels)."""
        return np.exp(log_softmax(scores / self.temperature, axis=1))

    def of(self, scores: np.ndarray, places: Sequence[int]) -> np.ndarray:
        """Of the label that is said of each row, shape (N,), from its place; 0 where that is -1, a set of labels that no row has."""
        found = np.take_along_axis(self.probabilities(scores), np.asarray(places)[:, None], 1)[:, 0]
        return np.where(np.asarray(places) < 0, 0.0, found)


@dataclass(frozen=True)
class OfTexts:
    """The chrF, as a share of 1, that is to be expected of a text that the model wrote.

    A logistic curve of the text's mean log-probability: Platt scaling (Platt 1999), for a quality between 0 and 1 in the
    place of right or wrong.

    Attributes
    ----------
    slope, intercept : float
    """

    slope: float
    intercept: float

    @classmethod
    def fit(cls, scores: np.ndarray, quality: np.ndarray) -> OfTexts:
        """From mean log-probabilities of shape (N, 1) and the chrF of each text, shape (N,), between 0 and 1."""
        quality = np.clip(quality, EDGE, 1 - EDGE)
        mean = float(quality.mean())
        if np.ptp(scores) < NO_MATTER:
            return cls(0.0, float(np.log(mean / (1 - mean))))
        # A row counts as good with weight q and as bad with 1 - q, so the curve that is likeliest is that of the mean of q.
        curve = LogisticRegression(C=np.inf, max_iter=1000)
        curve.fit(np.concatenate([scores, scores]), np.repeat([1, 0], len(scores)), sample_weight=np.concatenate([quality, 1 - quality]))
        return cls(float(curve.coef_[0, 0]), float(curve.intercept_[0]))

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Of each text, shape (N,)."""
        return expit(self.slope * scores[:, 0] + self.intercept)


Confidence = OfLabels | OfTexts
