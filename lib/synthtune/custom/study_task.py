"""Custom tasks: a user's benchmark, read from the labelled rows that a task file names."""

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from synthtune.custom import hub, reading
from synthtune.custom.rows import CustomData, examples, pair_of, template_of
from synthtune.errors import RowsError
from synthtune.files import digest
from synthtune.tasks.spec import Corpus, Spec

# Of a token of prose, on average.
CHARACTERS = 4.5


def read(path: Path) -> CustomData:
    """Read and check the rows of a task file.

    Raises
    ------
    SettingsError, RowsError
        The task file or the rows cannot be used. Every error of the rows is named.
    """
    own = reading.read(path)
    if own.report.errors:
        raise RowsError(f"{path.name}: " + " ".join(map(str, own.report.errors)) + f" See also ./run_all.sh --check --task {path}.")
    return own


def spec(path: Path) -> Spec:
    """The task as the study knows its own; its sentences are the first texts of the rows.

    Raises
    ------
    SettingsError, RowsError
        As for `read`.
    """
    own = read(path)
    template, names = template_of(own), pair_of(own)
    gold = examples(own.gold, names, "row")
    tokens = {"input": [each.text for each in gold], "output": [each.target for each in gold]}
    return Spec(
        own.task.name, partial(corpus, path), template, tuple(tokens["input"][:2]), gold[0].target,
        {name: math.ceil(sum(map(len, texts)) / len(texts) / CHARACTERS) for name, texts in tokens.items()}, own.task_type,
        len(own.labels), names, separator=own.columns.separator,
        rows=digest([own.gold.to_dict("list"), own.test.to_dict("list"), asdict(template), names, own.task_type, own.columns.separator]))


def corpus(path: Path, _folder: Path) -> Corpus:
    """Labelled rows, test rows where there are any, and counts.

    Rows without labels have no part in a study, which hides the labels of others.
    """
    own = read(path)
    names = pair_of(own)
    dropped = sum(sum(count.dropped.values()) for count in own.report.counts if count.role != "unlabelled")
    counted: dict[str, Any] = {"dropped_rows": dropped, "unlabelled_not_used": len(own.unlabelled)}
    if own.task.hub:
        counted |= {"hub": own.task.hub, "revision": hub.revision_of(own.task)}
    return Corpus(examples(own.gold, names, "row"), examples(own.test, names, "test") if len(own.test) else None, counted=counted)
