"""Students on real data: which cells there are, what each trains on, and what a killed run loses."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from math import log
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from synthtune import experiment, student, tasks
from synthtune.context import Context
from synthtune.errors import StageError
from synthtune.models import assets, classifier, seq2seq, students
from synthtune.models.language_model import by_length
from synthtune.student import Cell, Row
from synthtune.tasks.example import log_probability
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SURE = 0.75
"""Probability of its label in a synthetic example; there are two labels."""

LIB = Path(student.__file__).parents[1]


def write_synthetic(task, settings, annotated=60, generated=30):
    """Synthetic examples as the two stages write them, with the pool's own texts and outputs."""
    for budget in settings.budgets:
        folder = settings.folder / task.name / f"budget-{budget}"
        folder.mkdir(parents=True, exist_ok=True)
        rest = task.pool[budget:]
        for name, examples in (("annotated", rest[:annotated]), ("generated", rest[-generated:])):
            table = pd.DataFrame([(e.text, e.target, "") for e in examples], columns=["text", "output", "dropped"])
            for label in task.labels:
                table[log_probability(label)] = [log(SURE if e.target == label else 1 - SURE) for e in examples]
            if name == "generated":
                dropped = pd.DataFrame([("a copy", None, "duplicate")], columns=["text", "output", "dropped"])
                table = pd.concat([dropped, table], ignore_index=True)
            table.to_parquet(folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def prepared(tiny, tmp_path_factory):
    """Tweets and facts with synthetic examples, to be copied."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("tweets", "webnlg"):
        settings = tiny(folder)
        write_synthetic(tasks.load(name, settings), settings)
    return folder


@pytest.fixture
def bench(prepared, tiny, tmp_path):
    """A task of that folder, copied, with settings for it."""
    def make(name, folder="run", **changes):
        shutil.copytree(prepared, tmp_path / folder)
        settings = tiny(tmp_path / folder, **changes).check(name)
        return tasks.load(name, settings), settings

    return make


def test_cells_are_complete_and_each_there_once(bench):
    task, settings = bench("tweets", **{"students.seeds": [1, 2, 3], "students.seeds_larger": [1, 2],
                                        "students.seeds_full": [4, 5], "students.sweep": [5]})
    cells = experiment.cells(Context.of(task, settings))  # of 60 annotated and 30 generated
    amounts = {"gold": 0, "gold+annotated": 60, "gold+generated": 30, "gold+both": 30}
    wanted = {Cell(budget, condition, amount, seed) for budget, seeds in ((32, (1, 2, 3)), (40, (1, 2))) for seed in seeds
              for condition, amount in amounts.items()}
    wanted |= {Cell(160, "full", 0, 4), Cell(160, "full", 0, 5)}
    equal = {Cell(32, f"gold+annotated{labels}", 30, seed) for seed in (1, 2, 3) for labels in ("", ", hard labels")}
    assert set(cells) == wanted | equal and len(cells) == len(wanted) + 6 == 28
    task, settings = bench("tweets", "hard", **{"students.synthetic_labels": "hard"})
    assert not any("hard" in cell.condition for cell in experiment.cells(Context.of(task, settings)))


def test_the_amounts_of_figure_5_are_cells_of_nlg_tasks(bench):
    task, settings = bench("webnlg", **{"students.seeds_larger": [1, 2], "students.sweep": [5, 20, 80]})
    cells = experiment.cells(Context.of(task, settings))
    assert len(cells) == len(set(cells)) == 5 + 8 + 1 + 5  # amount 60 with seed 1 is there already
    assert {(cell.amount, cell.seed) for cell in cells if cell.condition == "gold+annotated" and cell.budget == 32} == {
        (30, 1), *((amount, seed) for amount in (5, 20, 60) for seed in (1, 2))}


@pytest.mark.parametrize(("budgets", "there"), [("all", [32, 40, 48]), ("ends", [32, 48]), ("smallest", [32])])
def test_pairs_are_generated_at_some_budgets(bench, budgets, there):
    task, settings = bench("tweets", **{"budgets": [32, 40, 48], "generate.budgets": budgets})
    shutil.copytree(settings.folder / "tweets" / "budget-40", settings.folder / "tweets" / "budget-48")
    cells = experiment.cells(Context.of(task, settings))
    assert sorted({cell.budget for cell in cells if cell.condition == "gold+generated"}) == there
    assert sorted({cell.budget for cell in cells if cell.condition == "gold+both"}) == there
    assert {cell.budget for cell in cells if cell.condition == "gold+annotated"} == {32, 40, 48}


def test_students_of_more_examples_take_more_steps(bench):
    _, settings = bench("tweets", **{"students.steps": 10, "students.passes": 1.5, "students.batch_size": 8})
    assert [settings.steps(rows) for rows in (1, 53, 54, 160)] == [10, 10, 11, 30]


@pytest.mark.parametrize(("condition", "counts"), [
    ("gold", (32, 0, 0)), ("gold+annotated", (32, 21, 0)), ("gold+generated", (32, 0, 21)), ("gold+both", (32, 11, 10)),
    ("full", (160, 0, 0))])
def test_what_a_cell_trains_on(bench, condition, counts):
    task, settings = bench("tweets")
    rows, found = experiment.training_rows(Context.of(task, settings), Cell(32, condition, 21, 1))
    assert tuple(found[name] for name in ("n_gold", "n_annotated", "n_generated")) == counts
    gold = [Row(example.text, example.target) for example in task.pool[: counts[0]]]
    assert rows[: counts[0]] == gold
    rest = [*task.pool[32:32 + counts[1]], *task.pool[-30:][: counts[2]]]
    assert [(row.text, row.output) for row in rows[counts[0]:]] == [(e.text, e.target) for e in rest]  # "a copy" was dropped
    for row in rows[counts[0]:]:
        assert dict(zip(task.labels, row.soft, strict=True)) == pytest.approx(
            {label: SURE if label == row.output else 1 - SURE for label in task.labels})


@pytest.mark.parametrize(("changes", "sure"), [
    ({"students.synthetic_labels": "hard"}, None), ({"students.temperature": 2.0}, 3 ** 0.5 / (3 ** 0.5 + 1)),
    ({"generate.labels": "raw"}, None)])
def test_labels_are_hard_soft_or_softer(bench, changes, sure):
    task, settings = bench("tweets", **changes)
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold+generated", 1, 1))
    assert rows[-1].soft is None if sure is None else max(rows[-1].soft) == pytest.approx(sure)
    annotated, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold+annotated", 1, 1))
    assert (annotated[-1].soft is None) == (changes.get("students.synthetic_labels") == "hard")


@pytest.mark.parametrize(("name", "stage"), [("annotated", "02"), ("generated", "03")])
def test_missing_examples_name_the_file_and_the_stage(bench, name, stage):
    task, settings = bench("tweets")
    path = settings.folder / "tweets" / "budget-40" / f"{name}.parquet"
    path.unlink()
    with pytest.raises(StageError) as caught:
        student.run_cells(Context.of(task, settings))
    assert f"{path} is missing: run {stage}" in str(caught.value)


def test_a_route_that_gave_nothing_has_no_cells(bench):
    task, settings = bench("tweets")
    pd.DataFrame({"text": ["", "word"], "output": [None, None], "dropped": ["empty", "empty"]}).to_parquet(
        settings.folder / "tweets" / "budget-32" / "generated.parquet")
    cells = experiment.cells(Context.of(task, settings))
    assert {(cell.condition, cell.amount) for cell in cells if cell.budget == 32} == {
        ("gold", 0), ("gold+annotated", 60)}
    assert {cell.condition for cell in cells if cell.budget == 40} == {
        "gold", "gold+annotated", "gold+generated", "gold+both"}


def watch(monkeypatch):
    """List what `fit` is given for each cell, and the weights that come of it."""
    seen, fit = [], students.StudentTrainer.fit

    def watched(self, module, rows, cell, loss):
        module.eval()  # no dropout, so nothing random either
        at_first = [loss([row])[0].item() for row in rows[:6]], loss(rows[:6])[0].tolist()
        fit(self, module, rows, cell, loss)
        weights = torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
        seen.append((cell, at_first, weights.double()))

    monkeypatch.setattr(students.StudentTrainer, "fit", watched)
    return seen


@pytest.fixture
def fitted(monkeypatch):
    return watch(monkeypatch)


@pytest.fixture(scope="module")
def uninterrupted(prepared, tiny, tmp_path_factory):
    """Run all cells of a task, once: the folder, the results, and each cell's learned weights."""
    runs = {}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name) / "run"
            shutil.copytree(prepared, folder)
            settings = tiny(folder).check(name)
            with pytest.MonkeyPatch.context() as patch:
                seen = watch(patch)
                table = student.run_cells(Context.of(tasks.load(name, settings), settings))
            runs[name] = folder, table, {cell: learned for cell, _, learned in seen}
        return runs[name]

    return run


