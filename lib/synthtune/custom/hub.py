"""Rows of a dataset on the Hugging Face hub, read by its own client: data files only, never a loading script."""

from synthtune.custom import readers
from synthtune.custom.report import Guess
from synthtune.custom.task_file import TaskFile
from synthtune.errors import AssetError, RowsError
from synthtune.models import hub
from synthtune.places import cache_folder

# What a user corrects.
KEYS = {"name": "'hub:' in the task file", "revision": "'revision:' in the task file"}


def open_table(task: TaskFile, role: str, file: str) -> readers.Table:
    """The split of a task file's dataset for a role, as a table.

    Raises
    ------
    RowsError
        The hub does not give it; the message says why and what to do.
    """
    try:
        revision = revision_of(task)
        with hub.asking(hub.words(task.hub, revision), task.hub, KEYS, "dataset"):
            import datasets

            loaded = datasets.load_dataset(task.hub, task.config, split=task.splits[role], revision=revision)
    except AssetError as error:
        raise RowsError(f"{file}: {error}") from error
    guesses = [] if role != "rows" or revision == task.revision else [
        Guess(task.hub, "revision", revision, "the newest when it was first asked for; kept in the cache")]
    return readers.of_dataset(loaded, file, guesses)


def revision_of(task: TaskFile) -> str:
    """The commit that is read: the task file's, or what its revision was when it was first asked for, kept in the cache."""
    name = f"{task.hub}@{task.revision}" if task.revision else task.hub
    return hub.pinned(name, cache_folder() / "hub" / "datasets.json", KEYS, "dataset").rpartition("@")[2]
