"""`./run_all.sh --task my_task.yaml`: read, check, and, unless only that is asked for, train."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthtune.errors import SettingsError
from synthtune.files import claimed, digest, read_json, write_json
from synthtune.own_rows import OwnRows, read
from synthtune.places import as_typed, started_in
from synthtune.progress import duration

DONE = "done.json"
"""In the work folder: what the products beside it were made from."""


def run(task: str | None, check: bool = False, fix: bool = False, out: str | None = None,
        overrides: Sequence[str] = ()) -> int:
    """Read what a task file names and say what was found; with `fix`, write repaired copies; with neither, go on and train.

    Parameters
    ----------
    task : str
        Path of the task file.
    check, fix : bool
    out : str, optional
        Folder of the results; the task file's name with ".results" beside it if not given.
    overrides : sequence of str
        Changes to the profile, such as "students.amount=400".

    Returns
    -------
    int
        Exit status: 0 if there are only warnings, 1 if there are errors.

    Raises
    ------
    SettingsError, RowsError, StageError
        The task file or a setting cannot be used; the rows are too few; results or copies cannot be written.
    """
    if task is None:
        raise SettingsError("--check, --fix and --out are about your own rows: name their task file with --task FILE.")
    home = started_in()
    own = read(home / Path(task).expanduser())
    print(own.report, flush=True)
    if fix:
        from synthtune.own_rows import repairs

        written = repairs.fix(own)
        print("\nNothing to repair." if not written else "\nWritten; your files are as they were:")
        for path in written:
            print(f"  {os.path.relpath(path, home)}")
    if own.report.errors:
        if not (check or fix):
            print("\nNothing was trained: solve the errors first (--fix does what can be done safely).")
        return 1
    if not (check or fix):
        folder = home / Path(out).expanduser() if out else own.task.path.with_name(f"{own.task.name}.results")
        train(own, folder.resolve(), overrides)
    return 0


def train(own: OwnRows, folder: Path, overrides: Sequence[str] = ()) -> Any:
    """Do what has not been done for these rows and settings, say what is done again and why, and name the results.

    Returns
    -------
    study.Outcome or None
        None if there was nothing to do.
    """
    from synthtune.own_rows import page, products, study
    from synthtune.own_rows.parts import WORK, settings_of

    start = time.monotonic()
    with claimed(folder, "Choose another folder with --out DIR."):
        work = folder / WORK
        settings = settings_of(own, work, overrides)
        made_from = _made_from(own, settings)
        before = read_json(work / DONE) if (work / DONE).exists() else {}
        changed = [name for name, value in made_from.items() if before.get("made_from", {}).get(name) != value]
        if before and not changed and _untouched(folder, before):
            print(f"\nNothing to do: everything is up to date in {as_typed(folder)}.")
            return None
        if before and changed:
            print(f"\nChanged since the last run: {', '.join(changed)}. What depends on that is made again.")
        elif before:
            print("\nSome results are missing or were changed; they are written again.")
        outcome = study.run(own, folder, overrides)
        written = products.write(outcome, folder)
        write_json(work / DONE, {"made_from": made_from, "files": {path.name: digest(path) for path in written.values()
                                                                 if path.is_file()}})
        print(f"\n{page.verdict(outcome)}\nDone in {duration(time.monotonic() - start)}.")
        for name, path in written.items():
            print(f"  {name:<20} {as_typed(path)}")
        return outcome


def _made_from(own: OwnRows, settings: Any) -> dict[str, str]:
    """Digests of all that the results depend on, by the names that a message uses."""
    from synthtune import assets

    rows = {"labelled rows": own.gold, "unlabelled rows": own.unlabelled, "test rows": own.test}
    found = {name: digest(table.to_dict("list")) for name, table in rows.items()}
    found["task file"] = digest([own.task.description, own.labels, own.kind, own.task.name])
    sections = settings.model_dump(mode="json", exclude={"run_dir", "per_task", "tasks"})
    found |= {f"setting {name}": digest(value) for name, value in sections.items()}
    for model in (settings.teacher.model, settings.students.model):
        found[f"model {model}"] = assets.digest(model)
    return found


def _untouched(folder: Path, before: dict[str, Any]) -> bool:
    """Whether the results are there as they were written."""
    return all((folder / name).is_file() and digest(folder / name) == value for name, value in before["files"].items()) and (
        folder / "model" / "model.safetensors").exists() and (folder / "augmented" / "train.parquet").exists()
