"""Files that are either whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from synthtune.errors import StageError
from synthtune.places import as_typed

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it onto `path` when the block ends well, remove it otherwise.

    The temporary name may be written as a file or made into a folder. A folder replaces an older one whole.

    Raises
    ------
    StageError
        If the disk is full or the folder cannot be written; what `path` held before is untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _cannot("write to", path.parent, error) from error
    temporary = holder / path.name
    try:
        yield temporary
        if temporary.is_dir():
            replaced = holder / "replaced"
            if path.exists():
                os.rename(path, replaced)
            os.rename(temporary, path)
        else:
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
    except Exception as error:
        refused = _of_the_system(error)
        if refused is None:
            raise
        raise _cannot("write", path, refused) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _of_the_system(error: BaseException) -> OSError | None:
    """The operating system's refusal in an error; None if it is another.

    Libraries written in Rust (safetensors, tokenizers) raise errors of their own that only spell its number.
    """
    if isinstance(error, OSError):
        return error
    spelt = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(spelt[1]), os.strerror(int(spelt[1]))) if spelt else None


def refusal(error: BaseException) -> str | None:
    """Why the system did not write a file, in words; None if an error is of another kind."""
    refused = _of_the_system(error)
    number = refused and refused.errno
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):  # Xet spells the words alone
        return "the disk is full"
    return os.strerror(number).lower() if number else None


def _cannot(do: str, path: Path, error: OSError) -> StageError:
    return StageError(f"Cannot {do} {path}: {error.strerror or error}. Free space there or choose another folder, then run "
                      "again; finished work is kept.")


def remove(path: str | Path) -> None:
    """Remove a file if it is there.

    Raises
    ------
    StageError
        If the folder cannot be written.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise _cannot("remove", Path(path), error) from error


def remove_left_over(path: str | Path) -> None:
    """Remove what a kill inside `atomic_path` left beside a path and, where it is a folder, below it."""
    path = Path(path)
    for left in path.parent.glob(f".{path.name}.{'?' * 8}"):
        shutil.rmtree(left, ignore_errors=True)
    for parent, folders, _ in os.walk(path):
        for name in [name for name in folders if re.fullmatch(r"\..+\.\w{8}", name)]:
            folders.remove(name)
            shutil.rmtree(Path(parent, name), ignore_errors=True)


@contextlib.contextmanager
def locked(folder: str | Path, name: str = ".lock") -> Iterator[None]:
    """Let one process at a time fill a folder, or what a name in it stands for; others wait.

    The system frees the lock of a process that was killed.

    Raises
    ------
    StageError
        If the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire()
    except OSError as error:
        raise _cannot("write to", folder, error) from error
    try:
        yield
    finally:
        lock.release()


def made_once(folder: Path, there: Callable[[], bool], make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills if it is not `there`: by one process while others wait, whole or not at all.

    Raises
    ------
    StageError
        If it cannot be written.
    """
    if there():
        return folder
    with locked(folder.parent, f".{folder.name}.lock"):
        if not there():  # another process may have made it while this one waited
            remove_left_over(folder)
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                make(temporary)
    return folder


@contextlib.contextmanager
def claimed(folder: str | Path, advice: str) -> Iterator[None]:
    """Keep every other run out of a folder. The system frees the claim of a process that was killed.

    Raises
    ------
    StageError
        Another run is working in the folder, or it cannot be written; then the message ends with `advice`.
    """
    folder = Path(folder)
    note, lock = folder / ".lock", FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        note.write_text(f"{os.getpid()}\n")
    except Timeout as error:
        process = note.read_text().strip() or "unknown"
        raise StageError(f"Another run is working in {as_typed(folder)} (process {process}): wait for it, or stop it.") from error
    except OSError as error:
        lock.release()
        raise StageError(f"Cannot write to {folder}: {error.strerror}. {advice}") from error
    try:
        yield
    finally:
        lock.release()


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises
    ------
    StageError
        If the file is missing or is not JSON; the message says which and that removing it makes the stage run again.
    """
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing: run the stage that writes it first.") from error
    except ValueError as error:
        raise StageError(f"{path} is damaged ({error}): delete it and run again to compute it anew.") from error


def read_costs(folder: Path) -> list[dict[str, Any]]:
    """What the executed notebooks of the run in a folder took: notebook, task, budget, minutes and peak_rss_gib of each."""
    return [read_json(path) for path in sorted((folder / "minutes").glob("*.json"))]


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of the package, sequences as tuples."""
    return _tuples(yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _tuples(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _tuples(value) for key, value in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, list) else content


def write_table(path: Path, table: pd.DataFrame, record: Any) -> None:
    """Write a table as Parquet, and as JSON beside it what it was made from.

    A reader takes the table for what the record says, so an older record goes first: an interruption must not leave it
    with the new table.
    """
    remove(path.with_suffix(".json"))
    with atomic_path(path) as temporary:
        table.to_parquet(temporary)
    write_json(path.with_suffix(".json"), record)


def write_if_changed(path: str | Path, content: Any) -> bool:
    """Write JSON only if it differs from what the file holds, so that its time stamp marks a real change."""
    path = Path(path)
    if path.exists():
        with contextlib.suppress(StageError):
            if read_json(path) == json.loads(json.dumps(content)):
                return False
    write_json(path, content)
    return True


def digest(content: Any) -> str:
    """SHA-256, as hex: of a file's bytes for a Path, of canonical JSON for anything else."""
    if isinstance(content, Path):
        with open(content, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def cached(path: Path, fingerprint: dict, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table: read from its file if it was made from the same, made and written otherwise.

    Parameters
    ----------
    path : Path
        A Parquet file. The JSON file of the same name holds the fingerprint and the seconds that making took.
    fingerprint : dict
        All that the table depends on, as plain JSON.
    make : callable
    """
    import pandas as pd

    record = path.with_suffix(".json")
    if path.exists() and record.exists() and read_json(record)["made_from"] == fingerprint:
        return pd.read_parquet(path)
    start = time.perf_counter()
    table = make()
    write_table(path, table, {"made_from": fingerprint, "seconds": round(time.perf_counter() - start, 2)})
    return table
