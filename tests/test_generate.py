"""New pairs from the real teacher, and what becomes of pairs of every kind."""

import pandas as pd
import pytest
from synthtune import generate, metrics, tasks, teacher
from synthtune.context import Context
from synthtune.files import read_json
from synthtune.models import decoding


def test_pairs_are_asked_for_equally_often_for_every_label(study):
    table = study.generated
    assert len(table) == 24 and dict(table["sampled"].value_counts()) == {"negative": 12, "positive": 12}
    assert all("\n" not in text for text in table["text"]) and (table["log_probability"] < 0).all()
    kept = table[table["dropped"] == ""]
    assert len(kept) >= 6, "this teacher writes too little that can be used for these tests to mean anything"
    assert set(kept["output"]) <= set(study.task.labels) and (kept["output"] == kept["relabelled"]).all()
    assert table.loc[table["dropped"] != "", "relabelled"].isna().all()  # what is dropped costs no more


def test_what_is_dropped_and_what_is_kept_add_up(study):
    report = generate.audit(study.generated, study.generator, Context.of(study.task, study.settings, 32))
    assert report == read_json(study.folder / "generation.json")
    assert report["requested"] == report["sampled"] == 24
    assert report["kept"] + sum(report["dropped"].values()) == 24 and set(report["dropped"]) <= set(generate.REASONS)
    assert sum(report["by_label"].values()) == report["kept"]
    kept = study.generated[study.generated["dropped"] == ""]
    assert report["label_agreement"] == pytest.approx(100 * (kept["sampled"] == kept["relabelled"]).mean())
    assert 0 < report["distinct_2"] <= 1 and report["temperature"] == 1.0 and report["top_p"] == 0.95
    copied = metrics.longest_copied_ngram(list(kept["text"]), [example.text for example in study.task.gold(32)])
    assert report["longest_copied_ngram"]["max"] == max(copied)


def test_the_seed_fixes_the_pairs(study, tiny, tmp_path):
    def texts(folder, **changes):
        settings = tiny(tmp_path / folder, **{"generate.pairs": 6, "generate.max_new_tokens": 12, **changes})
        return list(generate.generate(study.generator, study.annotator, Context.of(study.task, settings, 32))["text"])

    first = texts("a")
    assert texts("b") == first and texts("c", seed=18) != first and len(set(first)) > 1


def test_pairs_are_kept_until_a_setting_of_theirs_changes(study, tiny, monkeypatch):
    sampled = []
    monkeypatch.setattr(decoding, "decode", lambda *_, **__: sampled.append(1) or pytest.fail("sampled"))
    for changes in ({}, {"students.steps": 9}):
        again = generate.generate(study.generator, study.annotator, Context.of(study.task, tiny(study.settings.folder, **changes), 32))
        assert list(again["text"]) == list(study.generated["text"])
        assert list(again["dropped"]) == list(study.generated["dropped"])
    with pytest.raises(pytest.fail.Exception):
        other = tiny(study.settings.folder, **{"generate.temperature": 0.8})
        generate.generate(study.generator, study.annotator, Context.of(study.task, other, 32))


def pairs(*rows):
    return pd.DataFrame(rows, columns=["text", "sampled", "finished"]).assign(log_probability=-1.0)


def longest_gold(task):
    return max((example.text for example in task.gold(32)), key=len)


def test_every_reason_to_drop_a_text(study):
    gold = longest_gold(study.task)
    rows = [("such a lovely day for a walk", "positive", True, ""),
            ("", "positive", True, "empty"),
            ("!?", "positive", True, "empty"),
            ("word", "positive", True, "empty"),
            ("", "positive", False, "unfinished"),
            ("a sentence that has no", "negative", False, "unfinished"),
            ("Such a LOVELY day, for a walk!", "positive", True, "duplicate"),
            (gold, "positive", True, "copied from gold"),
            (gold.upper() + " !!", "negative", True, "copied from gold"),
            (gold + " ok", "negative", True, "copied from gold"),  # nearly the same
            ("nothing works in this town any more", "negative", True, "")]
    assert generate._malformed(pairs(*(row[:3] for row in rows)), Context.of(study.task, study.settings, 32)) == [row[3] for row in rows]


