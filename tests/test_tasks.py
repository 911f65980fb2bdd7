"""Tasks on the real corpora: what is in a pool, what is hidden, and what is said of a broken file."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from synthtune import settings, tasks
from synthtune.errors import CorpusError, SettingsError
from synthtune.models import assets
from synthtune.task_list import SPECS
from synthtune.tasks import formats, reuters, sentiment, splits

FILES = {"film_reviews": "movieReviewSnippets", "product_reviews": "amazonReviewSnippets", "tweets": "tweets"}
CLASSIFICATION = [name for name in settings.TASKS if SPECS[name].task_type == "classification"]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """The settings of the default run, in a folder of the tests."""
    return settings.load("laptop", run_dir=tmp_path_factory.mktemp("laptop"))


@pytest.fixture(scope="module")
def prepared(laptop):
    """Every task of the default run, prepared."""
    return {name: tasks.load(name, laptop) for name in laptop.tasks}


def test_settings_know_the_tasks_without_what_reads_them():
    loaded = "import sys; from synthtune import settings; print('sgd' in settings.TASKS, *sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(settings.__file__).parents[1])}).stdout
    known, *modules = said.split()
    assert known == "True" and not {"synthtune.tasks.loading", "synthtune.tasks.official", "lxml", "pandas", "sklearn"} & set(modules)


@pytest.mark.parametrize("name", settings.TASKS)
def test_sizes_and_labels(prepared, laptop, name):
    task = prepared[name]
    wanted = {"product_reviews": 2000, "tweets": 2300}.get(name, 2500)  # what these two corpora have left
    assert wanted <= len(task.pool) <= 2500
    assert len(task.test) == (laptop.test_size if task.task_type == "classification" else 300)
    assert len(task.dev) > 0.9 * laptop.dev_size
    everything = task.pool + task.dev + task.test
    assert len({example.id for example in everything}) == len(everything)
    assert all(example.text.strip() and "\n" not in example.text and example.target.strip() for example in everything)
    if task.task_type == "classification":
        assert all(len(example.text) <= laptop.max_characters for example in everything)
        assert task.labels == tuple(sorted(task.labels)) and {e.target for e in everything} == set(task.labels)
        assert len(task.labels) == (8 if name == "reuters_r8" else 2) and task.metric == "accuracy"
    else:
        assert task.labels == () and task.metric == "bleu"
        assert sum(len(e.references) >= 3 for e in task.test) == 300
        assert all(example.target == example.references[0] for example in everything)
        assert "own corpus" in task.title
    for key in ("pool", "dev", "test"):
        assert task.report[key] == len(getattr(task, key))


@pytest.mark.parametrize("name", sentiment.TASKS)
def test_undecided_texts_are_dropped_and_counted(prepared, name):
    # Read again with nothing of the package: the published file, by hand.
    [path] = assets.fetch("vader-ground-truth").rglob(f"{FILES[name]}_GroundTruth.txt")
    rating, text_of = {}, {}
    for line in path.read_bytes().decode("latin-1").splitlines():
        number, mean, text = line.split("\t", 2)
        rating[number], text_of[number] = float(mean), text.strip()
    undecided = {number for number, mean in rating.items() if -0.5 <= mean <= 0.5}
    task = prepared[name]
    assert task.report["undecided"] == len(undecided) > 100
    for example in task.pool + task.dev + task.test:
        assert example.id not in undecided and text_of[example.id].startswith(example.text)
        assert example.target == ("positive" if rating[example.id] > 0 else "negative")
    left = task.report["usable"] - task.report["exact_duplicates"]
    assert len(rating) - len(undecided) == task.report["usable"] and len(task.pool) + len(task.test) <= left


def test_reuters_keeps_to_the_official_test_set(prepared):
    task = prepared["reuters_r8"]
    assert all(example.id.startswith("reuters-r8-test-") for example in task.test)
    assert all(example.id.startswith("reuters-r8-train-") for example in task.pool + task.dev)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_smallest_budget_has_some_of_every_label(prepared, laptop, name):
    for budget in laptop.budgets:
        counts = Counter(example.target for example in prepared[name].gold(budget))
        assert set(counts) == set(prepared[name].labels) and min(counts.values()) >= 4


@pytest.mark.parametrize("name", settings.TASKS)
def test_budgets_are_nested_and_the_rest_has_no_label(prepared, name):
    task = prepared[name]
    small, large, rest = task.gold(125), task.gold(250), task.unlabelled(125)
    assert [e.id for e in large[:125]] == [e.id for e in small] and len(large) == 250
    assert [e.id for e in small] + [e.id for e in rest] == [e.id for e in task.pool]
    assert [f.name for f in fields(rest[0])] == ["id", "text"] == [n for n in vars(rest[0])]
    assert not any(hasattr(rest[0], name) for name in ("target", "label", "references", "output"))
    assert task.gold(len(task.pool)) == list(task.pool) and task.unlabelled(len(task.pool)) == []
    most = int(len(task.pool) / tasks.ENOUGH)
    assert task.gold(most) == list(task.pool), "a few less are as good as the budget"
    with pytest.raises(SettingsError, match=f"pool of {name} has {len(task.pool)}"):
        task.gold(most + 1)


def words(text):
    return re.sub(r"[\W_]+", " ", text.casefold()).split()


@pytest.mark.parametrize("name", settings.TASKS)
def test_no_text_is_in_two_splits(prepared, name):
    task = prepared[name]
    forms = {split: [" ".join(words(example.text)) for example in getattr(task, split)]
             for split in ("pool", "dev", "test")}
    for one, other in (("pool", "dev"), ("pool", "test"), ("dev", "test")):
        assert not set(forms[one]) & set(forms[other])
    assert len(set(forms["test"])) == len(forms["test"]) and len(set(forms["pool"])) == len(forms["pool"])


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_no_near_duplicate_of_a_test_text_is_in_the_pool(prepared, name):
    """Not the package's own measure: nine tenths of the pairs of neighbouring words shared."""
    task = prepared[name]

    def pairs(text):
        row = words(text)
        return set(zip(row, row[1:], strict=False))

    held = [pairs(example.text) for example in task.test + task.dev]
    holders = {}
    for number, members in enumerate(held):
        for pair in members:
            holders.setdefault(pair, []).append(number)
    close = []
    for example in task.pool:
        mine = pairs(example.text)
        shared = Counter(number for pair in mine for number in holders.get(pair, ()))
        close += [example.text for number, count in shared.items()
                  if count >= 0.9 * max(len(mine), len(held[number])) and len(mine) >= 5]
    assert not close


