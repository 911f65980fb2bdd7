"""Rows of a dataset on the Hugging Face hub, read by its own client: data files only, never a loading script."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from synthtune.custom import readers
from synthtune.custom.report import Guess
from synthtune.custom.task_file import TaskFile
from synthtune.errors import RowsError
from synthtune.files import locked, read_json, write_json
from synthtune.models import assets

ADVICE = (
    ("gated|401|403", "ask for access on its page, and log in with 'hf auth login'"),
    ("offline", "it is not in the cache, and HF_HUB_OFFLINE forbids to ask: unset it where there is a connection"),
    ("config|split", "correct 'config:' or 'splits:' in the task file"),
    ("not ?found|exist|revision|404", "correct 'hub:' or 'revision:' in the task file"),
    ("script", "name a dataset of data files, or a revision that has them, such as refs/convert/parquet"),
)
"""What to do about an error in whose words something occurs; the first that fits."""


def open_table(task: TaskFile, role: str, file: str) -> readers.Table:
    """The split of a task file's dataset for a role, as a table.

    Raises
    ------
    RowsError
        The hub does not give it; the message says why and what to do.
    """
    with _asking(file):
        import datasets

        revision = revision_of(task)
        loaded = datasets.load_dataset(task.hub, task.config, split=task.splits[role], revision=revision)
    guesses = [] if role != "rows" or revision == task.revision else [
        Guess(task.hub, "revision", revision, "the newest when it was first asked for; kept in the cache")]
    return readers.of_dataset(loaded, file, guesses)


def revision_of(task: TaskFile) -> str:
    """The commit that is read: the task file's, or what its revision was when it was first asked for, kept in the cache."""
    if re.fullmatch("[0-9a-f]{40}", task.revision or ""):
        return task.revision
    folder = assets.cache_folder() / "hub" / re.sub(r"[^\w.-]", "--", f"dataset-{task.hub}-{task.revision or 'main'}")
    with locked(folder):
        if not (folder / "revision.json").exists():
            import huggingface_hub

            write_json(folder / "revision.json", huggingface_hub.dataset_info(task.hub, revision=task.revision).sha)
        return read_json(folder / "revision.json")


@contextlib.contextmanager
def _asking(file: str) -> Iterator[None]:
    """Turn what the hub's clients raise into one sentence; they raise many kinds of errors."""
    try:
        yield
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        advice = next((advice for words, advice in ADVICE if re.search(words, said, re.IGNORECASE)),
                      "check the connection, and run again")
        raise RowsError(f"{file}: the hub does not give it ({said[:300]}); {advice}.") from error