def test_every_reason_to_drop_an_input_of_facts(tiny, tmp_path):
    task = tasks.load("webnlg", tiny(tmp_path))
    gold = task.gold(32)[0].text
    rows = [("New Port | country | Norway", "New Port is in Norway.", True, ""),
            ("New Port | country", "New Port has a country.", True, "malformed"),
            ("New Port is in Norway", "New Port is in Norway.", True, "malformed"),
            ("New Port | country | Norway\nNew Port | age | 9", "It is.", True, "malformed"),
            ("New Port | country | Norway", "It is.", True, "duplicate"),
            ("Old Port | country | Norway", "", True, "empty"),
            ("Old Port | country | Norway", "Old Port is", False, "unfinished"),
            (gold, "Whatever it is.", True, "copied from gold")]
    assert generate._malformed(pairs(*(row[:3] for row in rows)), Context.of(task, tiny(tmp_path), 32)) == [row[3] for row in rows]


@pytest.fixture
def hand_made(study, tiny, tmp_path, monkeypatch):
    """Generate with given pairs for samples, and an annotator that calls everything negative."""
    table = pairs(("such a lovely day for a walk", "positive", True), ("word", "negative", True),
                  ("nothing works in this town any more", "negative", True), ("never again that hotel", "positive", True))
    monkeypatch.setattr(generate, "sample", lambda *_: table.copy())
    monkeypatch.setattr(teacher, "answers", lambda lm, task, texts, *_, **__: (
        ["negative"] * len(texts), [-0.2] * len(texts), None))

    def run(labels):
        settings = tiny(tmp_path / labels, **{"generate.labels": labels, "generate.pairs": 4})
        made = generate.generate(study.generator, study.annotator, Context.of(study.task, settings, 32))
        return made, generate.audit(made, study.generator, Context.of(study.task, settings, 32))

    return run


@pytest.mark.parametrize(("labels", "outputs", "dropped"), [
    ("raw", ["positive", "negative", "positive"], {"empty": 1}),
    ("relabelled", ["negative", "negative", "negative"], {"empty": 1}),
    ("filtered", ["negative"], {"empty": 1, "teacher disagrees": 2}),
])
def test_whose_label_a_pair_gets(hand_made, labels, outputs, dropped):
    table, report = hand_made(labels)
    assert list(table.loc[table["dropped"] == "", "output"]) == outputs
    assert report["dropped"] == dropped and report["kept"] == len(outputs)
    assert report["label_agreement"] == pytest.approx(100 / 3)  # of the three that the annotator saw


@pytest.mark.parametrize(("labels", "outputs", "dropped"), [
    ("raw", ["Barium has the symbol Ba.", "Zinc has the symbol Zn."], {"leaves out a value": 2}),
    # The sampled output steps in where the annotator's leaves something out.
    ("relabelled", ["Barium has the symbol Ba.", "Zinc is Zn.", "Tin is Sn."], {"leaves out a value": 1}),
])
def test_pairs_that_leave_out_a_value_are_dropped_on_demand(study, tiny, tmp_path, monkeypatch, labels, outputs, dropped):
    settings = tiny(tmp_path, **{"generate.labels": labels, "generate.pairs": 4, "annotate.outputs": "complete"})
    task = tasks.load("webnlg", settings)
    monkeypatch.setattr(generate, "sample", lambda *_: pairs(
        ("Barium | symbol | Ba", "Barium has the symbol Ba.", True), ("Zinc | symbol | Zn", "Zinc has the symbol Zn.", True),
        ("Tin | symbol | Sn", "Tin is a metal.", True), ("Iron | symbol | Fe", "Iron it is.", True)))
    monkeypatch.setattr(teacher, "answers", lambda *_, **__: (
        ["A symbol.", "Zinc is Zn.", "Tin is Sn.", "Iron."], [-1.0] * 4, None))
    table = generate.generate(study.generator, study.annotator, Context.of(task, settings, 32))
    assert list(table.loc[table["dropped"] == "", "output"]) == outputs
    assert generate.audit(table, study.generator, Context.of(task, settings, 32))["dropped"] == dropped


