"""Who works in a folder of results, what its results were made from, and whether they are still as they were written."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from synthtune.context import Context
from synthtune.custom import baselines
from synthtune.custom.parts import WORK
from synthtune.custom.rows import CustomData
from synthtune.errors import StageError
from synthtune.files import claimed, digest, read_json, remove_left_over, write_json
from synthtune.models import assets
from synthtune.places import as_typed
from synthtune.settings import HOW, Settings

# In the work folder: what the last run works from and, once its results are whole, their digests.
RECORD = "run.json"

# Files and folders of the results by their names, in the order in which a reader wants them.
PRODUCTS = {"report": "report.html", "model": "model", "augmented rows": "augmented", "predictions": "predictions.csv",
            "rows to label next": "to_label.csv"}

# What the stages keep in the folder of a part: the file of each that is written last.
KEPT = {"teachers": "budget-{budget}/teacher-*/settings.json", "annotated rows": "budget-{budget}/annotated.json",
        "generated rows": "budget-{budget}/generated.json", "answers to the rows held out": "answers/*.parquet"}


@contextlib.contextmanager
def working(folder: str | Path) -> Iterator[None]:
    """Keep every other run out of a folder of results, and remove what a killed one left half written.

    Raises
    ------
    StageError
        Another run is working in the folder, or it cannot be written.
    """
    folder = Path(folder)
    with claimed(folder, "Choose another folder for the results with --out DIR, in a notebook with `out`."):
        for name in (WORK, *PRODUCTS.values()):
            remove_left_over(folder / name)
        yield


@contextlib.contextmanager
def offline(settings: Settings) -> Iterator[None]:
    """Let the hub's client ask nobody anything where no model comes from the hub.

    It reads HF_HUB_OFFLINE when it is imported, and a notebook has imported it before it names a task file.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not settings.hub_models()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def made_from(own: CustomData, settings: Settings) -> dict[str, str]:
    """Digests of all that the results depend on, by the names that a message uses."""
    rows = {"labelled rows": own.gold, "unlabelled rows": own.unlabelled, "test rows": own.test}
    found = {name: digest(table.to_dict("list")) for name, table in rows.items()}
    found["names of columns"] = digest(own.columns.roles)  # the teacher reads them
    found["task file"] = digest([own.task.description, own.labels, own.task_type, own.task.name])
    found["counts and warnings"] = digest(str(own.report))
    found["baselines"] = digest(list(baselines.systems(own.task_type, settings)))
    # Budget and pool are the numbers of the rows themselves.
    left_out = ("run_dir", "per_task", "tasks", "task_files", "budgets", "pool_size")
    sections = settings.model_dump(mode="json", exclude_none=True, exclude={**dict.fromkeys(left_out, True), "endpoint": HOW})
    found |= {f"setting {name}": digest(value) for name, value in sections.items()}
    for model in (settings.teacher.model, settings.students.model):
        found[f"model {model}"] = assets.digest(model)
    return found


def unchanged(record: Path, now: Any, folder: Path) -> bool:
    """Whether the files that a record names were made from this, and are in the folder as they were written."""
    before = _read(record)
    return before.get("made_from") == now and "files" in before and all(
        (folder / name).is_file() and digest(folder / name) == value for name, value in before["files"].items())


def note(record: Path, now: Any, folder: Path, written: Iterable[Path]) -> None:
    """Write a record of what files and folders were made from, and of how they are now."""
    files = [file for path in written for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()]
    write_json(record, {"made_from": now, "files": {str(file.relative_to(folder)): digest(file) for file in files}})


def begin(own: CustomData, settings: Settings) -> bool:
    """Say what has changed since the last run; from here on the results count as made from these rows and settings, and unfinished.

    What a run leaves that is killed is never taken for the results of one before it.

    Returns
    -------
    bool
        Whether there was a last run.
    """
    before, now = _read(settings.folder / RECORD), made_from(own, settings)
    if before:
        changed = [name for name in {**now, **before["made_from"]} if before["made_from"].get(name) != now.get(name)]
        if changed:
            print(f"\nChanged since the last run: {', '.join(changed)}. What depends on that is made again.")
        if "files" not in before:
            print("\nThe last run was not finished. What it finished is kept.")
        elif not changed:
            print("\nSome results are missing or were changed; they are written again.")
    write_json(settings.folder / RECORD, {"made_from": now})
    return bool(before)


def stamps(each: Sequence[Context]) -> dict[str, dict[Path, int]]:
    """When each file was written that a stage keeps of these parts, by stage."""
    found: dict[str, dict[Path, int]] = {}
    for part in each:
        folder = part.settings.folder / part.task.name
        for stage, pattern in KEPT.items():
            files = folder.glob(pattern.format(budget=part.budget))
            found.setdefault(stage, {}).update({path: path.stat().st_mtime_ns for path in files})
    return found


def say_made(before: dict[str, dict[Path, int]], after: dict[str, dict[Path, int]]) -> None:
    """Say which stages have made something anew and which have kept what was there."""
    said: dict[str, list[str]] = {"Made now": [], "Kept": []}
    for stage, files in after.items():
        made = sum(before[stage].get(path) != stamp for path, stamp in files.items())
        for word, number in (("Made now", made), ("Kept", len(files) - made)):
            if number:
                said[word].append(stage if number == len(files) else f"{stage} ({number} of {len(files)})")
    print("".join(f"\n{word}: {', '.join(stages)}." for word, stages in said.items() if stages))


def check(own: CustomData, settings: Settings, folder: Path) -> None:
    """Refuse to write results of a study when another has been run in its folder since.

    Raises
    ------
    StageError
    """
    if _read(settings.folder / RECORD).get("made_from") != made_from(own, settings):
        raise StageError(f"Another run has worked in {as_typed(folder)} since this study was run, with other rows or settings: run "
                         "the study again, or choose another folder.")


def _read(record: Path) -> dict[str, Any]:
    return read_json(record) if record.exists() else {}
