"""BoolQ, questions about a passage that are answered with yes or no (Clark et al. 2019).

The question comes first on a line, so that cutting a long line never removes it.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.tasks.example import PromptTemplate
from synthtune.tasks.formats import train_and_test
from synthtune.tasks.spec import Spec

PAIR = ("Question", "Passage")


def rows(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    """Read an official file: line, question and passage, "yes" or "no"."""
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, passage, answer = row["question"], row["passage"], row["answer"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number}: expected a JSON object with question, passage and answer.") from error
        if not isinstance(answer, bool):
            raise CorpusError(f"{path}, line {number}: the answer is {answer!r}, neither true nor false.")
        yield number, (str(question).strip().rstrip("?") + "?", str(passage).strip()), "yes" if answer else "no"


TASKS = {"boolq": Spec(
    title="BoolQ",
    read=partial(train_and_test, files=("train.jsonl", "dev.jsonl"), rows=rows, pair=PAIR),
    template=PromptTemplate("Answer the question about the passage with yes or no.", "Question and passage", "Answer"),
    sentences=("Question: can swans fly? Passage: Swans are among the heaviest birds that fly, and some travel far.",
               "Question: is glass a metal? Passage: Glass is an amorphous solid, most often made of sand, soda and lime."),
    answer="yes",
    tokens={"input": 140, "output": 1},  # 108 + 9 words (Clark et al. 2019), at 1.2 tokens a word
    labels=2,
    pair=PAIR,
    citation="Clark et al. 2019", licence="CC BY-SA 3.0",
    source={"files": (
        {"url": "https://storage.googleapis.com/boolq/train.jsonl", "bytes": 6525813,
         "sha256": "cc7a79d44479867e8323a7b0c5c1d82edf516ca34912201f9384c3a3d098d8db"},
        {"url": "https://storage.googleapis.com/boolq/dev.jsonl", "bytes": 2238726,
         "sha256": "ebc29ea3808c5c611672384b3de56e83349fe38fc1fe876fd29b674d81d0a80a"})},
)}
