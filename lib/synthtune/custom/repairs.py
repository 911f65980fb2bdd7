"""Repairs that change no meaning, written to copies beside the user's files, with a record of every change.

Labels lose the spaces around them and what nobody sees in them, keep one blank between their words, and get one spelling where they
look alike; rows with an empty text or label and exact duplicates go; so do byte-order marks and NUL bytes; text is written as UTF-8;
cells that a spreadsheet would run are escaped in CSV. What needs a decision (two labels for one text, a class with few rows) is left
to the user.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from synthtune.custom import checks
from synthtune.custom.gather import ROW_LIMIT, Gathered
from synthtune.custom.readers import ONE_COLUMN, as_text
from synthtune.custom.report import listed
from synthtune.custom.rows import CustomData
from synthtune.errors import RowsError
from synthtune.files import atomic_path, digest, read_json, write_json

PLAIN = ("utf-8", "ascii")


def fix(own: CustomData) -> list[Path]:
    """Write repaired copies of the files of a task, a task file that names them, and a record.

    Parameters
    ----------
    own : CustomData

    Returns
    -------
    list of Path
        What was written: the task file, the record, the copies. Empty if there is nothing to repair.

    Raises
    ------
    RowsError
        The labelled rows cannot be read; a file has more rows than are read; or a file that would be replaced
        was changed since it was written here.
    """
    if own.task.hub:
        raise RowsError(f"{own.task.hub}: a dataset on the hub is not repaired; download it and give its files, or train without.")
    if "rows" not in own.gathered:
        raise RowsError(f"{own.task.rows}: nothing is repaired, for the labelled rows cannot be read; solve the errors above first.")
    spelling = checks.spellings(own.gathered, own.task.label_names) if own.task_type == "classification" else {}
    repairs = {role: _Repair(own, role, spelling) for role in own.gathered}
    if not any(repair.needed for repair in repairs.values()):
        return []
    folder, name = own.task.path.parent, own.task.name
    task_file, record = folder / f"{name}.fixed.yaml", folder / f"{name}.fixed.json"
    written = [task_file, *(repair.path for repair in repairs.values())]
    _refuse_to_replace(written, record)
    for repair in repairs.values():
        repair.write()
    with atomic_path(task_file) as temporary:
        temporary.write_text(_task_file(own, repairs), "utf-8")
    write_json(record, {"task": own.task.path.name, "files": {role: repair.record() for role, repair in repairs.items()},
                        "written": {str(path): digest(path) for path in written}})
    return [task_file, record, *written[1:]]


class _Repair:
    """The repair of one file."""

    def __init__(self, own: CustomData, role: str, spelling: dict[str, str]):
        self.gathered: Gathered = own.gathered[role]
        self.table, self.role = self.gathered.table, role
        if self.gathered.rows_in > ROW_LIMIT:
            raise RowsError(f"{self.table.file}: {self.gathered.rows_in:,} rows, more than the {ROW_LIMIT:,} that are read; --fix "
                            "repairs only files that are read whole. Give a smaller file.")
        self.source = own.task.located(self.table.file)
        self.places = {self.table.columns.index(name): role for role, name in self.gathered.columns.roles.items()}
        self.path = self._beside()
        self.separator = own.task.separator or ("," if self.table.separator == ONE_COLUMN else self.table.separator)
        sieve = checks.Sieve(self.gathered, checks.cleaned(self.gathered, spelling))
        sieve.without_empty()
        sieve.without_duplicates()
        self.kept, self.dropped = sieve.frame.set_index("row"), sieve.dropped
        before = self.gathered.frame.set_index("row")
        self.changes = [{"row": row, "column": column, "before": before.at[row, role], "after": self._written(cell)}
                        for role, column in self.gathered.columns.roles.items() for row, cell in self.kept[role].items()
                        if self._written(cell) != before.at[row, role]]

    @property
    def needed(self) -> bool:
        """Whether a copy would differ from the file in more than its form."""
        frame = self.gathered.frame
        decoded = self.table.encoding not in PLAIN or frame["decoded"].any()
        return bool(self.changes or decoded or len(self.kept) < len(frame))

    def _beside(self) -> Path:
        kind, source = self.table.kind, self.source
        if kind == "arrow":
            name = f"{source.name}.{self.role}" if source.is_dir() else source.stem
            return source.with_name(f"{name}.fixed.parquet")
        if kind == "excel":  # with its ending, for a CSV file of the same name may be there too
            return source.with_name(f"{source.name}.fixed.csv")
        return source.with_name(f"{source.stem}.fixed{source.suffix}")

    def _written(self, cell: str) -> str:
        """A cell as it stands in the copy: escaped in CSV if a spreadsheet would run it."""
        return "'" + cell if checks.runs(cell) and self.table.kind in ("delimited", "excel") else cell

    def _rows(self, other: Callable[[Any], Any] = lambda cell: cell) -> Iterator[list[Any]]:
        """The rows of the copy: repaired in the columns that are used, as `other` makes them in the others."""
        for record in self.table.read():
            if record.row in self.kept.index:
                yield [self._written(self.kept.at[record.row, self.places[place]]) if place in self.places else other(cell)
                       for place, cell in enumerate(record.cells)]

    def write(self) -> None:
        """Write the copy."""
        with atomic_path(self.path) as temporary:
            if self.table.kind == "arrow":
                pd.DataFrame(list(self._rows()), columns=self.table.columns).to_parquet(temporary, index=False)
            elif self.table.kind == "jsonl":
                objects = (dict(zip(self.table.columns, row, strict=True)) for row in self._rows())
                lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)
                # Half a letter, which only JSON can name, is written as JSON names it.
                temporary.write_text(lines, "utf-8", "backslashreplace")
            else:
                rows = list(self._rows(lambda cell: self._written(checks.STRAY.sub("", as_text(cell)[0]))))
                pd.DataFrame(rows, columns=self.table.columns, dtype=str).to_csv(temporary, sep=self.separator, index=False)

    def record(self) -> dict[str, Any]:
        """What was done, with every row number."""
        return {"file": self.table.file, "sha256": digest(self.source) if self.source.is_file() else None, "written": self.path.name,
                "encoding": {"before": self.table.encoding, "after": "utf-8"},
                "rows": {"in": self.gathered.rows_in, "written": len(self.kept)}, "changes": self.changes, "dropped": self.dropped}


def _refuse_to_replace(paths: list[Path], record: Path) -> None:
    """Refuse to write over anything but what an earlier repair wrote and nobody changed."""
    known = read_json(record).get("written", {}) if record.exists() else {}
    if record.exists() and not known:
        raise RowsError(f"{record}: not a record that --fix wrote; rename or remove it.")
    changed = [path for path in paths if path.exists() and known.get(str(path)) != digest(path)]
    if changed:
        raise RowsError(f"{listed(map(str, changed))}: there already, and not as --fix wrote it; rename or remove it, then run again.")


def _task_file(own: CustomData, repairs: dict[str, _Repair]) -> str:
    """The task file that names the copies, and the columns that were guessed."""
    task, columns = own.task, own.columns
    values = task.model_dump(exclude_defaults=True, exclude={"encoding", "sheet"}) | {
        "text": list(columns.text), "label" if own.task_type == "classification" else "target": columns.output,
        **{role: str(Path(repair.table.file).with_name(repair.path.name)) for role, repair in repairs.items()}}
    ordered = {name: values[name] for name in type(task).model_fields if name in values}
    head = f"# Written by --fix from {task.path.name}; {task.name}.fixed.json says what was changed.\n"
    return head + yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)
