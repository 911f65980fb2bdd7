"""The one row every task is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One input with what is known about its output.

    Attributes
    ----------
    id : str
        Unique within its task, and the same in every run.
    text : str
        The input X, on one line.
    target : str
        The output Y: a label's text for classification, a sentence for generation.
    references : tuple of str
        Generation only: every reference text of this input, the target first. Empty for classification.
    """

    id: str
    text: str
    target: str
    references: tuple[str, ...] = ()
