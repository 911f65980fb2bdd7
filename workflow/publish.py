"""Copy the results of a finished run into the repository: `figures/`, and the outputs of `notebooks/`.

    python workflow/publish.py runs/laptop
    python workflow/publish.py runs/public --folder public    # figures/public alone

Executed notebooks of a run have injected parameters and a history. Only their outputs are copied, into the notebooks of
the repository, whose prose may have changed since. The tour, which no run executes, is executed here. Publishing is
refused if the outputs are not what a reader gets by running the notebook as it is: if the code or the parameters differ,
or an output is an error, a warning, or a path of this machine.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from synthtune.errors import StageError
from synthtune.files import atomic_path
from synthtune.run import exit_status, notebook_runner
from synthtune.settings import ROOT

TEXTS = {".csv", ".html", ".md", ".svg", ".tex"}
"""Formats of figures that are searched for paths of this machine."""

PICTURE = re.compile(r"[A-Za-z0-9+/=]{500,}")
"""Bytes in base64, which may look like a path."""

DECIDED = re.compile(r"(number_format|\w+\.processes)=")
"""Settings that a run decides for its machine and hands to its notebooks; its results say in which format they were computed."""


def publish(run_dir: str | Path, root: str | Path = ROOT, folder: str = "") -> list[Path]:
    """Copy a run's figures to `figures/` and its outputs into `notebooks/`, after checking all of them.

    Parameters
    ----------
    run_dir : path
        Folder of a finished run of the profile that the notebooks name in their parameters.
    root : path
        The repository.
    folder : str
        Folder of `figures/` that gets the figures, for a run of another profile; the notebooks are left as they are.

    Returns
    -------
    list of Path
        The folder of figures and the notebooks written.

    Raises
    ------
    StageError
        If the run is not finished or does not match the notebooks; then nothing is written.
    """
    run_dir, root = Path(run_dir).resolve(), Path(root).resolve()
    figures = run_dir / "figures"
    if not (figures / "report.html").exists():
        raise StageError(f"{run_dir} holds no finished run (figures/report.html is missing): run it to its end first.")
    forbidden = machine_paths(run_dir, root)
    for path in sorted(figures.iterdir()):
        if path.suffix in TEXTS:
            _refuse_paths(path.read_text("utf-8"), forbidden, f"figures/{path.name}")
    shown, target = {}, root / "figures" / folder
    for path in [] if folder else sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        shown[path] = with_outputs(notebook, _executed(path, notebook, run_dir), path.name)
        _refuse_paths(nbformat.writes(shown[path]), forbidden, path.name)
    with atomic_path(target) as temporary:
        shutil.copytree(figures, temporary)
        for other in filter(Path.is_dir, target.glob("*")):  # of other profiles
            shutil.copytree(other, temporary / other.name)
    for path, notebook in shown.items():
        with atomic_path(path) as temporary:
            nbformat.write(notebook, temporary)
    return [target, *shown]


def machine_paths(run_dir: Path, root: Path) -> list[str]:
    """Prefixes of absolute paths that exist on this machine only."""
    folders = {run_dir, run_dir.parent.parent, root, root.parent, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir(), "tmp")}
    return sorted(str(folder) for folder in folders if len(folder.parts) > 1)


def _refuse_paths(text: str, forbidden: list[str], where: str) -> None:
    found = re.search(rf"(?:{'|'.join(map(re.escape, forbidden))})[/\w][^\s\"'<>\\]*", PICTURE.sub("", text))
    if found:
        raise StageError(f"{where} shows a path of this machine, {found[0]}: find the cell or the setting that prints "
                         "it, correct that, and run again.")


def parameters(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Values in a notebook's cell tagged "parameters"."""
    return _values(next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])))


def _values(cell: nbformat.NotebookNode) -> dict[str, Any]:
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def _executed(path: Path, notebook: nbformat.NotebookNode, run_dir: Path) -> nbformat.NotebookNode:
    """The notebook as this run executed it; a notebook that runs do not execute is executed now."""
    values = parameters(notebook)
    for prefix in (f"{values.get('task')}-{values.get('budget')}-", f"{values.get('task')}-", ""):
        executed = run_dir / "notebooks" / f"{prefix}{path.name}"
        if executed.exists():
            return nbformat.read(executed, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder, path.name)
        notebook_runner.run(path, executed, {"run_dir": str(run_dir)} if "run_dir" in values else {})
        return nbformat.read(executed, as_version=4)


def with_outputs(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """A copy of a notebook with the outputs of its executed copy.

    Raises
    ------
    StageError
        If the code or the parameters differ (apart from the run's folder), or an output is an error or a
        warning.
    """
    injected = [cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and cell not in injected]
    shown = copy.deepcopy(notebook)
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        raise StageError(f"{name}: its code has changed since the run executed it; run again, then publish.")
    values = parameters(notebook)
    for key, value in (item for cell in injected for item in _values(cell).items()):
        if key == "overrides":
            value = [item for item in value if not DECIDED.match(item)]
        if key != "run_dir" and value != values.get(key):
            raise StageError(f"{name}: the run had {key} = {value!r}, the notebook says {values.get(key)!r}; publish "
                             "a run with the notebook's own parameters.")
    empty = {"text/plain": ""}  # a finished progress bar leaves it
    for count, (cell, done) in enumerate(zip(code, ran, strict=True), 1):
        cell.execution_count = count
        cell.outputs = [_checked(output, count, name) for output in done.outputs if output.get("data") != empty]
    return shown


def _checked(output: nbformat.NotebookNode, count: int, name: str) -> nbformat.NotebookNode:
    if output.output_type == "error" or output.get("name") == "stderr":
        said = (output.get("text") or output.get("evalue", "")).strip().partition("\n")[0]
        raise StageError(f"{name}: the output of code cell {count} is an error or a warning ({said}): "
                         "remove its cause and run again.")
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 0, 1 (refused) or 2 (bad usage)."""
    parser = argparse.ArgumentParser(prog="python workflow/publish.py", description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="folder of a finished run, for example runs/laptop")
    parser.add_argument("--folder", default="", metavar="NAME", help="put the figures into figures/NAME, and leave the notebooks alone")
    chosen = parser.parse_args(arguments)

    def do() -> None:
        for path in publish(chosen.run_dir, folder=chosen.folder):
            print(f"wrote {path.relative_to(ROOT)}")

    return exit_status(do)


if __name__ == "__main__":
    sys.exit(main())