def test_a_classifier_is_the_pretrained_model_with_a_new_head(bench, fitted):
    """Split after its frozen layers it gives the same loss as whole, for single texts and side by side."""
    task, settings = bench("tweets")
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold", 0, 7))
    bench_of_task = student.trainer(Context.of(task, settings))
    predicted, _ = bench_of_task.predict(bench_of_task.train(rows, Cell(32, "gold", 0, 7)),
                                         [example.text for example in task.test])
    even = [replace(row, soft=(0.5, 0.5)) for row in rows]
    bench_of_task.train(even, Cell(32, "gold", 0, 7))
    assert len(predicted) == 40 and set(predicted) <= set(task.labels)
    (_, (single, together), _), (_, (certain, uncertain), _) = fitted
    path = assets.model_path("minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(7)
    whole = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2).eval()
    with torch.inference_mode():
        wanted = [functional.cross_entropy(whole(**tokenizer(row.text, return_tensors="pt")).logits,
                                           torch.tensor([task.labels.index(row.output)])).item() for row in rows[:6]]
        both = [functional.cross_entropy(whole(**tokenizer(row.text, return_tensors="pt")).logits,
                                         torch.tensor([[0.5, 0.5]])).item() for row in rows[:6]]
    assert single == pytest.approx(wanted, abs=1e-4) and together == pytest.approx(wanted, abs=1e-4)
    assert certain == pytest.approx(both, abs=1e-4) and uncertain == pytest.approx(both, abs=1e-4)


