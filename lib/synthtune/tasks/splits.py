"""Pool, development and test examples with no text in two of them."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from synthtune.tasks.example import Example

# Two texts are near-duplicates if the cosine of their sets of five-character shingles reaches this.
NEAR = 0.8


def normalised(text: str) -> str:
    """Lower case, letters and digits only, single spaces: two texts equal in this form are exact duplicates."""
    return " ".join(re.findall(r"\w+", text.lower()))


def cut(text: str, characters: int) -> str:
    """Cut a text at the last word that ends before `characters`."""
    return text if len(text) <= characters else text[:characters].rsplit(None, 1)[0]


def near_duplicates(texts: Sequence[str], held: Sequence[str]) -> np.ndarray:
    """Say which texts are near-duplicates of a held one.

    Returns
    -------
    ndarray of bool, shape (len(texts),)
    """
    return first_near(texts, held) >= 0


def first_near(texts: Sequence[str], held: Sequence[str] | None = None, chunk: int = 250) -> np.ndarray:
    """Find near-duplicates: texts whose five-character shingles have a cosine of `NEAR` or more.

    Parameters
    ----------
    texts : sequence of str
    held : sequence of str, optional
        What to compare with; if missing, the texts before each.
    chunk : int
        Texts compared at once; bounds memory.

    Returns
    -------
    ndarray of int, shape (len(texts),)
        Position of the first near-duplicate, -1 where there is none.
    """
    if not texts or (held is not None and not held):
        return np.full(len(texts), -1)
    shingles = HashingVectorizer(analyzer="char_wb", ngram_range=(5, 5), binary=True, norm="l2", n_features=2**18)
    mine = shingles.transform(map(normalised, texts))
    others = mine if held is None else shingles.transform(map(normalised, held))
    first = np.full(len(texts), others.shape[0])
    for start in range(0, len(texts), chunk):
        cosine = (mine[start: start + chunk] @ others.T).tocoo()
        rows, places = cosine.row[cosine.data >= NEAR] + start, cosine.col[cosine.data >= NEAR]
        if held is None:
            rows, places = rows[places < rows], places[places < rows]
        np.minimum.at(first, rows, places)
    return np.where(first < others.shape[0], first, -1)


def distinct(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """Keep the first of every exact duplicate; say how many were dropped."""
    seen: dict[str, Example] = {}
    for example in examples:
        seen.setdefault(normalised(example.text), example)
    return list(seen.values()), len(examples) - len(seen)


def ordered_for_budgets(pool: Sequence[Example], smallest: int, seed: int, least: int = 4) -> list[Example]:
    """Order a pool so that its first `smallest` examples hold at least `least` of each label.

    Budgets are prefixes of this order, so they are nested. Apart from that the order is random. It is what
    someone does who labels examples until every class has a few.
    """
    order = list(pool)
    random.Random(seed).shuffle(order)
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in order:
        by_label[example.target].append(example)
    least = min(least, smallest // max(1, len(by_label)))
    promised = {id(example) for members in by_label.values() for example in members[:least]}
    head = [example for example in order if id(example) in promised]
    rest = [example for example in order if id(example) not in promised]
    head += rest[: smallest - len(head)]
    random.Random(seed + 1).shuffle(head)
    chosen = {id(example) for example in head}
    return head + [example for example in order if id(example) not in chosen]