def test_near_duplicates_are_recognised():
    text = "oil prices rose three cents to a two month high in early trading in london on thursday"
    near = text.replace("thursday", "friday").upper() + "!!"
    other = "wheat prices fell three cents to a two month low in late trading in chicago on thursday"
    assert list(splits.near_duplicates([text, near, other], [text])) == [True, True, False]
    assert list(splits.near_duplicates([text], [])) == [False] and len(splits.near_duplicates([], [text])) == 0


def test_the_seed_fixes_a_task(laptop, tmp_path):
    first, again = (tasks.load("tweets", settings.load("laptop", run_dir=tmp_path / run)) for run in "ab")
    assert first == again and first.digest == again.digest
    other = tasks.load("tweets", settings.load("laptop", ["seed=18"], run_dir=tmp_path / "c"))
    assert other.digest != first.digest and {e.id for e in other.test} != {e.id for e in first.test}


def test_a_prepared_task_is_read_back_until_a_setting_of_its_changes(tmp_path, monkeypatch):
    changes = {"pool_size": 100, "test_size": 30, "dev_size": 10, "budgets": [20]}
    first = tasks.load("tweets", settings.load("smoke", changes, run_dir=tmp_path))
    with monkeypatch.context() as patch:
        patch.setitem(SPECS, "tweets", replace(SPECS["tweets"], read=lambda folder: pytest.fail("read anew")))
        assert tasks.load("tweets", settings.load("smoke", {**changes, "students.steps": 9}, run_dir=tmp_path)) == first
    changed = tasks.load("tweets", settings.load("smoke", {**changes, "max_characters": 60}, run_dir=tmp_path))
    assert changed.digest != first.digest and max(len(e.text) for e in changed.pool) <= 60


