"""The notebooks as readers find them."""

import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from synthtune.settings import PUBLIC, TASKS, load
from synthtune.task_list import SPECS

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
import publish

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("0*.ipynb"))
LONGEST_CELL = 25
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|work|mnt|opt|var|private)/[\w.-]+")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cell(notebook):
    [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def test_they_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_tour",
        "01_teacher",
        "02_annotate",
        "03_generate",
        "04_students",
        "05_figures",
        "06_your_task",
    ]


def test_is_a_valid_notebook_for_any_python_3(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_every_parameter_is_a_plain_value_with_a_comment(notebook):
    for line in parameters_cell(notebook).source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # .+", line), line


@pytest.mark.parametrize("path", NOTEBOOKS[:-1], ids=lambda path: path.stem)
def test_defaults_are_a_study_that_can_run(path):
    values = publish.parameters(nbformat.read(path, as_version=4))
    settings = load(values["profile"], values["overrides"], values["run_dir"], values["data_root"])
    task, budget = values.get("task", TASKS[0]), values.get("budget", settings.budgets[0])
    assert settings.check(task, budget).profile == "laptop"
    assert budget in settings.budgets


def test_every_parameter_is_used(notebook):
    rest = "\n".join(cell.source for cell in code(notebook) if cell is not parameters_cell(notebook))
    used = {node.id for node in ast.walk(ast.parse(rest)) if isinstance(node, ast.Name)}
    assert set(publish.parameters(notebook)) <= used


def test_cells_are_short_and_explained(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= LONGEST_CELL
        assert max(map(len, cell.source.splitlines())) <= 110
    assert notebook.cells[0].cell_type == "markdown"
    assert "2310.01119" in notebook.cells[0].source
    assert "**Try**" in notebook.cells[-1].source


def test_no_loop_a_reader_would_skip(notebook):
    for cell in code(notebook):
        assert not [
            node
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, (ast.For, ast.While, ast.If))
        ]


def test_outputs_hold_no_error_no_warning_and_no_path_of_a_machine(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            pictures = {"image/png", "image/jpeg"}
            shown = output.get("text", "") + json.dumps(
                {name: content for name, content in output.get("data", {}).items() if name not in pictures}
            )
            assert not MACHINE_PATH.search(shown)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts in ([None] * len(counts), list(range(1, len(counts) + 1)))


def test_every_task_has_sentences_of_our_own():
    assert set(SPECS) == set(TASKS + PUBLIC) and all(len(spec.sentences) == 2 and spec.answer for spec in SPECS.values())
