"""Rows of several labels: how they are read and scored, what the teacher writes, and what students say."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthtune import custom, metrics, settings, student, tasks, teacher
from synthtune.context import Context
from synthtune.custom import deployed
from synthtune.custom.confidence import OfLabels
from synthtune.errors import SettingsError
from synthtune.models import classifier, students
from synthtune.student import Cell, Row
from torch.nn import functional
from transformers import pipeline

WORDS = {"food": ("soup", "bread", "coffee", "jam"), "room": ("bed", "window", "shower", "lamp"),
         "staff": ("porter", "waiter", "cook", "maid")}


def remarks(number=120, seed=0):
    draw = random.Random(seed)
    for place in range(number):
        labels = sorted(draw.sample(list(WORDS), draw.choice((1, 2))))
        words = " and the ".join(draw.choice(WORDS[label]) for label in labels)
        yield f"The {words} of house {place} {draw.randrange(10**6)}.", labels


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hotel")
    lines = [f"{text},{';'.join(labels)}\n" for text, labels in remarks()]
    (folder / "hotel.csv").write_text("remark,topics\n" + "".join(lines))
    (folder / "hotel.yaml").write_text("rows: hotel.csv\ntext: remark\nlabel: topics\nlabel_separator: ';'\n")
    return folder / "hotel.yaml"


@pytest.fixture(scope="module")
def task(file):
    chosen = settings.load("smoke", {"tasks": [str(file)], "budgets": [60], "pool_size": 70, "test_size": 20, "dev_size": 20,
                                     "students.steps": 60, "students.learning_rate": 1e-3, "number_format": "float32"},
                           run_dir=file.parent / "run").check("hotel")
    return tasks.load("hotel", chosen), chosen


def test_cells_with_a_separator_and_lists_are_read_alike(file, tmp_path):
    (tmp_path / "hotel.jsonl").write_text("\n".join(json.dumps({"remark": text, "topics": labels[::-1]}) for text, labels in remarks()))
    (tmp_path / "hotel.yaml").write_text(file.read_text().replace("hotel.csv", "hotel.jsonl"))
    cells, lists = custom.read(file), custom.read(tmp_path / "hotel.yaml")
    assert list(cells.gold["output"]) == list(lists.gold["output"]) == ["; ".join(labels) for _, labels in remarks()]
    counts = dict.fromkeys(WORDS, 0)
    for _, labels in remarks():
        counts |= {label: counts[label] + 1 for label in labels}
    assert cells.report.labels == counts and "Labels (3)" in str(cells.report) and not cells.report.problems


def test_each_label_has_its_name_and_is_told_from_those_that_no_row_has(file, tmp_path):
    (tmp_path / "test.csv").write_text("remark,topics\nThe pool was warm.,pool;food\nThe jam was red.,food\n")
    text = file.read_text().replace("hotel.csv", str(file.parent / "hotel.csv")) + "test: test.csv\n"
    (tmp_path / "hotel.yaml").write_text(text + "label_names: {food: meals, room: rooms, staff: people}\n")
    own = custom.read(tmp_path / "hotel.yaml")
    assert set(own.report.labels) == {"meals", "rooms", "people"} and "meals; people" in set(own.gold["output"])
    [unknown] = [problem for problem in own.report.problems if problem.name == "unknown label"]
    assert "'pool'" in unknown.what and "food" not in unknown.what
    (tmp_path / "hotel.yaml").write_text(text.replace("label: topics", "target: topics"))
    with pytest.raises(SettingsError, match="label_separator are for classification"):
        custom.read(tmp_path / "hotel.yaml")


def test_scores_of_sets():
    found = metrics.multi_label(["a; b", "b", "c", "a"], ["a; b", "a; b", "b", "a"], ";")
    assert found["per_example"] == [1, 0, 0, 1] and found["accuracy"] == 50
    # a: 2 of 2, once too often; b: 2 of 2, once too often; c: never.
    assert found["macro_f1"] == pytest.approx(100 * (0.8 + 0.8 + 0) / 3)
    assert found["micro_f1"] == pytest.approx(100 * 2 * 4 / (5 + 6))


def test_no_set_that_the_teacher_writes_begins_another(task, lm):
    hotel, chosen = task
    assert hotel.classes == ("food", "room", "staff") and {"food", "food; room"} <= set(hotel.labels)
    written = [teacher.training_text(hotel, tasks.Example("", "", label), "annotate")[1] for label in hotel.labels]
    assert not any(other.startswith(text) for text in written for other in written if other != text)
    outputs, _, scores = teacher.answers(lm, Context.of(hotel, chosen), [example.text for example in hotel.test[:3]])
    assert set(outputs) <= set(hotel.labels) and scores.exp().sum(1).tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_scores_of_independent_labels():
    logits, sets = torch.tensor([[0.3, -1.2]]), torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    p, q = logits.sigmoid()[0].tolist()
    wanted = np.array([p * (1 - q), q * (1 - p), p * q])
    assert classifier.set_scores(logits, sets).exp()[0].tolist() == pytest.approx(list(wanted / wanted.sum()))


def test_thresholds_are_those_of_the_best_f1():
    probabilities = torch.tensor([[0.9, 0.22], [0.62, 0.34], [0.55, 0.1], [0.1, 0.12]])
    truth = torch.tensor([[1, 1], [1, 1], [0, 0], [0, 0]], dtype=torch.bool)
    assert classifier.thresholds(probabilities, truth).tolist() == pytest.approx([0.6, 0.2])


def test_a_student_learns_sets_from_labels_and_from_distributions(task, tmp_path):
    hotel, chosen = task
    bench = student.trainer(Context.of(hotel, chosen))
    rows = [Row(example.text, example.target) for example in hotel.gold(60)]
    trained = bench.train(rows, Cell(60, "gold", 0, 1))
    predicted, scores = bench.predict(trained, [example.text for example in hotel.test], scored=True)
    assert hotel.score(list(hotel.test), predicted)["micro_f1"] > 85 and trained.thresholds.shape == (3,)
    assert scores.shape == (20, len(hotel.labels)) and scores.exp().sum(1).tolist() == pytest.approx([1] * 20, abs=1e-4)
    model = bench.whole(trained)
    assert model.config.problem_type == "multi_label_classification" and set(model.config.label2id) == set(WORDS)
    [said] = pipeline("text-classification", model=model, tokenizer=bench.tokenizer, top_k=None)(["The soup and the bed of house 3 77."])
    texts = bench.logits_of_all(trained.model, ["The soup and the bed of house 3 77."]).sigmoid()[0].tolist()
    assert {each["label"]: each["score"] for each in said} == pytest.approx(dict(zip(hotel.classes, texts, strict=True)), abs=1e-3)
    model.save_pretrained(tmp_path)
    bench.tokenizer.save_pretrained(tmp_path)
    texts = [example.text for example in hotel.test]
    sets, again, _ = deployed.predict(tmp_path, texts, hotel.labels, hotel.separator)
    assert again == pytest.approx(scores.numpy(), abs=1e-2) and set(sets) <= set(hotel.labels)
    with pytest.raises(SettingsError, match="one label a row"):
        balanced = settings.load("smoke", {"students.class_weight": "balanced", "tasks": [str(chosen.task_files["hotel"])]})
        student.trainer(Context.of(hotel, balanced)).train(rows, Cell(60, "gold", 0, 1))


def test_thresholds_are_chosen_on_gold_rows_that_a_student_did_not_learn_from(task, tmp_path, monkeypatch):
    hotel, chosen = task
    folds = chosen.model_copy(update={"students": chosen.students.model_copy(update={"thresholds": "folds", "steps": 40})})
    bench, learned = student.trainer(Context.of(replace(hotel, dev=()), folds)), []
    fit = students.StudentTrainer.fit

    def fits(self, module, rows, cell, loss):
        learned.append({row.text for row in rows})
        return fit(self, module, rows, cell, loss)

    def chosen_on(probabilities, truth):
        assert probabilities.shape == truth.shape == (60, 3)
        return torch.tensor([0.5, 0.5, 0.0])

    monkeypatch.setattr(students.StudentTrainer, "fit", fits)
    monkeypatch.setattr(classifier, "thresholds", chosen_on)
    gold, more = hotel.gold(60), Row("The soup is annotated.", "food")
    trained = bench.train([*(Row(example.text, example.target) for example in gold), more], Cell(60, "gold+annotated", 1, 1))
    whole, *parts = learned
    assert len(whole) == 61 and [len(part) for part in parts] == [41, 41, 41] and all(more.text in part for part in parts)
    assert set.union(*(whole - part for part in parts)) == {example.text for example in gold}
    texts = [example.text for example in hotel.test]
    predicted, scores = bench.predict(trained, texts, scored=True)
    assert all("staff" in output for output in predicted) and len(set(predicted)) > 1
    bench.whole(trained).save_pretrained(tmp_path)
    bench.tokenizer.save_pretrained(tmp_path)
    sets, again, _ = deployed.predict(tmp_path, texts, hotel.labels, hotel.separator)
    assert sets == predicted and again == pytest.approx(scores.numpy(), abs=1e-2)
    known = {label: place for place, label in enumerate(hotel.labels)}
    confidence = OfLabels(1.0).of(again, [known.get(output, -1) for output in sets])
    assert (confidence > 0).tolist() == [output in known for output in sets]


def test_the_loss_of_a_soft_label_is_that_of_its_marginals(task, monkeypatch):
    hotel, chosen = task
    seen = []
    monkeypatch.setattr(students.StudentTrainer, "fit", lambda self, module, rows, cell, loss: seen.append((module.eval(), loss(rows)[0])))
    soft = tuple(1 / len(hotel.labels) for _ in hotel.labels)
    bench = student.trainer(Context.of(hotel, chosen))
    text = hotel.pool[0].text
    bench.train([Row(text, hotel.labels[0], soft)], Cell(60, "gold", 0, 1))
    [(module, loss)] = seen
    marginals = torch.tensor(metrics.label_sets(hotel.labels, hotel.classes, ";").mean(0, keepdims=True), dtype=torch.float32)
    wanted = functional.binary_cross_entropy_with_logits(bench.logits_of_all(module, [text]), marginals)
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