def test_balanced_classes_weigh_alike_in_the_loss(bench, fitted):
    task, settings = bench("tweets")
    _, balanced = bench("tweets", "balanced", **{"students.class_weight": "balanced"})
    all_rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold", 0, 7))
    rare, common = ([row for row in all_rows if row.output == label] for label in task.labels)
    rows = [*rare[:2], *common[:8]]
    for chosen in (settings, balanced):
        student.trainer(Context.of(task, chosen)).train(rows, Cell(32, "gold", 0, 7))
    (_, (alike, _), _), (_, (weighed, _), _) = fitted
    assert [each / other for each, other in zip(weighed, alike, strict=True)] == pytest.approx([10 / 4] * 2 + [10 / 16] * 4, rel=1e-4)
    assert "class_weight" not in settings.for_stage("students", "tweets")["students"], "students of before stay what they are"


def test_a_writer_reads_texts_side_by_side_as_one_by_one(bench, fitted):
    task, settings = bench("webnlg")
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold", 0, 7))
    student.trainer(Context.of(task, settings)).train(rows, Cell(32, "gold", 0, 7))
    [(_, (single, together), _)] = fitted
    assert together == pytest.approx(single, rel=1e-4) and len({round(value, 3) for value in single}) > 1


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_decoder_begins_to_read_with_pretrained_attention(bench, pretrained):
    changes = {"students.cross_attention": "pretrained", "students.dropout": 0} if pretrained else {}
    task, settings = bench("webnlg", **changes, **{"students.decoder_layers": 2})
    writer = student.trainer(Context.of(task, settings))
    model = writer.begun([Row(example.text, example.target) for example in task.pool[:2]])[0].model
    layers, highest = model.decoder.bert.encoder.layer, writer.pretrained.encoder.layer[-2:]
    for layer, source in zip(layers, highest, strict=True):
        assert torch.equal(layer.crossattention.self.query.weight, source.attention.self.query.weight) is pretrained
    assert {module.p for module in model.decoder.modules() if isinstance(module, torch.nn.Dropout)} == ({0.0} if pretrained else {0.1})


