"""A user's own rows, trained on: what is left in the folder, what is done again, and what a kill costs."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import nbformat
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from huggingface_hub import constants, is_offline_mode
from onnx.reference import ReferenceEvaluator
from synthtune import custom, experiment, student
from synthtune.conditions import ANNOTATED, BOTH, CONDITIONS, GOLD
from synthtune.context import Context
from synthtune.custom import baselines, command, deployed, example, page, products, record, study
from synthtune.custom.confidence import OfLabels, OfTexts
from synthtune.custom.parts import parts, settings_of
from synthtune.errors import RowsError, StageError
from synthtune.files import claimed
from synthtune.models import assets
from synthtune.progress import progress
from synthtune.scale import machine, workers
from synthtune.settings import load
from synthtune.tasks import splits
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

pytestmark = pytest.mark.slow

FEW = ["annotate.inputs=16", "generate.pairs=14", "generate.max_new_tokens=32", "students.steps=4",
       "custom.passes=1", "teacher.epochs=1", "teacher.frozen_layers=26", "figures.resamples=200", "threads=1"]
PRODUCTS = ["report.html", "predictions.csv", "to_label.csv", "model/model.safetensors", "model/README.md",
            "augmented/train.parquet", "augmented/dropped.parquet", "augmented/augmented.csv", "augmented/README.md"]


def rows_of(folder, **changes):
    """The worked example cut to a few rows, without its test file; the task file's path."""
    example.write(folder / "whole")
    folder.mkdir(exist_ok=True)
    tables = {name: pd.read_csv(folder / "whole" / f"{name}.csv") for name in ("labelled", "unlabelled", "test")}
    tables["labelled"].groupby("act").head(6).to_csv(folder / "labelled.csv", index=False)
    for name, number in (("unlabelled", 30), ("test", 20)):
        tables[name].head(number).to_csv(folder / f"{name}.csv", index=False)
    lines = {"rows": "labelled.csv", "text": "utterance", "label": "act", "unlabelled": "unlabelled.csv", "profile": "smoke",
             "description": "What the assistant does <b>here</b>."} | changes
    task = folder / "acts.yaml"
    task.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value), "utf-8")
    return task


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run without a test file, made with every way out of the machine shut: task file, results, outcome."""
    def shut(*_args, **_kwargs):
        raise AssertionError("a connection was tried")

    task = rows_of(tmp_path_factory.mktemp("own"))
    folder = task.with_name("acts.results")
    for model in ("smollm2-135m-instruct", "minilm-l6-v2"):
        assets.model_path(model)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, shut)
        patch.setattr(socket, "getaddrinfo", shut)
        outcome = command.train(custom.read(task), folder, FEW)
    return task, folder, outcome


def contents(folder):
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


def test_every_product_is_there_and_tells_what_was_measured(done):
    _, folder, outcome = done
    assert all((folder / name).stat().st_size for name in PRODUCTS)
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pkl"))
    assert list(outcome.scores["system"][:2]) == ["TF-IDF and logistic regression", study.TEACHER]
    assert GOLD in set(outcome.scores["system"]) and ANNOTATED in set(outcome.scores["system"])
    assert set(outcome.tested["id"]) == {f"row-{row}" for row in outcome.own.gold["row"]}, "every row is held out once"
    page = (folder / "report.html").read_text("utf-8")
    assert "What the assistant does &lt;b&gt;here&lt;/b&gt;." in page and "<b>here" not in page and "2 folds" in page
    card = (folder / "model" / "README.md").read_text("utf-8")
    best = outcome.score(outcome.winner)
    assert f"| {outcome.winner} | {best['value']:.1f} | {best['low']:.1f} to {best['high']:.1f} |" in card
    assert f"{best['value']:.1f}" in page


def test_the_model_is_loaded_by_its_path_and_says_what_the_predictions_say(done):
    _, folder, outcome = done
    predicted = pd.read_csv(folder / "predictions.csv")
    assert list(predicted.columns) == ["row", "text", "predicted", "confidence"] and len(predicted) == 30
    classify = pipeline("text-classification", str(folder / "model"))
    assert [classify(text)[0]["label"] for text in predicted["text"]] == list(predicted["predicted"])
    assert predicted["confidence"].between(1 / 6 - 1e-6, 1).all()
    to_label = pd.read_csv(folder / "to_label.csv")
    assert len(to_label) == 5 and set(to_label["row"]) <= set(predicted["row"])
    assert to_label["confidence"].mean() < predicted["confidence"].mean()


def test_the_model_as_onnx_says_the_same_without_pytorch(done, tmp_path):
    _, folder, outcome = done
    task, copy = copied(done, tmp_path)
    assert command.train(custom.read(task), copy, [*FEW, "custom.export=onnx"]) is not None
    assert (copy / "model" / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()
    assert "`model.onnx` is the same model" in (copy / "model" / "README.md").read_text("utf-8")
    network = (copy / "model" / "model.onnx").read_bytes()
    assert str(tmp_path).encode() not in network and sys.prefix.encode() not in network, "nothing of this machine is in it"
    texts = list(pd.read_csv(folder / "predictions.csv")["text"])
    read = AutoTokenizer.from_pretrained(copy / "model")(texts, padding=True, truncation=True, return_tensors="np")
    logits = ReferenceEvaluator(onnx.load_from_string(network)).run(["logits"], dict(read))[0]
    _, scores, _ = deployed.predict(folder / "model", texts, outcome.own.labels)
    np.testing.assert_allclose(torch.tensor(logits).log_softmax(-1), scores, atol=1e-4)


def test_no_row_is_lost_in_the_augmented_set(done):
    _, folder, outcome = done
    table = pd.read_csv(folder / "augmented" / "augmented.csv", keep_default_na=False)
    counts = table["source"].value_counts()
    assert counts["gold"] == len(outcome.own.gold) and counts["annotated"] == 16 and counts["generated"] == 14
    loaded = datasets.load_dataset(str(folder / "augmented"), cache_dir=str(folder / "cache"))
    assert loaded["train"].num_rows == (table["dropped"] == "").sum()
    assert loaded["train"].num_rows + loaded["dropped"].num_rows == len(table)
    rows = pd.read_csv(folder.parent / "unlabelled.csv")
    annotated = table[table["source"] == "annotated"]
    assert [rows["utterance"][int(row) - 2] for row in annotated["row"]] == list(annotated["text"]), "lines of the file"


def test_folds_keep_near_duplicates_together_and_hold_every_row_out_once(tmp_path):
    task = rows_of(tmp_path)
    table = pd.read_csv(tmp_path / "labelled.csv")
    table.loc[0, "utterance"] += " Please tell me about everything that you have got."
    twin = table.head(1).assign(utterance=table["utterance"][0] + " Now.")
    pd.concat([table, twin]).to_csv(tmp_path / "labelled.csv", index=False)
    own = custom.read(task)
    found = parts(own, settings_of(own, tmp_path / "work"))
    tested = [example.id for part in found[1:] for example in part.task.test]
    assert sorted(tested) == sorted(f"row-{row}" for row in own.gold["row"])
    for part in found[1:]:
        gold, test = ([example.text for example in each] for each in (part.task.gold(part.budget), part.task.test))
        assert len(gold) + len(test) == len(own.gold) and not splits.near_duplicates(test, gold).any()
        assert {example.target for example in part.task.gold(part.budget)} == set(own.labels)
        assert not {example.target for example in part.task.pool[part.budget:]} - {""}


def test_run_again_there_is_nothing_to_do_and_a_lost_result_is_written_again(done, capsys):
    task, folder, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert command.train(custom.read(task), folder, FEW) is None
    assert "Nothing to do" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert command.train(custom.read(task), folder, FEW) is not None
    assert (folder / "report.html").read_bytes() == page


def copied(done, tmp_path):
    """A copy of a finished run to change: task file and folder of results."""
    task, folder, *_ = done
    for path in task.parent.glob("*.csv"):
        shutil.copy(path, tmp_path)
    shutil.copytree(folder, tmp_path / folder.name)
    return Path(shutil.copy(task, tmp_path)), tmp_path / folder.name


def test_other_unlabelled_rows_train_no_teacher_again(done, tmp_path, capsys):
    task, folder = copied(done, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("adapter_model.safetensors")}
    predicted = pd.read_csv(folder / "predictions.csv")
    pd.read_csv(tmp_path / "unlabelled.csv").tail(20).to_csv(tmp_path / "unlabelled.csv", index=False)
    command.train(custom.read(task), folder, FEW)
    said = capsys.readouterr().out
    assert "Changed since the last run: unlabelled rows, counts and warnings. " in said
    assert re.search(r"Made now: annotated rows, answers .*\nKept: teachers, generated rows, answers ", said)
    assert stamps == {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("adapter_model.safetensors")}
    again = pd.read_csv(folder / "predictions.csv")
    assert len(again) == 20 and set(again["text"]) < set(predicted["text"])
    annotated = pd.read_parquet(folder / "work" / "whole" / f"budget-{len(done[2].own.gold)}" / "annotated.parquet")
    assert set(annotated["text"]) <= set(again["text"])


def changed_from(before, after):
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def test_all_that_the_results_depend_on_makes_them_again(tmp_path, monkeypatch):
    task = rows_of(tmp_path)

    def now():
        own = custom.read(task)
        return record.made_from(own, settings_of(own, tmp_path / "work"))

    first = now()
    assert first == now()
    labelled = pd.read_csv(tmp_path / "labelled.csv")
    pd.concat([labelled, labelled.head(1)]).to_csv(tmp_path / "labelled.csv", index=False)
    assert changed_from(first, now()) == {"counts and warnings"}, "the rows that are used are the same"
    labelled.to_csv(tmp_path / "labelled.csv", index=False)
    for file in ("labelled", "unlabelled"):
        pd.read_csv(tmp_path / f"{file}.csv").rename(columns={"utterance": "words"}).to_csv(tmp_path / f"{file}.csv", index=False)
    text = task.read_text("utf-8")
    task.write_text(text.replace("utterance", "words"), "utf-8")
    assert "names of columns" in changed_from(first, now())
    renamed = now()
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda _: True)
    assert changed_from(renamed, now()) == {"baselines"}, "SetFit is installed"


def test_more_annotated_rows_make_nothing_again_that_does_not_depend_on_them(tested, tmp_path, capsys):
    task, folder = copied(tested, tmp_path)
    work = folder / "work" / "whole"
    kept = [*work.rglob("adapter_model.safetensors"), *work.rglob("generated.parquet"), *(work / "answers").glob("gold-1-*"),
            *(work / "answers").glob("teacher*")]
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    command.train(custom.read(task), folder, [*FEW, "annotate.inputs=20"])
    said = capsys.readouterr().out
    assert "Changed since the last run: setting annotate." in said
    assert len(kept) == 5 and stamps == {path: path.stat().st_mtime_ns for path in kept if path.exists()}, said
    assert re.search(r"Made now: annotated rows, answers to the rows held out \(\d of \d\)\.\nKept: teachers, generated rows, ", said)
    more = pd.read_csv(tmp_path / "unlabelled.csv")
    pd.concat([more, more.tail(1) + " And so on."]).to_csv(tmp_path / "unlabelled.csv", index=False)
    command.train(custom.read(task), folder, [*FEW, "annotate.inputs=20"])
    assert stamps == {path: path.stat().st_mtime_ns for path in kept if path.exists()}, capsys.readouterr().out


def test_parts_in_two_processes_give_the_same_results_and_end_with_a_failure(done, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    for name in ("finished", "failing"):
        (tmp_path / name).mkdir()
    task, folder = copied(done, tmp_path / "finished")
    folds = sorted((folder / "work").glob("fold-*"))
    for lost in folds:
        shutil.rmtree(lost)
    (folder / "report.html").unlink()
    assert command.train(custom.read(task), folder, FEW) is not None
    assert len(folds) == 2 and re.search(r"This takes about [\d ]+(s|min)", capsys.readouterr().out)
    assert contents(folder) == contents(done[1])
    assert not multiprocessing.active_children()

    task, folder = copied(done, tmp_path / "failing")
    for lost in sorted((folder / "work").glob("fold-*")):
        [made] = lost.glob("budget-*")
        shutil.rmtree(made)
        made.write_text("in the way")
    (folder / "report.html").unlink()
    with pytest.raises(StageError):
        command.train(custom.read(task), folder, FEW)
    assert not multiprocessing.active_children()


def test_what_a_killed_run_left_is_not_taken_for_the_results_of_the_one_before(tested, tmp_path, capsys, monkeypatch):
    task, folder = copied(tested, tmp_path)

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deployed, "predictions", end)
        with pytest.raises(KeyboardInterrupt):
            command.train(custom.read(task), folder, [*FEW, "students.steps=5"])
    assert (folder / "model" / "model.safetensors").read_bytes() != contents(tested[1])["model/model.safetensors"]
    (folder / ".model.abcd1234").mkdir()
    (folder / "work" / "whole" / ".x.parquet.abcd1234").mkdir()
    capsys.readouterr()
    assert command.train(custom.read(task), folder, FEW) is not None
    said = capsys.readouterr().out
    assert "Changed since the last run: setting students." in said and "The last run was not finished." in said
    assert contents(folder) == contents(tested[1])
    assert not list(folder.rglob(".*.abcd1234"))
    for name in ("README.md", "config.json"):
        (folder / "model" / name).write_text("{}")
    assert command.train(custom.read(task), folder, FEW) is not None, "a changed file of the model is noticed"
    assert contents(folder) == contents(tested[1])
    assert (folder / "model" / "config.json").read_bytes() == (tested[1] / "model" / "config.json").read_bytes()


def test_a_full_disk_and_a_read_only_folder_are_one_sentence_and_cost_no_finished_stage(tested, small_disk):
    task, finished = tested
    folder = small_disk("60m", "results")
    shutil.copytree(finished / "work", folder / "work", ignore=shutil.ignore_patterns("model.json", "run.json"))
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*") if path.is_file()}
    with pytest.raises(StageError, match="Cannot write .*/results/model: No space left on device. Free space there or choose"):
        command.train(custom.read(task), folder, FEW)
    assert not (folder / "model").exists()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(StageError, match="Cannot write to .*/results: Read-only file system. Choose another folder"):
        command.train(custom.read(task), folder, FEW)
    subprocess.run(["mount", "-o", "remount,rw,size=400m", str(folder)], check=True)
    assert command.train(custom.read(task), folder, FEW) is not None
    assert contents(folder) == contents(finished)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A finished run with a test file: task file and folder of results."""
    task = rows_of(tmp_path_factory.mktemp("tested"), test="test.csv")
    outcome = command.train(custom.read(task), task.with_name("acts.results"), FEW)
    assert outcome.held_out == "the test file" and len(outcome.tested) == len(outcome.own.test)
    assert set(outcome.tested["id"]) == {f"test-{row}" for row in outcome.own.test["row"]}
    return task, task.with_name("acts.results")


