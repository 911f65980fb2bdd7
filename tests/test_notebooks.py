"""The notebooks as readers find them, and how a run's outputs get into them."""

import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from synthtune.analysis import show
from synthtune.errors import StageError
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


def test_tables_show_texts_and_do_not_run_them(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "display", lambda data, raw: shown.append(data))
    show.table(
        [{"text": "<script>alert(1)</script>\nnext", "number": 1234.567, "none": None, "share": float("nan")}]
    )
    [data] = shown
    assert "<script>" not in data["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ⏎ next" in data["text/html"]
    assert "1,234.6" in data["text/html"]
    assert "share" not in data["text/html"]
    assert "<script>" in data["text/plain"]


@pytest.fixture
def repository(tmp_path):
    """A repository with one notebook, and a finished run that executed it."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(
            'task = "tweets"  # t\nbudget = 125  # b\nrun_dir = ""  # r', metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("print(task)"),
    ]
    source = tmp_path / "notebooks" / "02_annotate.ipynb"
    source.parent.mkdir()
    nbformat.write(notebook, source)
    executed = nbformat.reads(nbformat.writes(notebook), as_version=4)
    executed.metadata["papermill"] = {"input_path": "somewhere"}
    executed.cells.insert(
        2,
        nbformat.v4.new_code_cell(
            'task = "tweets"\nbudget = 125\nrun_dir = "/elsewhere"',
            metadata={"tags": ["injected-parameters"]},
        ),
    )
    executed.cells[-1].update(
        execution_count=3,
        outputs=[
            nbformat.v4.new_output("display_data", {"text/plain": ""}),
            nbformat.v4.new_output("stream", text="tweets\n"),
        ],
    )
    run = tmp_path / "runs" / "laptop"
    (run / "notebooks").mkdir(parents=True)
    (run / "figures").mkdir()
    (run / "figures" / "report.html").write_text("<p>report</p>")
    nbformat.write(executed, run / "notebooks" / "tweets-125-02_annotate.ipynb")
    return tmp_path


def change(repository, action):
    """Change the executed notebook of the repository's run."""
    path = repository / "runs" / "laptop" / "notebooks" / "tweets-125-02_annotate.ipynb"
    executed = nbformat.read(path, as_version=4)
    action(executed.cells)
    nbformat.write(executed, path)


def test_publish_takes_the_outputs_and_nothing_else(repository):
    change(repository, lambda cells: cells[0].update(source="# An earlier title"))
    source = repository / "notebooks" / "02_annotate.ipynb"
    before, when = nbformat.read(source, as_version=4), source.stat().st_mtime_ns
    publish.publish(repository / "runs" / "laptop", repository)
    after = nbformat.read(source, as_version=4)
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.metadata == before.metadata
    assert [cell.execution_count for cell in code(after)] == [1, 2]
    assert [output.text for output in after.cells[-1].outputs] == ["tweets\n"]
    assert source.stat().st_mtime_ns == when
    assert (repository / "figures" / "report.html").read_text() == "<p>report</p>"


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda cells: cells[-1].update(source="print('other')"), "code has changed"),
        (lambda cells: cells[2].update(source='task = "sgd"\nbudget = 125'), "task = 'sgd'"),
        (lambda cells: cells[-1].outputs[-1].update(name="stderr", text="FutureWarning: x"), "FutureWarning"),
    ],
)
def test_publish_refuses_what_the_notebook_would_not_show(repository, action, said):
    change(repository, action)
    source = repository / "notebooks" / "02_annotate.ipynb"
    before = source.read_bytes()
    with pytest.raises(StageError, match=said):
        publish.publish(repository / "runs" / "laptop", repository)
    assert source.read_bytes() == before
    assert not (repository / "figures").exists()


@pytest.mark.parametrize("where", ["notebook", "figure"])
def test_publish_refuses_paths_of_this_machine(repository, where):
    path = f"{repository}/runs/laptop/tweets"
    if where == "notebook":
        change(repository, lambda cells: cells[-1].outputs[-1].update(text=path))
    else:
        (repository / "runs" / "laptop" / "figures" / "claims.md").write_text(f"see {path}")
    with pytest.raises(StageError, match=re.escape(path)):
        publish.publish(repository / "runs" / "laptop", repository)


def test_what_the_bytes_of_a_picture_spell_is_no_path(repository, monkeypatch):
    monkeypatch.setattr(publish, "machine_paths", lambda *_: ["/somewhere"])
    spelt = f"{'A' * 400}/somewhere/else{'B' * 400}"
    change(repository, lambda cells: cells[-1].outputs[0].data.update({"image/png": spelt}))
    publish.publish(repository / "runs" / "laptop", repository)
    assert spelt in (repository / "notebooks" / "02_annotate.ipynb").read_text("utf-8")
    change(repository, lambda cells: cells[-1].outputs[-1].update(text="/somewhere/else/notes"))
    with pytest.raises(StageError, match="/somewhere/else/notes"):
        publish.publish(repository / "runs" / "laptop", repository)


def test_publish_needs_a_finished_run(repository):
    (repository / "runs" / "laptop" / "figures" / "report.html").unlink()
    with pytest.raises(StageError, match="holds no finished run"):
        publish.publish(repository / "runs" / "laptop", repository)


def test_publish_executes_what_no_run_executes(repository, monkeypatch):
    (repository / "runs" / "laptop" / "notebooks" / "tweets-125-02_annotate.ipynb").unlink()
    asked = []

    def run(notebook, output, parameters):
        asked.append(parameters)
        output.write_bytes(notebook.read_bytes())

    monkeypatch.setattr(publish.notebook_runner, "run", run)
    publish.publish(repository / "runs" / "laptop", repository)
    assert asked == [{"run_dir": str(repository / "runs" / "laptop")}]


def test_the_figures_of_another_profile_have_a_folder_of_their_own_and_keep_it(repository):
    source = repository / "notebooks" / "02_annotate.ipynb"
    before = source.read_bytes()
    publish.publish(repository / "runs" / "laptop", repository, "public")
    assert source.read_bytes() == before
    assert [path.name for path in (repository / "figures").iterdir()] == ["public"]
    publish.publish(repository / "runs" / "laptop", repository)
    assert {str(path.relative_to(repository / "figures")) for path in (repository / "figures").rglob("*.html")} == {
        "report.html", "public/report.html"}
