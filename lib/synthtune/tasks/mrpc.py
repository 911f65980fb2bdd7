"""MRPC, pairs of sentences that mean the same or do not (Dolan and Brockett 2005)."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.tasks.example import PromptTemplate
from synthtune.tasks.formats import table, train_and_test
from synthtune.tasks.spec import Spec

PAIR = ("First", "Second")


def rows(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    """Read an official file: line, two sentences, "yes" or "no"."""
    for number, row in table(path, 5, delimiter="\t", quoting=csv.QUOTE_NONE):
        if row[0] not in ("0", "1"):
            raise CorpusError(f"{path}, line {number}: quality '{row[0]}' is neither 0 nor 1.")
        yield number, (row[3].strip(), row[4].strip()), ("no", "yes")[int(row[0])]


TASKS = {"mrpc": Spec(
    title="MRPC",
    read=partial(train_and_test, files=("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"), rows=rows, pair=PAIR),
    template=PromptTemplate("Say whether the two sentences mean the same: yes or no.", "Sentences", "Same"),
    sentences=("First: The museum opens at nine on Sundays. Second: On Sundays the museum's doors open at nine.",
               "First: The storm reached the coast at dawn. Second: The coast was warned of a storm on Tuesday."),
    answer="yes",
    tokens={"input": 54, "output": 3},  # two sentences of 22 words, at 1.2 tokens a word
    labels=2,
    pair=PAIR,
    citation="Dolan and Brockett 2005", licence="Microsoft Research, for research",
    source={"files": (
        {"url": "https://dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_train.txt", "bytes": 1047044,
         "sha256": "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89"},
        {"url": "https://dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_test.txt", "bytes": 441275,
         "sha256": "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784"})},
)}
