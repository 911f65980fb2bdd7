"""Files such as a user might bring, to try the recipe on: what an assistant does in an utterance, from our own dialogues."""

import shutil
from pathlib import Path

from synthtune.files import atomic_path

# Utterances of the corpus in the format of SGD that `toy_corpora.dialogues` writes, each with the first of its actions.
FILES = Path(__file__).with_name("example_files")


def write(folder: str | Path) -> Path:
    """Copy labelled.csv, unlabelled.csv, test.csv and a task file that names them; return the task file's path."""
    folder = Path(folder)
    for path in FILES.iterdir():
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return folder / "assistant_acts.yaml"
