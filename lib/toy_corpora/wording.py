"""Small choices of wording that both of the package's own corpora make."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def usual(rng: random.Random, phrases: Sequence[T]) -> T:
    """Draw a phrase, the first of them three times as often as each of the others.

    People have a usual way to say a thing and other ways; a corpus in which all are equally likely would be
    noise.
    """
    return rng.choices(phrases, [3] + [1] * (len(phrases) - 1))[0]


def article(word: str) -> str:
    """Choose "a" or "an" for a word that is said as it is spelt."""
    return "an" if word[0].lower() in "aeiou" else "a"


def capital(text: str) -> str:
    """Write the first letter as a capital."""
    return text[0].upper() + text[1:]
