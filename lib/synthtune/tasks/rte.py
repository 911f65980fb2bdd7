"""RTE, recognising textual entailment (Dagan et al. 2006), as GLUE distributes it (Wang et al. 2019).

The claim comes first on a line, so that cutting a long line never removes it.
"""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.tasks.example import PromptTemplate
from synthtune.tasks.formats import table, train_and_test
from synthtune.tasks.spec import Spec

# GLUE writes them in words, copies made from hubs in numbers.
LABELS = {"0": "yes", "entailment": "yes", "1": "no", "not_entailment": "no"}

PAIR = ("Claim", "Text")


def rows(path: Path) -> Iterator[tuple[int, tuple[str, str], str]]:
    """Read an official file: line, claim and text, "yes" or "no"."""
    # The official order numbers the rows in the first column, copies made from hubs in the last.
    with open(path, encoding="utf-8-sig") as handle:
        header = handle.readline().rstrip("\r\n").split("\t")
    try:
        text, claim, label = map(header.index, ("sentence1", "sentence2", "label"))
    except ValueError as error:
        raise CorpusError(f"{path}, line 1: expected a header with sentence1, sentence2 and label, separated by tabs.") from error
    for number, row in table(path, len(header), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row[label] not in LABELS:
            raise CorpusError(f"{path}, line {number}: label '{row[label]}' is none of {', '.join(LABELS)}.")
        yield number, (row[claim].strip(), row[text].strip()), LABELS[row[label]]


TASKS = {"rte": Spec(
    title="RTE",
    read=partial(train_and_test, files=("train.tsv", "dev.tsv"), rows=rows, pair=PAIR),
    template=PromptTemplate("Say whether the claim follows from the text: yes or no.", "Claim and text", "Follows"),
    sentences=("Claim: The bridge is open again. Text: After two months of repairs, traffic crossed the bridge on Monday.",
               "Claim: The mayor resigned. Text: The mayor said she had no plans to leave before the election."),
    answer="yes",
    tokens={"input": 72, "output": 3},  # 322 characters on average
    labels=2,
    pair=PAIR,
    citation="Dagan et al. 2006, Bar-Haim et al. 2006, Giampiccolo et al. 2007, Bentivogli et al. 2009; as in GLUE, Wang et al. 2019",
    licence="see gluebenchmark.com",
    source={"files": ({
        "url": "https://dl.fbaipublicfiles.com/glue/data/RTE.zip", "bytes": 697150,
        "sha256": "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee",
        "members": {"RTE/train.tsv": "train.tsv", "RTE/dev.tsv": "dev.tsv"}},)},
)}