def test_a_test_file_takes_the_place_of_folds(tested):
    _, folder = tested
    assert [path.name for path in sorted((folder / "work").iterdir()) if path.is_dir()] == ["whole"]
    assert all((folder / name).stat().st_size for name in PRODUCTS)


def test_a_second_run_in_the_folder_says_so_and_stops(done):
    task, folder, _ = done
    with claimed(folder, ""), pytest.raises(StageError, match=f"Another run is working in .* \\(process {os.getpid()}\\)"):
        command.train(custom.read(task), folder, FEW)


def test_a_study_and_its_results_are_kept_from_other_runs_too(tested):
    """What the notebook calls, one after the other."""
    task, folder = tested
    own = custom.read(task)
    settings = settings_of(own, folder / "work", [*FEW, "students.steps=5"])
    outcome = SimpleNamespace(own=own, settings=settings)
    with claimed(folder, ""):
        for refused in (lambda: study.run(own, folder, FEW), lambda: products.write(outcome, folder)):
            with pytest.raises(StageError, match="Another run is working"):
                refused()
    with pytest.raises(StageError, match="Another run has worked in .* since this study was run"):
        products.write(outcome, folder)


@pytest.mark.parametrize(("profile", "asked"), [("laptop", False), ("paper", True)])
def test_the_hub_is_asked_only_where_a_model_comes_from_it(profile, asked, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with record.offline(load(profile)):
        assert is_offline_mode() != asked
    assert not is_offline_mode(), "other profiles in the same kernel may download"


def test_the_notebook_does_what_the_command_does_with_every_way_out_shut(tested, tmp_path):
    task, folder = tested
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "sitecustomize.py").write_text(f"""
import socket

def shut(connect):
    def instead(self, address):
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        with open({str(tmp_path / "tried")!r}, "a") as log:
            print(address, file=log)
        raise ConnectionRefusedError(address)
    return instead

socket.socket.connect, socket.socket.connect_ex = shut(socket.socket.connect), shut(socket.socket.connect_ex)
""")
    root = Path(__file__).parents[1]
    out = tmp_path / "acts.results"
    (tmp_path / "parameters.json").write_text(json.dumps({"task_file": str(task), "overrides": FEW, "out": str(out)}))
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "SYNTHTUNE_RUN")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "shut"), str(root / "lib")])
    finished = subprocess.run(
        [sys.executable, "-m", "synthtune.run.notebook_runner", str(root / "notebooks" / "06_your_task.ipynb"),
         str(tmp_path / "executed.ipynb"), "--parameters", str(tmp_path / "parameters.json")],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert not (tmp_path / "tried").exists(), (tmp_path / "tried").read_text()
    assert contents(out) == contents(folder)
    assert command.train(custom.read(task), out, FEW) is None, "the command finds nothing left to do"
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    assert not [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
                if output.get("name") == "stderr"]


def test_rows_with_errors_and_too_few_rows_are_not_trained_on(tmp_path):
    task = rows_of(tmp_path)
    table = pd.read_csv(tmp_path / "labelled.csv")
    table.assign(act="informs").to_csv(tmp_path / "labelled.csv", index=False)
    with pytest.raises(RowsError, match=r"acts.yaml: errors \(1\) are to be solved"):
        study.run(custom.read(task), tmp_path / "out")
    table[table["act"].isin(["asks", "informs"])].groupby("act").head(3).to_csv(tmp_path / "labelled.csv", index=False)
    with pytest.raises(RowsError, match="labelled.csv: 6 labelled rows can be used, and at least 8 are needed"):
        study.run(custom.read(task), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("low, optimism, winner, verdict", [
    (-4.0, 0.0, GOLD, "does not help"), (-1.0, 0.0, ANNOTATED, "not decided"), (0.4, 0.2, ANNOTATED, "helps"),
    (0.4, 0.5, ANNOTATED, "not decided")])
def test_the_verdict_says_what_the_interval_says(low, optimism, winner, verdict):
    scores = pd.DataFrame({"system": ["TF-IDF", GOLD, ANNOTATED], "gain_low": [np.nan, np.nan, low]})
    assert study.decided(scores, winner, optimism) == verdict


def test_the_first_line_names_a_baseline_that_is_clearly_better_and_the_corrected_gain(done):
    outcome = done[2]
    scores = pd.DataFrame({"system": [baselines.TFIDF, study.TEACHER, GOLD, ANNOTATED], "value": [80.0, 85.0, 70.0, 74.0],
                           "gain": [10.0, 15.0, np.nan, 4.0], "gain_low": [5.0, 5.0, np.nan, 1.0], "gain_high": [15.0, 25.0, np.nan, 7.0],
                           "lead": [6.0, 11.0, -4.0, np.nan], "lead_low": [0.5, 8.0, -7.0, np.nan]})
    told = replace(outcome, scores=scores, winner=ANNOTATED, optimism=0.6, verdict="helps")
    said = page.verdict(told)
    assert said.startswith("Use another model: TF-IDF and logistic regression, trained on the labelled rows alone, reaches 80.0")
    assert said.endswith("Synthetic data helps: 70.0 with the labelled rows alone, 73.4 with annotated rows added: +3.4 points of "
                         "accuracy (+0.4 to +6.4), corrected by -0.6 for choosing it on the same rows.")
    told = replace(told, scores=scores.assign(lead_low=-0.5), optimism=0.01)
    assert page.verdict(told).startswith("Synthetic data helps: ") and "corrected" not in page.verdict(told)


def test_a_route_of_which_nothing_is_kept_is_no_condition_and_gains_nothing(tested, tmp_path, capsys):
    task, folder = copied(tested, tmp_path)
    outcome = command.train(custom.read(task), folder, [*FEW, "generate.max_new_tokens=4"])
    assert len(outcome.generated) == 14 and not (outcome.generated["dropped"] == "").any()
    assert [system for system in outcome.scores["system"] if system in CONDITIONS] == [GOLD, ANNOTATED]
    assert "None of the 14 generated rows was kept (14 " in (folder / "report.html").read_text("utf-8")
    assert "generated rows added" not in capsys.readouterr().out
    rows, _ = experiment.training_rows(Context.of(outcome.whole.task, outcome.whole.settings), outcome.cell)
    assert outcome.whole.settings.steps(1) == outcome.whole.settings.steps(len(rows)), "no condition trains longer than gold"


def test_a_fold_without_synthetic_rows_answers_as_gold_alone_does():
    answers = pd.DataFrame({"system": ["TF-IDF", GOLD, GOLD, BOTH], "seed": [1, 1, 2, 1], "output": ["a", "b", "c", "d"]})
    found = study._complete(answers, [GOLD, ANNOTATED])
    assert list(zip(found["system"], found["seed"], found["output"], strict=True)) == [
        ("TF-IDF", 1, "a"), (GOLD, 1, "b"), (GOLD, 2, "c"), (ANNOTATED, 1, "b"), (ANNOTATED, 2, "c")]


def test_two_augmented_sets_in_one_cache_of_datasets_are_not_mixed_up(done, tested, tmp_path):
    """`datasets` caches by the names of folder and configuration, the same file names and sizes notwithstanding."""
    copy = tmp_path / "again" / "augmented"
    shutil.copytree(done[1] / "augmented", copy)
    products._write_augmented(done[2], products.augmented(done[2]).iloc[::-1].reset_index(drop=True), copy)
    for folder in (done[1] / "augmented", tested[1] / "augmented", copy):
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert list(loaded["train"]["text"]) == list(pd.read_parquet(folder / "train.parquet")["text"])


@pytest.mark.parametrize("teacher, setfit, said", [
    (65.0, None, ["teacher itself reaches 65.0, no more than"]),
    (80.0, 71.0, ["teacher itself reaches 80.0, the model 75.0"]),
    (74.0, 90.0, ["SetFit reaches 90.0 on the same rows, more than the model's 75.0"])])
def test_what_to_do_next_follows_from_who_is_better(teacher, setfit, said):
    scores = {"TF-IDF and logistic regression": 60.0, "teacher itself": teacher, GOLD: 70.0, ANNOTATED: 75.0}
    scores |= {"SetFit": setfit} if setfit else {}
    found = page.advice(pd.DataFrame({"system": list(scores), "value": list(scores.values())}), ANNOTATED)
    assert len(found) == len(said) and all(start in sentence for start, sentence in zip(said, found, strict=True))


def test_the_stages_of_a_part_follow_each_other_and_parts_do_not_wait(monkeypatch):
    monkeypatch.setattr(study, "_work", lambda stage, part: stage(part))
    begun = []

    def stage(number):
        return lambda part: begun.append((part, number)) or number

    stages = [(part, [[stage(0), stage(1)], [stage(2)], [stage(3), stage(4)]]) for part in "abc"]
    with ThreadPoolExecutor(1) as pool:
        done = list(study._done(pool, stages))
    assert [given for of, given in done if of == "a"] == [[0, 1], [2], [3, 4]] and len(done) == 9
    assert begun[:6] == [(part, number) for part in "abc" for number in (0, 1)]
    assert all([number for of, number in begun if of == part] == [0, 1, 2, 3, 4] for part in "abc")

    def fails(part):
        raise StageError(f"{part} fails")

    with ThreadPoolExecutor(1) as pool, pytest.raises(StageError, match="a fails"):
        list(study._done(pool, [("a", [[fails]])]))


def test_a_process_that_works_for_another_draws_no_bars(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(workers, "_end_with_parent", lambda: None)
    for name in ("TQDM_DISABLE", "SYNTHTUNE_PROGRESS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert not progress(range(2)).disable
    workers._begin({})
    unseen = progress(range(2))
    assert unseen.disable and list(unseen) == [0, 1]


def test_calibration_finds_the_temperature_that_made_the_labels():
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(4000, 3)) * 2
    chances = torch.tensor(logits / 1.8).softmax(-1).numpy()
    truth = [draw.choice(3, p=row) for row in chances]
    found = OfLabels.fit(torch.tensor(logits).log_softmax(-1).numpy(), truth)
    assert found.temperature == pytest.approx(1.8, rel=0.08)
    right = logits.argmax(1) == truth
    assert found.of(logits, logits.argmax(1)).mean() == pytest.approx(right.mean(), abs=0.02)
    with_unknown = OfLabels.fit(np.concatenate([logits, logits[:50]]), [*truth, *[-1] * 50])
    assert with_unknown.temperature == pytest.approx(found.temperature)


def test_confidence_in_texts_is_the_quality_to_be_expected_of_them():
    draw = np.random.default_rng(4)
    scores = -draw.exponential(size=(3000, 1))
    expected = 1 / (1 + np.exp(-(2 * scores[:, 0] + 1.5)))
    quality = np.clip(expected + draw.normal(size=3000) * 0.1, 0, 1)
    found = OfTexts.fit(scores, quality)
    assert np.abs(found.of(scores) - expected).max() < 0.05
    same = OfTexts.fit(np.zeros((5, 1)), np.array([0.2, 0.4, 0.4, 0.4, 0.6]))
    assert same.of(np.array([[0.0], [-3.0]])) == pytest.approx([0.4, 0.4])
    perfect = OfTexts.fit(scores[:6], np.ones(6))
    assert (perfect.of(scores) > 0.99).all()


def test_rows_to_label_are_doubtful_and_far_from_each_other():
    draw = np.random.default_rng(5)
    places = np.repeat(np.eye(4), 10, axis=0) * 9 + draw.normal(size=(40, 4)) * 0.1
    doubt = np.concatenate([np.linspace(0.9, 0.8, 10), np.linspace(0.7, 0.6, 10), np.linspace(0.5, 0.4, 10), np.zeros(10)])
    chosen = deployed.worth_labelling(doubt, places, 3, seed=0)
    assert chosen == [0, 10, 20], "the most doubtful of three clusters, not the three most doubtful"


def test_cells_that_a_spreadsheet_would_run_are_escaped(tmp_path):
    products.write_csv(pd.DataFrame({"text": ["=HYPERLINK(1)", "fine", "@x"], "n": [-1, 2, 3], "label": ["-1", "+2.5 %", "-1+A1"]}),
                       tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "text,n,label\n'=HYPERLINK(1),-1,-1\nfine,2,'+2.5 %\n'@x,3,'-1+A1\n"
    table = pd.DataFrame({"text": ["-", "+good!", "=1"], "label": ["+", "-", "-bad"]})
    products.write_csv(table, tmp_path / "x.csv", ["+", "-", "-bad"])
    assert list(pd.read_csv(tmp_path / "x.csv")["label"]) == list(table["label"]), "predictions are joined on labels"
    assert list(pd.read_csv(tmp_path / "x.csv")["text"]) == ["-", "'+good!", "'=1"]


def test_texts_are_written_by_the_model_that_is_saved(tmp_path):
    """Text to text, from a pair of columns: the saved writer writes what the student wrote that it was made of."""
    example.write(tmp_path / "whole")
    for file, number in (("labelled", 24), ("test", 9)):  # with a test file there are no folds
        table = pd.read_csv(tmp_path / "whole" / f"{file}.csv").tail(number)
        table.assign(reply=["It " + act + "." for act in table["act"]]).to_csv(tmp_path / f"{file}.csv", index=False)
    table[["utterance", "act"]].tail(9).assign(utterance=lambda rows: rows["utterance"] + " Yes.").to_csv(
        tmp_path / "more.csv", index=False)
    task = tmp_path / "replies.yaml"
    task.write_text("rows: labelled.csv\ntext: [utterance, act]\ntarget: reply\nunlabelled: more.csv\ntest: test.csv\n"
                    "profile: smoke\n")
    outcome = study.run(custom.read(task), tmp_path / "out", [
        *FEW, "custom.export=onnx", "number_format=float32"])  # as the saved model computes: in bfloat16 a word may differ
    written = products.write(outcome, tmp_path / "out")
    assert outcome.own.task_type == "generation" and {"bleu"} == {outcome.whole.task.metric}
    assert outcome.tested["confidence"].mean() == pytest.approx(outcome.tested["quality"].mean(), abs=0.02)
    report = written["report"].read_text("utf-8")
    assert "mean chrF" in report and "a chrF of 100 / (1 + exp(" in (written["model"] / "README.md").read_text("utf-8")
    part = outcome.whole
    cell = next(cell for cell in study.cells(part) if cell.condition == outcome.winner)
    bench = student.trainer(Context.of(part.task, part.settings))
    inputs = [example.text for example in part.task.pool[part.budget:]]
    assert all(text.startswith("Utterance: ") and " Act: " in text for text in inputs)
    rows, _ = experiment.training_rows(Context.of(part.task, part.settings), cell)
    said, sure = bench.predict(bench.train(rows, cell), inputs, scored=True)
    outputs, scores, _ = deployed.predict(written["model"], inputs, ())
    assert outputs == said and scores[:, 0] == pytest.approx(sure.numpy(), abs=1e-3)
    model = AutoModelForSeq2SeqLM.from_pretrained(written["model"], use_safetensors=True)
    read = AutoTokenizer.from_pretrained(written["model"])(inputs[0], return_tensors="pt")
    assert model.generate(**read).shape[1] > 1
    encoder, decoder = [ReferenceEvaluator(str(written["model"] / f"{half}_model.onnx")) for half in ("encoder", "decoder")]
    mask = read["attention_mask"].numpy()
    [hidden] = encoder.run(["last_hidden_state"], {"input_ids": read["input_ids"].numpy(), "attention_mask": mask})
    pieces, ends = [model.generation_config.decoder_start_token_id], model.generation_config.eos_token_id
    while pieces[-1] != ends and len(pieces) <= model.generation_config.max_new_tokens:
        [logits] = decoder.run(["logits"], {"input_ids": np.array([pieces]), "encoder_hidden_states": hidden,
                                            "encoder_attention_mask": mask})
        pieces.append(int(logits[0, -1].argmax()))
    assert pieces == model.generate(**read)[0].tolist(), "written without PyTorch, word piece by word piece"
    assert "`decoder_model.onnx`" in (written["model"] / "README.md").read_text("utf-8")


def test_killed_twice_it_ends_with_the_same_bytes(tested, tmp_path):
    task, reference = tested
    again = [sys.executable, "-m", "synthtune.run.reproduce", "--task", str(task), "--out", str(tmp_path / "killed"),
             *[f"--set={text}" for text in FEW]]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "lib"), "PYTHONHASHSEED": "0"}
    work = tmp_path / "killed" / "work" / "whole"
    for moment in ("*/teacher-annotate", "answers/gold*"):  # among the teachers, and among the students
        process = subprocess.Popen(again, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, start_new_session=True)
        while not list(work.glob(moment)):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finished = subprocess.run(again, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert contents(tmp_path / "killed") == contents(reference)
