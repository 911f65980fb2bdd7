"""What notebooks display."""

import pytest
from matplotlib.figure import Figure
from synthtune.analysis import show
from synthtune.analysis.results import Results


@pytest.fixture
def shown(monkeypatch):
    """What is displayed."""
    found = []
    monkeypatch.setattr(show, "display", lambda data, raw=False: found.append(data))
    return found


def test_tables_show_texts_and_do_not_run_them(shown):
    show.table(
        [{"text": "<script>alert(1)</script>\nnext", "number": 1234.567, "none": None, "share": float("nan")}]
    )
    [data] = shown
    assert "<script>" not in data["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ⏎ next" in data["text/html"]
    assert "1,234.6" in data["text/html"]
    assert "share" not in data["text/html"]
    assert "<script>" in data["text/plain"]


def test_a_table_without_rows_says_so(shown):
    show.table([])
    assert shown == [{"text/markdown": "*Nothing.*", "text/plain": "Nothing."}]


def test_facts_put_records_on_one_line_and_leave_out_what_is_empty(shown):
    show.facts({"kept": 1200, "dropped": {"copied": 3, "empty": 0.5}, "note": "", "mean_logprob": None})
    assert shown[0]["text/plain"].split("\n")[1:] == ["   kept                 1,200", "dropped copied: 3, empty: 0.5"]


def test_pictures_have_a_text_for_those_who_do_not_see_them():
    picture = show.picture(Figure(figsize=(2, 1)), "Nothing at all.")
    assert picture.alt == "Nothing at all." and picture.data.startswith(b"\x89PNG") and picture.width == 220


def test_students_have_a_row_for_each_condition_amount_and_budget(laptop, monkeypatch):
    results, drawn = Results.read(*laptop), []
    monkeypatch.setattr(show, "picture", lambda figure, alt: drawn.append(figure))
    mine = results.students[results.students.task == "tweets"]
    show.students(mine, type("Task", (), {"metric": "accuracy"}))
    [axes] = drawn[0].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == len(mine.groupby(["budget", "condition", "amount"])) and "gold, 125" in names
    assert "gold+annotated (1,000), 500" in names and axes.get_xlabel() == "Accuracy on the test set (%)"


def test_a_figure_that_was_not_drawn_is_named(laptop, shown, tmp_path):
    _, settings = laptop
    assert show.figure(5, settings).data.startswith("*Figure 5. ") and len(shown) == 1
    elsewhere = settings.model_copy(update={"run_dir": tmp_path})
    assert show.figure(5, elsewhere).data == "*Figure 5 has nothing to show: the notebooks it draws from have not been run.*"


def test_files_are_listed_by_name(laptop, shown):
    folder, settings = laptop
    show.files([folder / "figures" / f"table_1.{suffix}" for suffix in ("csv", "md")], settings)
    assert shown[0]["text/plain"].split() == ["file", "formats", "figures/table_1", "csv,", "md"]
