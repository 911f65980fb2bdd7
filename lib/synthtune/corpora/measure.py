"""Measures that the reports of both of the package's own corpora share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from synthtune.tasks.example import Example


def mean(values: Iterable[float]) -> float:
    """Average, to three decimals."""
    values = list(values)
    return round(sum(values) / len(values), 3)


def summary(examples: Sequence[Example]) -> dict[str, Any]:
    """Count a split's entries, the references of an entry, and the words of inputs, targets and texts."""
    lengths = [len(text.split()) for example in examples for text in example.references]
    return {
        "entries": len(examples),
        "references": mean(len(example.references) for example in examples),
        "input words": mean(len(example.text.split()) for example in examples),
        "target words": mean(len(example.target.split()) for example in examples),
        "shortest text": min(lengths),
        "longest text": max(lengths),
    }


def vocabulary(examples: Iterable[Example]) -> set[str]:
    """Collect the distinct words of inputs and texts, in lower case, without punctuation."""
    return {
        word
        for example in examples
        for text in (example.text, *example.references)
        for word in re.findall(r"\w+", text.lower())
    }
