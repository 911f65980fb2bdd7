"""How a run's outputs get into the repository's notebooks, and its figures into `figures/`."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from synthtune.errors import StageError

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
import publish


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
    before = nbformat.read(source, as_version=4)
    publish.publish(repository / "runs" / "laptop", repository)
    after = nbformat.read(source, as_version=4)
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.metadata == before.metadata
    assert [cell.execution_count for cell in after.cells if cell.cell_type == "code"] == [1, 2]
    assert [output.text for output in after.cells[-1].outputs] == ["tweets\n"]
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
