"""Annotation by the real teacher: from inputs alone, kept, and judged afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from sealed import sealed
from synthtune import annotate, experiment, tasks, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.files import read_json
from synthtune.run import notebook_runner


@pytest.mark.slow
def test_true_outputs_are_never_read(study, tiny, tmp_path):
    """The proof: with every true output but gold's behind an alarm, or wrong, the same bytes are written."""
    wanted = (study.folder / "annotated.parquet").read_bytes()
    behind_an_alarm = sealed(study.task, study.budget)
    hidden = tiny(tmp_path / "hidden")
    table = annotate.annotate(study.annotator, Context.of(behind_an_alarm, hidden, study.budget))
    assert (hidden.folder / "tweets" / "budget-32" / "annotated.parquet").read_bytes() == wanted
    with pytest.raises(AssertionError, match="the true output of .* was read"):  # the alarm works
        annotate.check(table, study.annotator, Context.of(behind_an_alarm, hidden, study.budget))

    other = {"positive": "negative", "negative": "positive"}
    wrong = replace(study.task, pool=(*study.task.gold(study.budget), *(
        replace(example, target=other[example.target]) for example in study.task.pool[study.budget:])))
    scrambled = tiny(tmp_path / "scrambled")
    annotate.annotate(study.annotator, Context.of(wrong, scrambled, study.budget))
    assert (scrambled.folder / "tweets" / "budget-32" / "annotated.parquet").read_bytes() == wanted


def test_texts_are_written_from_inputs_alone(lm, tiny, tmp_path):
    settings = tiny(tmp_path, **{"annotate.inputs": 5, "annotate.max_new_tokens": 8})
    task = tasks.load("webnlg", settings)
    table = annotate.annotate(lm, Context.of(sealed(task, 32), settings, 32))
    assert list(table["text"]) == [example.text for example in task.pool[32:37]]
    assert list(table.columns) == ["id", "text", "output", "log_probability", "dropped"]
    assert set(table["dropped"]) == {""}
    assert all(output and "\n" not in output for output in table["output"]) and (table["log_probability"] < 0).all()
    report = annotate.check(table, lm, Context.of(task, settings, 32))
    assert report["metric"] == "bleu" and report["n"] == 5 and 0 <= report["value"] < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tweets", "webnlg"])
def test_where_every_input_has_its_label_nothing_is_annotated(tmp_path, name):
    """The largest budget of the paper is the whole pool: its notebook runs, and students do without annotations there."""
    changes = {**TINY, "pool_size": 40, "teacher.epochs_larger": 1, "generate.pairs": 8, "teacher.frozen_layers": 28,
               "run_dir": str(tmp_path)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    executed = tmp_path / "02_annotate.ipynb"
    notebook_runner.run(Path(__file__).parents[1] / "notebooks" / "02_annotate.ipynb", executed, {
        "profile": "smoke", "task": name, "budget": 40, "overrides": overrides, "run_dir": str(tmp_path)})
    folder = tmp_path / name / "budget-40"
    report = read_json(folder / "annotation.json")
    assert (report["n"], report["kept"], report["value"], report["scores"]) == (0, 0, None, {})
    assert not len(experiment.synthetic(folder / "annotated.parquet"))
    chosen = settings_module.load("smoke", overrides).check(name)
    cells = experiment.cells_given({32: {"annotated": 8, "generated": 8}, 40: {"annotated": 0, "generated": 8}}, 40, "classification",
                                chosen)
    assert {(cell.condition, cell.amount) for cell in cells if cell.budget == 40} == {
        ("gold", 0), ("gold+generated", 8), ("full", 0)}


@pytest.mark.parametrize(("name", "text", "output", "left_out"), [
    ("webnlg", "Barium | atomic number | 56 && Barium | symbol | Ba", "Barium (Ba) is element number 56.", []),
    ("webnlg", "Barium | atomic number | 56 && Barium | symbol | Ba", "Barium is element number 5.", ["56", "Ba"]),
    ("sgd", "Hotels, rooms && inform day = 20 May && inform name = Old Star or Blue Inn",
     "The OLD STAR has a room on 20 May, and so has the Blue Inn.", []),
    ("sgd", "Hotels, rooms && inform day = 20 May && request number of guests", "For how many?", ["20 May"]),
    ("tweets", "no values here", "positive", []),
])
def test_values_left_out(study, name, text, output, left_out):
    assert replace(study.task, name=name).missing_slots(text, output) == left_out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["webnlg", "sgd"])
def test_our_own_corpora_leave_nothing_out(tiny, tmp_path, name):
    task = tasks.load(name, tiny(tmp_path))
    assert not [example for example in task.pool if any(
        task.missing_slots(example.text, reference) for reference in example.references or (example.target,))]


