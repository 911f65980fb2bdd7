"""The mixture of teacher and students of gold: its weight, its distribution, and what stages make of it."""

import numpy as np
import pandas as pd
import pytest
from synthtune import annotate, experiment, generate, mixture, tasks
from synthtune.context import Context
from synthtune.files import read_json
from synthtune.tasks.example import log_probability

MIXED = {"annotate.annotator": "mixture", "teacher.epochs": 1}


@pytest.fixture
def opinions(monkeypatch):
    """Teacher and students that are right about so many of ten texts, and sure of it."""
    def make(teacher, students):
        def sure(right):
            def of(task, texts):
                truth = {example.text: task.labels.index(example.target) for example in task.pool}
                found = np.full((len(texts), 2), 0.1)
                for place, text in enumerate(texts):
                    found[place, truth[text] if place % 10 < right else 1 - truth[text]] = 0.9
                return found
            return of

        monkeypatch.setattr(mixture, "_of_teacher", lambda lm, context, gold, texts, *_: sure(teacher)(context.task, texts))
        monkeypatch.setattr(mixture, "of_students", lambda context, gold, texts, *_: sure(students)(context.task, texts))
        monkeypatch.setattr(mixture.language_model, "load", lambda *_: None)

    return make


@pytest.mark.parametrize(("teacher", "students", "least", "most"), [(10, 5, 0.9, 1), (5, 10, 0, 0.1), (8, 8, 0, 1)])
def test_the_weight_follows_who_is_right_about_gold(opinions, tiny, tmp_path, teacher, students, least, most):
    settings = tiny(tmp_path, **MIXED).check("tweets")
    task = tasks.load("tweets", settings)
    opinions(teacher, students)
    found = mixture.weigh(Context.of(task, settings, 32))
    assert least <= found["weight"] <= most and found["n"] == 32
    assert max(found["teacher"], found["student"]) <= found["both"] + 1e-9
    opinions(students, teacher)
    assert mixture.weigh(Context.of(task, settings, 32)) == found  # it is read back
    other = tiny(tmp_path, **MIXED, **{"students.learning_rate": 3e-4}).check("tweets")
    assert (mixture.weigh(Context.of(task, other, 32))["weight"] == found["weight"]) == (teacher == students)


def test_a_weight_of_one_leaves_the_teachers_labels(opinions, tiny, tmp_path):
    settings = tiny(tmp_path, **MIXED).check("tweets")
    task = tasks.load("tweets", settings)
    opinions(10, 0)
    table = pd.DataFrame({"text": [example.text for example in task.pool[32:42]]})
    for place, label in enumerate(task.labels):
        table[log_probability(label)] = np.log([0.7, 0.3][place])
    found = mixture.combine(table, Context.of(task, settings, 32))
    assert set(found["output"]) == {task.labels[0]} and np.exp(found["log_probability"]).round(6).unique() == [0.7]


@pytest.mark.slow
def test_stages_take_the_mixtures_labels_and_students_learn_them(study, tiny, tmp_path):
    """Real models: the distribution in the tables is the mixture of the teacher's and the students', for both routes."""
    settings = tiny(tmp_path, **MIXED).check("tweets")
    task, lm = study.task, study.annotator
    annotated = annotate.annotate(lm, Context.of(task, settings, study.budget))
    report = annotate.check(annotated, lm, Context.of(task, settings, study.budget))["annotator"]
    columns = [log_probability(label) for label in task.labels]
    assert list(annotated["text"]) == list(study.annotated["text"])
    assert list(annotated["by_teacher"]) == list(study.annotated["output"])
    students = mixture.of_students(Context.of(task, settings), task.gold(study.budget), list(annotated["text"]), settings.students.seeds)
    weight = report["weight"]
    wanted = weight * np.exp(study.annotated[columns].to_numpy()) + (1 - weight) * students
    assert np.allclose(np.exp(annotated[columns].to_numpy()), wanted, atol=1e-3)
    assert list(annotated["output"]) == [task.labels[place] for place in wanted.argmax(1)]
    assert not (settings.folder / "tweets" / f"budget-{study.budget}" / "folds" / "0").exists()
    generated = generate.generate(study.generator, lm, Context.of(task, settings, study.budget))
    assert list(generated["sampled"]) == list(study.generated["sampled"])
    assert read_json(settings.folder / "tweets" / f"budget-{study.budget}" / mixture.RECORD)["weight"] == weight
    kept = generated[generated["dropped"] == ""]
    assert np.allclose(np.exp(kept[columns].to_numpy(float)).sum(1), 1, atol=1e-3)
    rows = experiment.synthetic_rows(annotated, task.labels, settings)
    assert np.allclose([row.soft for row in rows], wanted, atol=1e-3)


def test_where_nothing_is_labelled_nothing_is_weighed(tiny, tmp_path, monkeypatch):
    settings = tiny(tmp_path, **MIXED).check("tweets")
    task = tasks.load("tweets", settings)
    monkeypatch.setattr(mixture, "weigh", lambda *_: pytest.fail("teachers of the folds are trained for no text"))
    empty = pd.DataFrame({"text": [], **{log_probability(label): [] for label in task.labels}})
    found = mixture.combine(empty, Context.of(task, settings, 32))
    assert found.empty and {"output", "log_probability", *map(log_probability, task.labels)} == set(found.columns)
