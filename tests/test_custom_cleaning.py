"""A user's own rows between reading and training: what becomes of odd labels, how rows are divided, what the page says."""

import base64
import re
import xml.etree.ElementTree as tree
from types import SimpleNamespace

import pandas as pd
import pytest
from synthtune import custom, settings
from synthtune.custom import page
from synthtune.custom.parts import cut, cut_in_words, held_out, parts
from synthtune.errors import RowsError

THINGS = ["The strap, soft as it looks, survived a rainy summer", "Hinge snapped on day three",
          "My mother finally hears the phone ring", "Smells of burnt plastic whenever it charges",
          "Two thumbs up for the tiny manual with big pictures", "Customer service never wrote back",
          "Quiet enough for a library", "Battery empties overnight, even switched off", "Worth every cent we paid last spring",
          "Letters rub away from the keys", "Fits exactly under my desk", "Arrived scratched and without its lid"]


def read(folder, outputs, texts=THINGS, output="label", **files):
    """The rows of a table of texts and their outputs, read; and the settings of the smoke profile."""
    lines = ["rows: rows.csv", "text: text", f"{output}: {output}", "profile: smoke"]
    for name, table in {"rows": {"text": texts, output: outputs}, **files}.items():
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
        lines += [f"{name}: {name}.csv"] if name != "rows" else []
    (folder / "task.yaml").write_text("\n".join(lines), "utf-8")
    return custom.read(folder / "task.yaml"), settings.load("smoke", run_dir=folder / "work")


def test_every_output_that_is_trained_on_is_one_of_the_labels(tmp_path):
    own, chosen = read(tmp_path, ["very  good", "New\xa0York", " very good", "New\nYork"] * 3)
    found = parts(own, chosen)
    assert len(found) == 1 + chosen.custom.folds
    for part in found:
        assert part.task.labels == ("New York", "very good")
        assert {example.target for example in (*part.task.gold(part.budget), *part.task.test)} <= set(part.task.labels)


ONE, NEAR = THINGS[-1], [f"{THINGS[-1]}{end}" for end in (".", "!", "?", " ?")]


@pytest.mark.parametrize("outputs, texts, said", [
    (["a"] * 11 + ["b"], THINGS, "the class 'b' (1) cannot be both learnt and tested: there is one row only"),
    (["a"] * 11 + ["b"] * 4, [*THINGS[:-1], *NEAR], "the class 'b' (4) cannot be both learnt and tested"),
    (["a"] * 10 + ["b", "c"] * 2, [*THINGS[:10], *NEAR], "the classes 'b' (2) and 'c' (2) cannot be both learnt and tested"),
    (["a", "b"] * 4, [f"{ONE}{' !' * number}" for number in range(8)], "all texts are nearly the same"),
    (list("abcdefgh"), THINGS[:8], "no class has more than one row"),
])
def test_rows_that_cannot_be_both_learnt_and_tested_are_refused_before_training(tmp_path, outputs, texts, said):
    own, chosen = read(tmp_path, outputs, texts)
    with pytest.raises(RowsError, match=re.escape(f"rows.csv: {said}")) as caught:
        parts(own, chosen)
    assert "abel more rows" in str(caught.value) or "Label rows" in str(caught.value)
    assert said in str(own.report) and [problem.name for problem in own.report.errors] == ["not testable"]
    other = {"text": ["Another one", "And another"], "label": outputs[:1] + outputs[-1:]}
    own, chosen = read(tmp_path, outputs, texts, test=other)
    assert held_out(own, chosen) == [] and len(parts(own, chosen)) == 1 and not own.report.errors


def test_a_training_part_may_lack_a_rare_class_if_two_others_are_in_it(tmp_path):
    own, chosen = read(tmp_path, ["a", "b"] * 5 + ["b", "rare"])
    found = parts(own, chosen)
    assert not own.report.errors and len(found) == 3 and all(part.task.labels == ("a", "b", "rare") for part in found)
    learnt = [{example.target for example in part.task.gold(part.budget)} for part in found]
    assert sorted(map(len, learnt)) == [2, 3, 3]


def test_texts_to_be_written_are_divided_too(tmp_path):
    own, chosen = read(tmp_path, [f"Gist {number}" for number in range(12)], output="target")
    folds = held_out(own, chosen)
    assert len(folds) == chosen.custom.folds and sorted(place for held in folds for place in held) == list(range(12))


def test_cut_texts_are_counted_as_the_student_reads_them(tmp_path):
    long = "one two three four five six seven eight nine ten eleven"  # eleven word pieces and two marks
    own, chosen = read(tmp_path, ["a", "b"] * 6, [long, *THINGS[1:]], unlabelled={"text": ["好" * 20, "short", f"{long} and"]},
                       test={"text": ["fine"], "label": ["a"]})
    chosen = chosen.model_copy(update={"students": chosen.students.model_copy(update={"max_tokens": 13})})
    counts = cut(own, chosen)
    assert counts["unlabelled"] == (2, 3) and counts["test"] == (0, 1) and counts["labelled"][1] == 12
    shorter = chosen.model_copy(update={"students": chosen.students.model_copy(update={"max_tokens": 12})})
    assert cut(own, shorter)["labelled"][0] > counts["labelled"][0]
    assert "2 of 3 unlabelled texts only the first 13 word pieces are read" in cut_in_words(own, chosen)
    whole = chosen.model_copy(update={"students": chosen.students.model_copy(update={"max_tokens": 64})})
    assert cut_in_words(own, whole) == "No text is longer than the 64 word pieces that are read of each."


def test_labels_are_letters_in_pictures_and_no_formulas():
    labels = ("$50_$100", "$\\frac$", "\x1b[31m", "<b>")
    tested = pd.DataFrame({"truth": labels, "predicted": labels})
    outcome = SimpleNamespace(own=SimpleNamespace(labels=labels), tested=tested)
    drawn = base64.b64decode(page._svg(page.confusion_picture(outcome)))
    assert tree.fromstring(drawn).tag.endswith("svg") and b"$50_$100" in drawn


@pytest.mark.parametrize("seeds, tested, said", [
    (1, 0, "over those rows; what another division of the rows into folds or another seed of a student (each was trained once) or"),
    (3, 20, "over those rows and over the 3 seeds of each student; what another training of the teachers would")])
def test_the_page_says_what_its_intervals_cover(seeds, tested, said):
    outcome = SimpleNamespace(own=SimpleNamespace(test=range(tested)), scores=pd.DataFrame({"seeds": [1, seeds]}))
    assert said in page.covered(outcome)
