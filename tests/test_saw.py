"""The paragraph that each notebook ends with says the numbers of its own results."""

import pandas as pd
import pytest
from synthtune import tasks
from synthtune.analysis import saw
from synthtune.analysis.results import FINE_TUNED
from synthtune.context import Context


def test_teacher(study):
    row = {"budget": 32, "model": "m", "accuracy": 0.0, "per_example": [1.0] * 20}
    measured = pd.DataFrame([{**row, "system": "prompted, 0-shot", "accuracy": 60.0, "per_example": [1.0] * 10},
                             {**row, "system": "other, 0-shot", "model": "other", "accuracy": 99.0},
                             {**row, "system": FINE_TUNED, "accuracy": 84.25}])
    said = saw.teacher(measured, study.task).data
    assert "on 32 gold examples, the teacher reaches 84.2 accuracy on 20 test examples" in said
    assert "60.0 (0-shot) on the first 10" in said and "99" not in said
    assert "prompted" not in saw.teacher(measured.tail(1), study.task).data


@pytest.mark.parametrize("surest_is_right", [True, False])
def test_annotation(study, surest_is_right):
    true = {example.id: example.target for example in study.task.pool}
    table = study.annotated.head(20).copy()
    other = {study.task.labels[0]: study.task.labels[1], study.task.labels[1]: study.task.labels[0]}
    table["log_probability"] = [-0.01 * place for place in range(20)]
    right = [(place < 15) == surest_is_right for place in range(20)]
    table["output"] = [true[name] if yes else other[true[name]] for name, yes in zip(table["id"], right, strict=True)]
    context = Context.of(study.task, study.settings, study.budget)
    said = saw.annotation({"n": 20, "kept": 20, "value": 75.0}, table, context).data
    assert "Of 20 annotated texts 75.0 % have the true label" in said
    assert ("most confident 100 % are right" in said) == surest_is_right
    assert "nothing was left" in saw.annotation({"n": 0}, table, context).data


def test_generation():
    report = {"sampled": 200, "kept": 150, "dropped": {"duplicate": 20, "malformed": 30}, "label_agreement": None,
              "distinct_2": 0.5, "distinct_2_gold": 0.75, "longest_copied_ngram": {"mean": 2.25, "max": 7}}
    said = saw.generation(report).data
    assert "Of 200 sampled pairs 150 (75 %) are kept" in said and "“malformed” (30)" in said and "7 at most" in said
    assert "distinct" not in saw.generation({**report, "kept": 0}).data.lower()


def test_students(tiny, tmp_path):
    settings = tiny(tmp_path).check("tweets")
    task = tasks.load("tweets", settings)

    def row(condition, amount, right, seed=1, budget=32):
        return {"budget": budget, "condition": condition, "amount": amount, "seed": seed, "accuracy": 100 * right / 40,
                "per_example": [1.0] * right + [0.0] * (40 - right)}

    table = pd.DataFrame([row("gold", 0, 20), row("gold", 0, 24, 2), row("gold+annotated", 60, 32), row("gold+annotated", 60, 32, 2),
                          row("gold+annotated", 30, 21), row("gold+annotated", 60, 0, budget=40), row("full", 0, 38, budget=160)])
    said = saw.students(table, task, settings).data
    assert "With 32 gold examples alone the student has 55.0 accuracy" in said
    assert "60 annotated examples add +25.0" in said and "30" not in said and "true examples give 95.0" in said
    assert "nothing was added" in saw.students(table[table["condition"] == "gold"], task, settings).data


def test_claims(tiny, tmp_path):
    (tmp_path / "figures").mkdir()
    rows = [("a", "mean", "holds"), ("a", "task", "does not hold"), ("d", "mean", "holds"), ("d", "mean", "not decided")]
    pd.DataFrame(rows, columns=["claim", "scope", "verdict"]).to_csv(tmp_path / "figures" / "claims.csv", index=False)
    said = saw.claims(tiny(tmp_path)).data
    assert "Of 3 checks" in said and "2 hold" in said and "holds: a, d; not decided: d" in said
