"""`./run_all.sh --task my_task.yaml`: read, check, and, unless only that is asked for, train."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthtune.custom.reading import read
from synthtune.custom.rows import CustomData
from synthtune.errors import SettingsError
from synthtune.places import as_typed, started_in
from synthtune.progress import duration


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
        Changes to the profile, such as "annotate.inputs=400".

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
        raise SettingsError("--check, --fix and --out are about your data: name their task file with --task FILE.")
    home = started_in()
    own = read(home / Path(task).expanduser())
    print(own.report, flush=True)
    if fix:
        from synthtune.custom import repairs

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


def train(own: CustomData, folder: Path, overrides: Sequence[str] = ()) -> Any:
    """Do what has not been done for these rows and settings, say what is done again and why, and name the results.

    Returns
    -------
    study.Outcome or None
        None if there was nothing to do.
    """
    from synthtune.custom import page, products, record, study
    from synthtune.custom.parts import WORK, cut_in_words, settings_of

    start = time.monotonic()
    with record.working(folder):
        settings = settings_of(own, folder / WORK, overrides)
        if record.unchanged(settings.folder / record.RECORD, record.made_from(own, settings), folder):
            print(f"\nNothing to do: everything is up to date in {as_typed(folder)}.")
            return None
    print(f"\n{cut_in_words(own, settings)}", flush=True)
    outcome = study.run(own, folder, overrides)
    written = products.write(outcome, folder)
    print(f"\n{page.verdict(outcome)}\nDone in {duration(time.monotonic() - start)}.")
    for name, path in written.items():
        print(f"  {name:<20} {as_typed(path)}")
    return outcome