def test_two_processes_may_prepare_a_task_at_once(tmp_path, monkeypatch):
    """As the teachers of two budgets do at the start of a run; every rename is made slow, so that they meet."""
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (time.sleep(0.3), rename(*names)))
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        waiting = [pool.submit(_digest_of, str(tmp_path), name) for name in ("tweets", "webnlg") for _ in range(3)]
        digests = [future.result(timeout=120) for future in waiting]
    assert len(set(digests)) == 2


def _digest_of(run_dir, name):
    return tasks.load(name, settings.load("smoke", run_dir=run_dir)).digest


@pytest.mark.parametrize("file", ["pool.parquet", "test.parquet"])
def test_a_damaged_prepared_task_says_which_file(tmp_path, file):
    chosen = settings.load("smoke", run_dir=tmp_path)
    tasks.load("tweets", chosen)
    path = tmp_path / "tweets" / "data" / file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorpusError) as caught:
        tasks.load("tweets", chosen)
    assert str(path) in str(caught.value) and "delete its folder and run again" in str(caught.value)
    shutil.rmtree(path.parent)
    tasks.load("tweets", chosen)


def test_a_damaged_record_of_a_prepared_task_says_which_file(tmp_path):
    chosen = settings.load("smoke", run_dir=tmp_path)
    tasks.load("tweets", chosen)
    path = tmp_path / "tweets" / "data" / "task.json"
    path.write_text(path.read_text()[:30])
    with pytest.raises(Exception, match="task.json is damaged"):
        tasks.load("tweets", chosen)


def test_corpora_too_small_for_the_settings_say_what_to_lower(tmp_path):
    with pytest.raises(SettingsError, match="tweets: .* test examples are left.*lower one of them"):
        tasks.load("tweets", settings.load("smoke", {"test_size": 5000}, run_dir=tmp_path))


@pytest.mark.parametrize(("line", "number"), [
    ("3\tgood\tno rating", 3), ("3\t2.0", 3), ("no tabs at all", 3), ("", 3)])
def test_a_malformed_rated_file_says_file_and_line(tmp_path, line, number):
    path = tmp_path / "tweets_GroundTruth.txt"
    path.write_bytes("1\t2.5\tcaf\xe9 good\n2\t-0.5\tmeh\n".encode("latin-1") + line.encode() + b"\n4\t1\tfine\n")
    with pytest.raises(CorpusError, match=rf"tweets_GroundTruth.txt, line {number}: expected id, rating and text"):
        sentiment.read(path)


def test_a_rated_file_is_read_as_latin_1(tmp_path):
    path = tmp_path / "ratings.txt"
    path.write_bytes("1\t2.5\tcaf\xe9 good\n2\t0.5\tmeh\n3\t-0.6\tbad\n".encode("latin-1"))
    examples, *_, counted = sentiment.read(path)
    assert [(e.id, e.text, e.target) for e in examples] == [("1", "caf\xe9 good", "positive"),
                                                            ("3", "bad", "negative")]
    assert counted == {"undecided": 1}


@pytest.mark.parametrize("row", ["sport\tA match.", "earn", "earn\t ", "earn\ta\tb"])
def test_a_malformed_topic_file_says_file_and_line(tmp_path, row):
    path = tmp_path / "reuters-r8-train.tab"
    path.write_text(f"topic\ttext\nd\tstring\nclass\tmeta\nearn\tProfit rose.\n{row}\n")
    with pytest.raises(CorpusError, match=r"reuters-r8-train.tab, line 5: expected a topic \(acq, crude"):
        formats.read(path, reuters.rows)


@pytest.mark.parametrize("read", [lambda path: formats.read(path, reuters.rows), sentiment.read])
def test_a_missing_corpus_file_says_what_to_do(tmp_path, read):
    with pytest.raises(CorpusError, match="gone.txt: cannot be read .*run again"):
        read(tmp_path / "gone.txt")


def test_what_preparing_counted_is_kept_beside_the_data(prepared, laptop):
    stored = json.loads((laptop.folder / "film_reviews" / "data" / "task.json").read_text())
    assert stored["report"] == prepared["film_reviews"].report and stored["digest"] == prepared["film_reviews"].digest
