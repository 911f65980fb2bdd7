"""Files such as a user might bring, to try the recipe on: what an assistant does in an utterance, from our own dialogues."""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path

import pandas as pd
import yaml
from toy_corpora import dialogues

from synthtune.custom.products import write_csv
from synthtune.files import atomic_path
from synthtune.tasks import sgd

NAMES = {"confirm": "confirms", "offer": "offers", "inform": "informs", "request": "asks", "notify success": "reports success",
         "notify failure": "reports failure"}
"""The label of an utterance, by the first of its actions; utterances that begin with others are left out."""

ROWS = {"labelled": 125, "unlabelled": 600, "test": 250}
FEWEST = 4
"""Labelled rows that each class has at least: who labels by hand goes on until there are a few of each."""


def write(folder: str | Path, seed: int = 17) -> Path:
    """Write labelled.csv, unlabelled.csv, test.csv and a task file that names them; return the task file's path."""
    folder = Path(folder)
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as corpus:
        dialogues.write(Path(corpus, "sgd"), seed=seed, sizes={"train": 2000, "dev": 60, "test": 400})
        train, test = (_utterances(Path(corpus, "sgd"), split) for split in ("train", "test"))
    for each in (train, test):
        draw.shuffle(each)
    known = {text for text, _ in test}
    train = [pair for pair in train if pair[0] not in known]
    first = [pair for label in NAMES.values() for pair in [pair for pair in train if pair[1] == label][:FEWEST]]
    rest = [pair for pair in train if pair not in first]
    labelled = first + rest[: ROWS["labelled"] - len(first)]
    draw.shuffle(labelled)
    unlabelled = rest[ROWS["labelled"] - len(first):][: ROWS["unlabelled"]]
    columns = ["utterance", "act"]
    write_csv(pd.DataFrame(labelled, columns=columns), folder / "labelled.csv")
    write_csv(pd.DataFrame(unlabelled, columns=columns)[["utterance"]], folder / "unlabelled.csv")
    write_csv(pd.DataFrame(test[: ROWS["test"]], columns=columns), folder / "test.csv")
    task = {"rows": "labelled.csv", "text": "utterance", "label": "act", "unlabelled": "unlabelled.csv", "test": "test.csv",
            "description": "Say what the assistant does in this utterance."}
    with atomic_path(folder / "assistant_acts.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(task, sort_keys=False), "utf-8")
    return folder / "assistant_acts.yaml"


def _utterances(corpus: Path, split: str) -> list[tuple[str, str]]:
    """Each utterance of a split once, and its label."""
    found = {}
    for example in sgd.read(corpus, split):
        first = re.match("|".join(sgd.ACTS), example.text.split(" && ")[1]).group()
        if first in NAMES:
            for text in example.references:
                found[text] = NAMES[first]
    return list(found.items())