def test_every_word_counts_alike_whatever_the_length_of_its_text(bench):
    """A text of three words weighs three times one of one word."""
    task, settings = bench("tweets")
    bench_of_task = student.trainer(Context.of(task, settings))
    rows = [experiment.Row(task.test[0].text, "positive"), experiment.Row(task.test[1].text, "positive")]
    bench_of_task.read([row.text for row in rows])
    module = torch.nn.Linear(1, 2, bias=False)
    gradients = []
    module.weight.register_hook(lambda gradient: gradients.append(gradient.flatten().tolist()))

    def loss(batch):  # each text has a parameter of its own and as many words as this says
        words = torch.tensor([3.0 if row is rows[0] else 1.0 for row in batch])
        own = torch.stack([module.weight[0 if row is rows[0] else 1, 0] for row in batch])
        return own * words, words

    bench_of_task.fit(module, rows, Cell(2, "gold", 0, 1), loss)
    assert gradients[0] == pytest.approx([3 / 4, 1 / 4])


def scores(task, settings):
    """The results of the one `full` cell at seed 1."""
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(len(task.pool), "full", 0, 1))
    bench_of_task = student.trainer(Context.of(task, settings))
    trained = bench_of_task.train(rows, Cell(len(task.pool), "full", 0, 1))
    return task.score(list(task.test), bench_of_task.predict(trained, [example.text for example in task.test])[0])


@pytest.mark.slow
def test_a_classifier_learns(bench):
    changes = {"students.learning_rate": 3e-4, "students.frozen_layers": 4, "students.batch_size": 16}
    task, settings = bench("tweets", **changes, **{"students.steps": 25})
    balanced = [e for label in task.labels for e in [e for e in task.test if e.target == label][:13]]
    task = replace(task, test=tuple(balanced))
    untrained = settings.model_copy(update={"students": settings.students.model_copy(update={"steps": 1})})
    assert scores(task, settings)["macro_f1"] > max(60, scores(task, untrained)["macro_f1"] + 10)


def test_a_writer_learns(bench):
    task, settings = bench("webnlg", **{"students.learning_rate": 1e-3, "students.steps": 40,
                                        "students.decoder_layers": 2, "students.max_new_tokens": 24})
    untrained = settings.model_copy(update={"students": settings.students.model_copy(update={"steps": 1})})
    before, after = scores(task, untrained), scores(task, settings)
    assert after["chrf"] > before["chrf"] + 10 and after["bleu"] > before["bleu"]


