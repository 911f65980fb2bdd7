"""Figures, drawn from made-up results."""

import itertools
import shutil
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from synthetic_results import copied
from synthtune import metrics
from synthtune.analysis import claims, figures, report, table
from synthtune.analysis.results import Results, added, corpora_sentence
from synthtune.conditions import (
    ANNOTATED,
    BOTH,
    CONDITIONS,
    FULL,
    GENERATED,
    GOLD,
    HARD,
    PROMPTED,
    Condition,
)
from synthtune.metrics import METRICS, Metric


@pytest.fixture(params=["smoke", "laptop"])
def run(request):
    """Both shapes in turn."""
    return request.getfixturevalue(request.param)


def test_every_figure_in_four_formats_at_print_size(run):
    written = sorted((run[0] / "figures").glob("figure_*"))
    assert {path.name for path in written} == {
        f"figure_{number}.{suffix}" for number in range(1, 8) for suffix in ("pdf", "svg", "png", "csv")
    }
    for path in written:
        assert path.stat().st_size > 100
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == 300 * figures.WIDTH and round(image.info["dpi"][0]) == 300


def test_same_results_give_the_same_bytes(smoke, tmp_path):
    folder, settings = copied(smoke, tmp_path)
    for path in (
        *figures.draw_all(folder, settings),
        *table.write(folder, settings),
        *claims.write(folder, settings),
    ):
        assert path.read_bytes() == (smoke[0] / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("number", figures.FIGURES)
def test_nothing_is_clipped_too_small_or_on_top_of_the_legend(run, number):
    results = Results.read(*run)
    figure = figures.draw(number, figures.table_of(number, results))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    drawn = figure.get_tightbbox(renderer)
    assert min(drawn.min) >= 0 and (drawn.max <= figure.get_size_inches()).all()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert texts
    for text in texts:
        assert text.get_fontsize() >= 7, text.get_text()
    for legend in figure.legends:
        place = legend.get_window_extent(renderer)
        for axes in figure.axes:
            assert not place.overlaps(axes.get_tightbbox(renderer))
    for axes in figure.axes:
        if number > 1:
            assert axes.get_xlabel() or axes.get_subplotspec().get_gridspec().nrows > 1
            # Ticks beyond the axis have labels too, which are not drawn.
            left, right = axes.get_xlim()
            ticks = [
                label.get_window_extent(renderer)
                for place, label in zip(axes.get_xticks(), axes.get_xticklabels())
                if left <= place <= right
            ]
            assert ticks
            assert not any(one.x1 > other.x0 for one, other in itertools.pairwise(ticks))


def test_figure_2_shows_the_means_of_the_results(laptop):
    results = Results.read(*laptop)
    shown = figures.table_of(2, results).set_index(["task", "series", "labelled"])
    rows = pd.concat([pd.read_parquet(path) for path in sorted(laptop[0].glob("*/results.parquet"))])
    compared = rows[(rows.task_type == "classification") & (rows.condition != HARD)]
    expected = compared.groupby(["task", "condition", "budget"]).accuracy.mean()
    for key, accuracy in expected.items():
        assert shown.loc[key, "mean"] == pytest.approx(accuracy)
    marks = shown.drop(index=[figures.TEACHER, FULL], level="series")
    assert (marks.low < marks["mean"]).all() and (marks["mean"] < marks.high).all()


def test_one_seed_has_no_interval(smoke):
    shown = figures.table_of(2, Results.read(*smoke))
    assert shown.low.isna().all() and shown.high.isna().all()
    assert table.table_1(Results.read(*smoke)).filter(like="±").isna().all(axis=None)


def test_figure_5_lists_every_amount_and_the_lines_to_compare_with(laptop):
    shown = figures.table_of(5, Results.read(*laptop))
    annotated = shown[(shown.task == "webnlg") & (shown.series == ANNOTATED)]
    assert list(annotated.synthetic) == [125, 250, 500, 1000]
    assert set(shown[shown.synthetic == 0].series) == {GOLD, figures.TEACHER, FULL}


def test_figure_6_compares_equal_amounts(laptop, tmp_path):
    folder, settings = copied(laptop, tmp_path)
    shown = figures.table_of(6, Results.read(folder, settings))
    assert set(shown[shown.task != "mean"].synthetic) == {1000}
    kinds = shown.groupby("task_type")["series"].agg(set)
    assert kinds["generation"] == {ANNOTATED, GENERATED, BOTH} and kinds["classification"] == {ANNOTATED, HARD, GENERATED, BOTH}
    for number in (2, 3, 7):
        assert HARD not in set(figures.table_of(number, Results.read(folder, settings)).series), "figure 6 alone shows it"
    # Where half-and-half was run with another amount only, that amount is compared.
    path = folder / "webnlg" / "results.parquet"
    rows = pd.read_parquet(path)
    rows.loc[rows.condition == BOTH, "amount"] = 500
    rows.to_parquet(path)
    shown = figures.table_of(6, Results.read(folder, settings))
    assert set(shown[shown.task == "webnlg"].synthetic) == {500}


def test_figure_7_adds_labels_and_hours(laptop):
    results = Results.read(*laptop)
    shown = figures.table_of(7, results).set_index(["task", "series", "labelled"])
    gold = shown.loc["tweets", GOLD, 125]
    seconds = results.rows("tweets", 125, GOLD).train_seconds.mean()
    assert gold.cost == pytest.approx(125 * 0.1 + seconds / 3600 * 0.1)
    rows = results.rows("tweets", 125, BOTH)
    minutes = results.minutes
    teacher = minutes[
        (minutes.task == "tweets") & (minutes.budget == 125) & (minutes.notebook == "01_teacher")
    ].minutes.iloc[0]
    expected = rows.train_seconds.mean() + max(60 * teacher, 180) + 90 / 2 + 300 / 2
    assert shown.loc["tweets", BOTH, 125].hours == pytest.approx(expected / 3600)


def test_free_labels_and_hours_can_be_drawn(smoke, tmp_path):
    settings = smoke[1].model_copy(update={"cost_per_label": 0.0, "cost_per_hour": 0.0})
    shown = figures.table_of(7, Results.read(smoke[0], settings))
    assert (shown.cost == 0).all()
    figures.save(figures.draw(7, shown), shown, tmp_path / "figure_7")


def test_captions_say_which_corpora_are_real(laptop, tmp_path):
    results = Results.read(*laptop)
    assert "Reuters R8" in figures.caption(2, results) and "Written for" not in figures.caption(2, results)
    assert "Written for this package" in figures.caption(3, results)
    assert "Real corpora: Film reviews" in figures.caption(6, results)
    sentence = "Synthetic examples added: 1,000 annotated, 1,000 generated, 1,000 of both kinds."
    assert added(results, results.tasks()) == sentence
    assert sentence in figures.caption(2, results) and sentence in table.notes(results)
    settings = laptop[1].model_copy(update={"data_root": Path("somewhere")})
    assert Results.read(laptop[0], settings).title("sgd") == "SGD" and results.title("sgd") == "SGD format, own corpus"
    assert corpora_sentence(["webnlg", "sgd"], settings) == "Real corpora: WebNLG and SGD."
    for number in figures.FIGURES:
        assert "{" not in figures.caption(number, results)


def test_missing_conditions_and_stages_are_left_out(laptop, tmp_path):
    folder, settings = copied(laptop, tmp_path)
    for path in folder.glob("*/results.parquet"):
        rows = pd.read_parquet(path)
        rows[~rows.condition.isin([GENERATED, BOTH, FULL])].to_parquet(path)
    shutil.rmtree(folder / "sgd")
    shutil.rmtree(folder / "minutes")
    for path in folder.glob("*/budget-*/*"):
        path.unlink()
    drawn = {path.stem for path in figures.draw_all(folder, settings)}
    assert drawn == {f"figure_{number}" for number in (1, 2, 3, 5, 6, 7)}
    table.write(folder, settings)
    claims.write(folder, settings)
    assert "Not checked" in (folder / "figures" / "claims.md").read_text()
    report.write(folder, settings)


def test_a_condition_is_one_entry(smoke, tmp_path, monkeypatch):
    folder, settings = copied(smoke, tmp_path)
    name = "gold+mostly annotated"
    for path in folder.glob("*/results.parquet"):
        rows = pd.read_parquet(path)
        pd.concat([rows, rows[rows.condition == BOTH].assign(condition=name)]).to_parquet(path)
    assert name not in set(figures.table_of(2, Results.read(folder, settings)).series), "not an entry yet"
    monkeypatch.setitem(CONDITIONS, name, Condition({"annotated": 0.75, "generated": 0.25}, color="#123456", marker="P"))
    results = Results.read(folder, settings)
    assert [rows.condition.iloc[0] for rows in results.compared("tweets", 25)] == [each for each in CONDITIONS if each != PROMPTED]
    for number in (2, 3, 5, 6, 7):
        shown = figures.table_of(number, results)
        assert name in set(shown.series)
        figure = figures.draw(number, shown)
        assert name in [text.get_text() for text in figure.legends[0].get_texts()]
        assert "#123456" in {line.get_color() for axes in figure.axes for line in axes.lines}
    shown = table.table_1(results)
    assert (shown[name] == shown[BOTH]).all() and f"| {name} |" in table.markdown(shown) and f"& {name} &" in table.latex(shown)


@pytest.fixture
def metric_table():
    """The table of metrics, which is as it was after the test, in the same order."""
    known = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(known)


def test_a_metric_is_one_entry(smoke, tmp_path, metric_table):
    folder, settings = copied(smoke, tmp_path)

    def same_length(truth, predicted):
        return [len(texts[0].split()) == len(guess.split()) for texts, guess in zip(truth, predicted, strict=True)]

    known = dict(metric_table)
    metric_table.clear()
    metric_table.update({"same_length": Metric("Same length", "generation", same_length, unit="%"), **known})
    scores = metrics.generation([["a b"], ["c"]], ["a b", "c d"])
    assert scores["same_length"] == 50 and scores["per_example"] == [1.0, 0.0] and "bleu" in scores
    for path in [*folder.glob("webnlg/results.parquet"), *folder.glob("webnlg/*/teacher.parquet")]:
        rows = pd.read_parquet(path)
        rows.assign(same_length=75.0, per_example=[[1.0, 1.0, 1.0, 0.0] * 10] * len(rows)).to_parquet(path)
    results = Results.read(folder, settings)
    for number in (3, 4, 5):
        shown = figures.table_of(number, results)
        row = shown[shown.task == "webnlg"].iloc[0]
        assert row.metric == "Same length" and row["mean"] == 75
        labels = " ".join(axes.get_xlabel() + axes.get_ylabel() for axes in figures.draw(number, shown).axes)
        assert "Same length (%)" in labels
    assert list(table.table_1(results).metric) == ["Accuracy", "Macro-F1", "Same length", "BLEU", "chrF", "ROUGE-L"]
    assert "same length points" in set(claims.claims(results).unit)