def test_texts_that_leave_out_a_value_are_dropped_on_demand(lm, tiny, tmp_path, monkeypatch):
    task = tasks.load("webnlg", tiny(tmp_path))
    inputs = task.unlabelled(32)[:2]
    whole = next(example.target for example in task.pool if example.id == inputs[0].id)
    monkeypatch.setattr(teacher, "answers", lambda *_, **__: ([whole, "Something else."], [-1.0, -2.0], None))
    changes = {"annotate.inputs": 2, "annotate.outputs": "complete"}
    table = annotate.annotate(lm, Context.of(task, tiny(tmp_path, **changes), 32))
    assert list(table["dropped"]) == ["", "leaves out a value"]
    report = annotate.check(table, lm, Context.of(task, tiny(tmp_path, **changes), 32))
    assert report["n"] == 2 and report["kept"] == 1


def test_an_annotation_without_words_is_dropped_with_its_reason(lm, tiny, tmp_path, monkeypatch):
    task, settings = tasks.load("webnlg", tiny(tmp_path)), tiny(tmp_path, **{"annotate.inputs": 2, "annotate.outputs": "all"})
    monkeypatch.setattr(teacher, "answers", lambda *_, **__: (["Something.", " "], [-1.0, -2.0], None))
    table = annotate.annotate(lm, Context.of(task, settings, 32))
    assert list(table["dropped"]) == ["", "no output"] and annotate.check(table, lm, Context.of(task, settings, 32))["kept"] == 1
    assert len(experiment.synthetic(settings.folder / "webnlg" / "budget-32" / "annotated.parquet")) == 1


def test_every_input_gets_a_label_and_a_distribution(study):
    table, labels = study.annotated, list(study.task.labels)
    # The inputs are those that follow gold in the pool.
    assert list(table["id"]) == [example.id for example in study.task.pool[32:72]]
    assert not set(table["id"]) & {example.id for example in study.task.gold(32)}
    logs = table[[f"log P({label})" for label in labels]].to_numpy(float)
    np.testing.assert_allclose(np.exp(logs).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(logs.max(1), table["log_probability"], atol=1e-6)
    assert [labels[best] for best in logs.argmax(1)] == list(table["output"])


def test_annotations_are_kept_until_a_setting_of_theirs_changes(study, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "answers", lambda *_, **__: pytest.fail("annotated again"))
        for changes in ({}, {"students.steps": 9}, {"generate.pairs": 9}):
            again = annotate.annotate(study.annotator, Context.of(study.task, tiny(study.settings.folder, **changes), 32))
            pd.testing.assert_frame_equal(again, study.annotated)
    asked = []
    monkeypatch.setattr(teacher, "answers", lambda *arguments, **_: asked.append(arguments) or pytest.fail("asked"))
    for lm, changes in ((study.annotator, {"annotate.inputs": 9}), (replace(study.annotator, digest="other"), {})):
        with pytest.raises(pytest.fail.Exception):
            annotate.annotate(lm, Context.of(study.task, tiny(study.settings.folder, **changes), 32))
    assert len(asked[0][2]) == 9 and len(asked[1][2]) == 40


def test_all_that_is_unlabelled_is_annotated_if_no_number_is_set(study, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "answers", lambda lm, task, texts, *_, **__: (["positive"] * len(texts),
                                                                               [-0.1] * len(texts), None))
    table = annotate.annotate(study.annotator, Context.of(study.task, tiny(tmp_path, **{"annotate.inputs": None}), 40))
    assert list(table["id"]) == [example.id for example in study.task.pool[40:]]


def test_annotations_are_judged_afterwards(study):
    true = {example.id: example.target for example in study.task.pool}
    right = np.array([true[name] == output for name, output in
                      zip(study.annotated["id"], study.annotated["output"], strict=True)])
    report = annotate.check(study.annotated, study.annotator, Context.of(study.task, study.settings, 32))
    assert report == read_json(study.folder / "annotation.json")
    assert report["value"] == pytest.approx(100 * right.mean()) and report["metric"] == "accuracy"
    assert report["n"] == 40 and report["mean_logprob"] == pytest.approx(study.annotated["log_probability"].mean())
    assert {"task", "budget", "seconds", "model_digest", "data_digest", "settings_digest"} <= set(report)

    bins = annotate.reliability(study.annotated, Context.of(study.task, study.settings, 32), bins=4)
    assert list(bins["n"]) == [10, 10, 10, 10] and bins["confidence"].is_monotonic_increasing
    assert (bins["accuracy"] * bins["n"]).sum() / 40 == pytest.approx(100 * right.mean())
    assert bins["confidence"].between(0.5, 1).all()