def test_a_pair_without_an_output_is_dropped_with_its_reason(study, tiny, tmp_path, monkeypatch):
    settings = tiny(tmp_path, **{"generate.labels": "relabelled", "generate.pairs": 2, "annotate.outputs": "all"})
    task = tasks.load("webnlg", settings)
    monkeypatch.setattr(generate, "sample", lambda *_: pairs(
        ("Barium | symbol | Ba", "Ba is barium.", True), ("Zinc | symbol | Zn", "Zn is zinc.", True)))
    monkeypatch.setattr(teacher, "answers", lambda *_, **__: (["", "Zinc is Zn."], [-1.0, -1.0], None))
    table = generate.generate(study.generator, study.annotator, Context.of(task, settings, 32))
    assert list(table["dropped"]) == ["no output", ""]
    assert generate.audit(table, study.generator, Context.of(task, settings, 32))["dropped"] == {"no output": 1}


def test_nothing_to_keep_is_no_error(study, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "sample", lambda *_: pairs(("", "positive", True), ("word", "negative", False)))
    settings = tiny(tmp_path, **{"generate.pairs": 2})
    table = generate.generate(study.generator, study.annotator, Context.of(study.task, settings, 32))
    report = generate.audit(table, study.generator, Context.of(study.task, settings, 32))
    assert report["kept"] == 0 and report["dropped"] == {"empty": 1, "unfinished": 1}
    assert list(generate.generate(study.generator, study.annotator, Context.of(study.task, settings, 32))["dropped"]) == [
        "empty", "unfinished"]
    assert generate.examples_of(table).empty


def test_an_input_and_its_output_are_told_apart(lm, tiny, tmp_path, monkeypatch):
    written = ["A b | of | C\nText: A b is of C.", "D | of | E", "F | of | G\nText: F is\nmore"]
    monkeypatch.setattr(decoding, "decode", lambda lm, prompts, *_, **__: (written, [-1.0] * 3, [True] * 3))
    settings = tiny(tmp_path, **{"generate.pairs": 3})
    task = tasks.load("webnlg", settings)
    table = generate.sample(lm, Context.of(task, settings, 32))
    assert list(table["text"]) == ["A b | of | C", "D | of | E", "F | of | G"]
    assert list(table["sampled"]) == ["A b is of C.", "", "F is\nmore"]
    assert generate._malformed(table, Context.of(task, settings, 32)) == ["", "empty", "malformed"]


def test_a_text_as_long_as_the_tasks_own_is_cut_as_they_are(study, tiny, tmp_path, monkeypatch):
    written = ["a story that goes on " * 4, "a story that"]
    monkeypatch.setattr(decoding, "decode", lambda lm, prompts, *_, **__: (written, [-1.0] * 2, [False] * 2))
    settings = tiny(tmp_path, **{"generate.pairs": 2, "max_characters": 40})
    table = generate.sample(study.generator, Context.of(study.task, settings, 32))
    assert list(table["text"]) == ["a story that goes on a story that goes", "a story that"]
    assert list(table["finished"]) == [True, False]


def test_other_labels_for_the_same_pairs_cost_no_sampling(study, tiny, tmp_path, monkeypatch):
    def labelled(labels):
        settings = tiny(tmp_path, **{"generate.pairs": 6, "generate.max_new_tokens": 24, "generate.labels": labels})
        return generate.generate(study.generator, study.annotator, Context.of(study.task, settings, 32))

    first = labelled("relabelled")
    monkeypatch.setattr(generate, "sample", lambda *_: pytest.fail("sampled again"))
    assert (labelled("raw")["output"] == first["sampled"]).all()
    filtered = labelled("filtered")
    kept = filtered[filtered["dropped"] == ""]
    assert (kept["sampled"] == kept["relabelled"]).all()
    differ = (first["dropped"] == "") & (first["sampled"] != first["relabelled"])
    assert list(filtered.index[filtered["dropped"] == "teacher disagrees"]) == list(first.index[differ])
    pd.testing.assert_frame_equal(labelled("relabelled"), first, check_dtype=False)


def test_examples_to_look_at():
    table = pd.DataFrame({"text": ["one two three four five"] * 8 + ["too short", "dropped as it is a copy"],
                          "output": ["a", "b"] * 5, "dropped": [""] * 9 + ["duplicate"]})
    shown = generate.examples_of(table, per_output=2)
    assert list(shown["output"]) == ["a", "a", "b", "b"] and set(shown["text"]) == {"one two three four five"}
