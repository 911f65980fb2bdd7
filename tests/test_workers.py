"""Stages whose work several processes share: the same results however many there are, and what a failure leaves."""

import contextlib
import shutil
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from synthtune import annotate, generate, student, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.errors import StageError
from synthtune.files import read_json
from synthtune.models import language_model
from synthtune.scale import workers
from synthtune.scale.workers import Shards

pytestmark = pytest.mark.slow

SHARDS = {"annotate.shard_size": 11, "generate.shard_size": 9}
TWO = {"annotate.processes": 2, "generate.processes": 2, "students.processes": 2}


@pytest.fixture
def shared(study, tiny, tmp_path):
    """Settings of a copy of the study without its annotated and generated examples; the teachers are there."""

    def make(name, **changes):
        folder = tmp_path / name
        shutil.copytree(study.settings.folder, folder)
        for path in (folder / "tweets" / f"budget-{study.budget}").glob("[ag]*ted.*"):
            path.unlink()
        return tiny(folder, **{**SHARDS, **changes})

    return make


@pytest.fixture(scope="module")
def teachers(study):
    """As a process of its own loads them."""
    lm = language_model.load("smollm2-135m-instruct", study.settings.format)
    return [teacher.with_adapter(lm, study.adapters[name]) for name in ("annotate", "generate")]


def test_two_processes_annotate_and_generate_what_one_does(study, shared, teachers):
    annotator, generator = teachers
    tables = []
    for settings in (shared("one"), shared("two", **TWO)):
        tables.append((annotate.annotate(annotator, Context.of(study.task, settings, study.budget)),
                       generate.generate(generator, annotator, Context.of(study.task, settings, study.budget))))
        assert not list(settings.folder.rglob("*-????????????"))  # shards
    for one, two in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert len(tables[0][0]) == 40 and len(tables[0][1]) == 24
    # The labels of generated pairs go round over all shards, and what is sampled differs from shard to shard.
    assert list(tables[0][1]["sampled"]) == [study.task.labels[place % 2] for place in range(24)]
    assert tables[0][1]["text"].nunique() > 12


def test_how_work_is_divided_changes_no_setting_that_results_depend_on(tmp_path):
    one, two = (settings_module.load("smoke", changes, run_dir=tmp_path) for changes in ({}, {
        **TWO, "teacher.processes": 2, "teacher.sharding": "sharded", "teacher.activations": "checkpointed",
        "teacher.checkpoint_steps": 5}))
    for stage in ("teacher", "annotate", "generate", "students"):
        assert one.for_stage(stage, "tweets") == two.for_stage(stage, "tweets")
    other = settings_module.load("smoke", SHARDS, run_dir=tmp_path)
    assert one.for_stage("annotate", "tweets") != other.for_stage("annotate", "tweets")  # other batches, other last digits


def test_a_killed_process_is_told_and_the_shards_done_are_kept(study, shared, teachers, kill_when):
    settings = shared("run", **TWO, **{"annotate.shard_size": 1})
    folder = settings.folder / "tweets" / f"budget-{study.budget}"

    thread = kill_when(lambda: list(folder.glob("annotated-*/*.parquet")))
    with pytest.raises(StageError, match="A process ended without a word, most likely because memory ran out"):
        annotate.annotate(teachers[0], Context.of(study.task, settings, study.budget))
    thread.join()
    done = {path: path.stat().st_mtime_ns for path in folder.glob("annotated-*/*.parquet")}
    assert done and not (folder / "annotated.parquet").exists()
    seen = []
    make = workers.Shards.do

    def watched(shards, *given):
        seen.append({path: path.stat().st_mtime_ns for path in done})
        make(shards, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "do", watched)
        table = annotate.annotate(teachers[0], Context.of(study.task, settings, study.budget))
    assert seen == [done] and len(table) == 40
    assert read_json(folder / "annotated.json")["made_from"]["budget"] == study.budget


SHARING = """
import sys
from types import SimpleNamespace
from synthtune import annotate, settings
from synthtune.context import Context
from synthtune.scale import workers

named = SimpleNamespace(name="tweets")  # the processes load the task themselves
workers.share(annotate.annotate_share, Context(named, 125, settings.load("laptop", run_dir=sys.argv[1])), 2)
"""

def test_no_process_outlives_the_one_it_works_for_that_was_killed(tmp_path):
    starter = subprocess.Popen([sys.executable, "-c", SHARING, str(tmp_path / "run")], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = []
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "tweets" / "data" / "task.json").exists():
            assert starter.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        started = psutil.Process(starter.pid).children(recursive=True)
        assert len(started) >= 2
        starter.kill()
        starter.wait()
        _, left = psutil.wait_procs(started, timeout=20)
        assert not left
    finally:
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        starter.kill()
        starter.wait()


def test_a_process_that_fails_says_why_in_a_sentence(study, shared, teachers):
    settings = shared("run", **TWO)
    (settings.folder / "tweets" / "data" / "task.json").write_text("{")
    with pytest.raises(StageError) as caught:
        workers.share(annotate.annotate_share, Context.of(study.task, settings, study.budget), 2)
    [sentence] = str(caught.value).splitlines()
    assert "task.json is damaged" in sentence


def test_two_processes_run_the_cells_that_one_does(study, tiny, tmp_path):
    tables = []
    for name, changes in (("one", {}), ("two", TWO)):
        shutil.copytree(study.settings.folder, tmp_path / name)
        tables.append(student.run_cells(Context.of(study.task, tiny(tmp_path / name, budgets=[study.budget], **changes))))
    one, two = (table.drop(columns=["train_seconds", "answer_seconds", "settings"]) for table in tables)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert len(one) >= 5


def test_shards_are_made_once_and_put_together_in_order(tmp_path):
    made = []

    def make(number, part, doing):
        made.append(number)
        assert doing == f"test, shard {number + 1} of 3"
        return pd.DataFrame({"value": list(part)})

    shards = Shards(range(7), 3, tmp_path, "x", "anything", make, "test")
    shards.do(rank=1, processes=2)
    assert made == [1]
    shards.do()
    assert made == [1, 0, 2] and list(shards.union()["value"]) == list(range(7))
    workers.remove_shards(tmp_path, "x")
    assert not list(tmp_path.iterdir()) and Shards([], 3, tmp_path, "x", "anything", make, "test").parts == [[]]