RUN = textwrap.dedent("""
    import sys, torch
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[1])
    from conftest import TINY
    from synthtune import student
    from synthtune.context import Context
    student.run_cells(Context.load("smoke", sys.argv[3], None, TINY, sys.argv[2]))
""")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tweets", "webnlg"])
def test_a_killed_run_loses_the_cell_in_flight_and_nothing_else(uninterrupted, bench, fitted, name):
    _, whole, weights = uninterrupted(name)
    fitted.clear()
    assert len(whole) == len(weights) == (11 if name == "tweets" else 10)
    task, settings = bench(name)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(Path(__file__).parent), str(settings.folder), name],
                               env={**os.environ, "PYTHONPATH": str(LIB)}, stderr=subprocess.PIPE, text=True)
    cells = settings.folder / name / "cells"
    while len(list(cells.glob("*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cells.glob("*.parquet")}
    assert 3 <= len(done) < len(whole) and not (settings.folder / name / "results.parquet").exists()

    resumed = student.run_cells(Context.of(task, settings))
    assert len(fitted) == len(whole) - len(done)  # only what was missing
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == before for path, before in done.items())
    # To the last digit: what a student learns depends on its cell and not on the cells run before it.
    assert all(torch.equal(learned, weights[cell]) for cell, _, learned in fitted)
    timed = ["train_seconds", "answer_seconds"]
    pd.testing.assert_frame_equal(resumed.drop(columns=timed), whole.drop(columns=timed))
    pd.testing.assert_frame_equal(pd.read_parquet(settings.folder / name / "results.parquet"), resumed)


def test_a_row_of_the_results(uninterrupted, tiny):
    folder, table, _ = uninterrupted("tweets")
    assert list(table.columns) == [
        "task", "task_type", "budget", "condition", "amount", "seed", "n_gold", "n_annotated", "n_generated", "accuracy",
        "macro_f1", "bleu", "chrf", "rouge_l", "per_example", "train_seconds", "answer_seconds", "parameters", "number_format",
        "device", "data_digest", "model", "model_digest", "settings_digest", "settings"]
    settings = tiny(folder)
    assert [(row.budget, row.condition, row.amount, row.seed) for row in table.itertuples()] == [
        (cell.budget, cell.condition, cell.amount, cell.seed)
        for cell in experiment.cells(Context.of(tasks.load("tweets", settings), settings))]
    for row in table.itertuples():
        assert len(row.per_example) == 40 and row.accuracy == pytest.approx(100 * sum(row.per_example) / 40)
        assert row.n_annotated + row.n_generated == row.amount and pd.isna(row.bleu)
    gold = table[table["condition"] == "gold"]
    assert list(gold["n_gold"]) == list(gold["budget"]) == [32, 40] and gold["data_digest"].nunique() == 2


def test_a_changed_example_or_setting_runs_again_what_it_changes(uninterrupted, tiny, tmp_path, fitted):
    shutil.copytree(uninterrupted("tweets")[0], tmp_path / "run")
    fitted.clear()
    path = tmp_path / "run" / "tweets" / "budget-32" / "annotated.parquet"
    table = pd.read_parquet(path)
    table.loc[20, "text"] += " really"  # beyond the 15 that gold+both takes
    table.to_parquet(path)
    settings = tiny(tmp_path / "run", **{"students.seeds_full": [1, 2]})
    student.run_cells(Context.of(tasks.load("tweets", settings), settings))
    assert [(cell.budget, cell.condition, cell.seed) for cell, _, _ in fitted] == [
        (32, "gold+annotated", 1), (32, "gold+annotated", 1), (32, "gold+annotated, hard labels", 1), (160, "full", 2)]


def test_a_further_budget_changes_no_batch_in_which_a_text_is_read(tiny, tmp_path, monkeypatch):
    """In other batches a text's last digits differ, and the students after a training with them much more."""
    batches = {}
    monkeypatch.setattr(students.StudentTrainer, "fit", lambda *_: None)
    for budgets in ((32, 96), (32, 64, 96)):
        settings = tiny(tmp_path / str(len(budgets)), budgets=list(budgets))
        task = tasks.load("tweets", settings)
        write_synthetic(task, settings)
        if 64 in budgets:  # a route's examples may come in any order
            annotated = settings.folder / "tweets" / "budget-64" / "annotated.parquet"
            pd.read_parquet(annotated).iloc[::-1].to_parquet(annotated)
        seen = batches.setdefault(budgets, set())

        def read(rows, size, seen=seen):
            found = by_length(rows, size)
            seen.update(frozenset(tuple(rows[index]) for index in batch) for batch in found)
            return found

        monkeypatch.setattr(students, "by_length", read)
        student.run_cells(Context.of(task, settings))
    assert len(batches[32, 96]) > 4 and batches[32, 96] == batches[32, 64, 96]


@pytest.mark.parametrize(("pieces", "text"), [
    ("well - known , too .", "well-known, too."),
    ("it ' s 3 . 5 km ( or 2 , 000 m ) long !", "it's 3.5 km (or 2,000 m) long!"),
    ("at 10 : 30 , for $ 20 ?", "at 10:30, for $20?"),
    ("nothing to do", "nothing to do"),
    ("", ""),
])
def test_word_pieces_are_joined(pieces, text):
    assert seq2seq.joined(pieces) == text


@pytest.mark.parametrize(("condition", "annotated", "generated"), [
    ("gold", 0, 0), ("gold+annotated", 7, 0), ("gold+annotated, hard labels", 7, 0), ("gold+generated", 0, 7), ("gold+both", 4, 3)])
def test_how_many_examples_of_each_route_a_condition_takes(condition, annotated, generated):
    amount = 0 if condition == "gold" else 7
    assert experiment.shares(Cell(32, condition, amount, 1)) == {
        route: number for route, number in (("annotated", annotated), ("generated", generated)) if number}


@pytest.mark.parametrize(("text", "marks", "shown"), [
    ("Rome | country | Italy", {"α": "Rome", "β": "Italy"}, "α | country | β"),
    ("ROME, not Romeo", {"α": "Rome"}, "α, not Romeo"),
    ("New York is not York", {"α": "York", "β": "New York"}, "β is not α"),
    ("at 10:30 for 10", {"α": "10", "β": "10:30"}, "at β for α"),
    ("nothing", {}, "nothing")])
def test_values_stand_as_placeholders(text, marks, shown):
    assert students.marked(text, marks) == shown
    assert students.put_back(shown, marks).lower() == text.lower()


def test_a_writer_copies_values_that_it_has_never_seen(bench):
    task, settings = bench("webnlg", **{"students.values": "copied"})
    bench_of_task = student.trainer(Context.of(task, settings))
    assert bench_of_task.marked("Zyx | country | Qwv") == ("α | country | β", {"α": "Zyx", "β": "Qwv"})
    assert bench_of_task.marked("α | country | Qwv") == ("β | country | γ", {"β": "α", "γ": "Qwv"})
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold", 0, 1))
    shown = bench_of_task.marked_rows(rows)
    assert all("α" in row.text for row in shown) and sum("α" in row.output for row in shown) > len(rows) / 2
    trained = bench_of_task.train(rows, Cell(32, "gold", 0, 1))
    alpha = bench_of_task.tokenizer.convert_tokens_to_ids("α")
    monkey = torch.tensor([[0, trained.pieces.index(alpha)]])  # what a student that writes the first value alone gives
    trained.model.generate = lambda **_: SimpleNamespace(sequences=monkey)
    assert bench_of_task.predict(trained, ["Zyx | country | Qwv"])[0] == ["Zyx"]


def test_gold_alone_trains_as_long_as_with_all_annotated_examples(bench):
    task, settings = bench("tweets", **{"students.steps": 4, "students.passes": 1, "students.batch_size": 8})
    context = Context.of(task, settings)
    found = {cell.condition: experiment.steps(context, cell, experiment.training_rows(context, cell)[0])
             for cell in experiment.cells(context) if cell.budget == 32 and cell.amount != 30 or cell.condition == "full"}
    assert found == {"gold": 12, "gold+annotated": 12, "full": 20}  # 32 gold and 60 annotated examples


def test_mean_pooling_is_saved_in_the_architectures_own_form(bench, tmp_path):
    """The saved model is a plain BERT with a layer more, and gives the trained student's probabilities, padded or not."""
    task, settings = bench("tweets", **{"students.pooling": "mean", "students.steps": 4})
    rows, _ = experiment.training_rows(Context.of(task, settings), Cell(32, "gold", 0, 7))
    bench_of_task, texts = student.trainer(Context.of(task, settings)), [example.text for example in task.test]
    trained = bench_of_task.train(rows, Cell(32, "gold", 0, 7))
    _, wanted = bench_of_task.predict(trained, texts, scored=True)
    bench_of_task.whole(trained).save_pretrained(tmp_path / "saved")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert type(saved).__name__ == "BertForSequenceClassification" and saved.config.num_hidden_layers == 7
    tokenizer = AutoTokenizer.from_pretrained(assets.model_path("minilm-l6-v2"))
    with torch.inference_mode():
        together = saved(**tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")).logits.log_softmax(-1)
        single = saved(**tokenizer(texts[0], return_tensors="pt")).logits.log_softmax(-1)
    assert torch.allclose(together, wanted, atol=2e-3) and torch.allclose(single[0], wanted[0], atol=2e-3)
    assert bench_of_task.parameters(trained) == saved.num_parameters()


def test_a_model_of_other_layers_pools_as_its_architecture_does(bench, monkeypatch):
    task, settings = bench("tweets", **{"students.pooling": "mean"})
    monkeypatch.setattr(classifier, "averaging", lambda layer: layer.no_such_part)
    assert student.trainer(Context.of(task, settings)).size == student.trainer(Context.of(task, bench("tweets", "plain")[1])).size
