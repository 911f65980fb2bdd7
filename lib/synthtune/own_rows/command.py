"""`./run_all.sh --task my_task.yaml --check` and `--fix`."""

from __future__ import annotations

import os
from pathlib import Path

from synthtune.errors import RowsError, SettingsError
from synthtune.own_rows import read
from synthtune.places import started_in


def run(task: str | None, check: bool, fix: bool) -> int:
    """Read what a task file names and say what was found; with `fix`, write repaired copies.

    Returns
    -------
    int
        Exit status: 0 if there are only warnings, 1 if there are errors.

    Raises
    ------
    SettingsError, RowsError
        The task file cannot be used; neither `check` nor `fix` is asked for; copies cannot be written.
    """
    if task is None:
        raise SettingsError(
            "--check and --fix are about your own rows: name their task file with --task FILE."
        )
    if not check and not fix:
        raise RowsError("Training on your own rows is not built yet; use --check to read and check them.")
    home = started_in()
    own = read(home / Path(task).expanduser())
    print(own.report)
    if fix:
        from synthtune.own_rows import repairs

        written = repairs.fix(own)
        print("\nNothing to repair." if not written else "\nWritten; your files are as they were:")
        for path in written:
            print(f"  {os.path.relpath(path, home)}")
    return 1 if own.report.errors else 0
