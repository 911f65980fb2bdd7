"""The tasks that are known, by name: those of `synthtune.tasks`, and those of Python files that a run's `tasks` name."""

import re
from dataclasses import replace
from importlib import import_module, util
from pathlib import Path

from synthtune.errors import SettingsError
from synthtune.files import digest
from synthtune.tasks.spec import Spec


def _built_in() -> dict[str, Spec]:
    """The tasks of every module of `synthtune.tasks` that has a line `TASKS = {`; the others are not imported."""
    modules = [path.stem for path in sorted(Path(__file__).with_name("tasks").glob("*.py"))
               if re.search("^TASKS = {", path.read_text("utf-8"), re.MULTILINE)]
    return {name: spec for module in modules for name, spec in import_module(f"synthtune.tasks.{module}").TASKS.items()}


# Every task by its name; `register` adds to it.
SPECS = _built_in()


def register(path: Path) -> list[str]:
    """Add the tasks of a Python file, its ``TASKS = {name: Spec(...)}``; return their names.

    A file that has changed since it was registered is read again. All that it says is part of what results are made from.

    Raises
    ------
    SettingsError
        There is no such file, it cannot be run, has no `TASKS`, or a name is taken or cannot be a folder's.
    """
    if not path.is_file():
        raise SettingsError(f"tasks: there is no file {path}; correct the path.")
    content = digest(path)
    before = {name: spec.rows for name, spec in SPECS.items() if spec.file == path}
    if content in before.values():
        return list(before)
    found = util.spec_from_file_location(f"task_of_{path.stem}", path)
    module = util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(f"{path} cannot be run ({type(error).__name__}: {error}); correct it.") from error
    tasks = getattr(module, "TASKS", None)
    if not isinstance(tasks, dict) or not tasks or not all(isinstance(spec, Spec) for spec in tasks.values()):
        raise SettingsError(f"{path}: a file of tasks says TASKS = {{\"name\": Spec(...)}}; docs/tasks.md has an example.")
    for name in tasks:
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or (name in SPECS and name not in before):
            raise SettingsError(f"{path}: the task's name '{name}' is taken, or has other characters than a to z, 0 to 9 and _; choose "
                                "another.")
    for name in before:
        del SPECS[name]
    SPECS.update({name: replace(spec, file=path, rows=content) for name, spec in tasks.items()})
    return list(tasks)


def is_custom(name: str) -> bool:
    """Whether a task is no part of this package."""
    return name not in SPECS or SPECS[name].file is not None


def is_own_corpus(name: str, data_root: Path | None) -> bool:
    """Whether a task's texts were written for this package, rather than being a corpus others collected.

    Such tasks read the real corpora where the settings name a folder that holds them.
    """
    return name in SPECS and bool(SPECS[name].toy_corpus) and not data_root


def title(name: str, data_root: Path | None) -> str:
    """Name of a task as people read it; a corpus that this package wrote is named as such, a custom task by its file."""
    if name not in SPECS:
        return name.replace("_", " ").capitalize()
    return f"{SPECS[name].title} format, own corpus" if is_own_corpus(name, data_root) else SPECS[name].title
