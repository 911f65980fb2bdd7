"""What the tests of the stages share: a tiny study on real models and data, each stage of it run once."""

import os
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

from synthtune.context import Context

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run side by side: what a test does not ask for, it does in one process.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

import pytest

TINY = {
    "number_format": "float32", "budgets": [32, 40], "pool_size": 160, "test_size": 40, "dev_size": 20, "nlg_test_size": 20,
    "teacher.epochs": 3, "teacher.epochs_larger": 1, "teacher.frozen_layers": 24, "teacher.learning_rate": 2e-3,
    "teacher.test_examples": 20, "teacher.prompted_examples": 10,
    "annotate.inputs": 40, "annotate.max_new_tokens": 24, "generate.pairs": 24, "generate.max_new_tokens": 48,
    "students.sweep": [], "students.steps": 4, "students.passes": 0, "students.seeds": [1],
    "students.seeds_larger": [1], "students.seeds_full": [1], "students.max_new_tokens": 16,
}


LONGEST = ["test_hub_models.py", "test_custom_tasks.py", "test_custom_training.py", "test_pipeline.py", "test_slurm.py",
           "test_reproduce.py", "test_student.py", "test_notebooks.py"]
"""Begun first, so that at the end no process waits for another."""


def pytest_collection_modifyitems(items):
    """A file's tests run in one process; the files in this order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def small_disk(tmp_path):
    """Make a file system of a given size, in bytes or as mount writes it, in a folder of that name."""
    mounted = []

    def make(size, name="small"):
        if sys.platform != "linux" or os.geteuid():
            pytest.skip("needs a file system to fill: root on Linux")
        folder = tmp_path / name
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]).returncode:
            pytest.skip("no file system may be mounted here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def tiny():
    """Make tiny settings for a run folder; further settings as keyword `changes`."""
    from synthtune import settings

    def make(run_dir: Path, **changes):
        return settings.load("smoke", {**TINY, **changes}, run_dir=run_dir)

    return make


@pytest.fixture(scope="session")
def lm():
    """The real teacher model before fine-tuning, in float32, so that results can be compared to many digits."""
    import torch
    from synthtune.models import language_model

    torch.set_num_threads(1)
    return language_model.load("smollm2-135m-instruct", "float32")


@pytest.fixture(scope="session")
def study(lm, tiny, tmp_path_factory):
    """Tweets at the smallest budget: the teacher fine-tuned for both objectives, annotations and new pairs."""
    from synthtune import annotate, generate, tasks, teacher

    settings = tiny(tmp_path_factory.mktemp("study"))
    task, budget = tasks.load("tweets", settings), settings.budgets[0]
    adapters = {objective: teacher.fine_tune(lm, Context.of(task, settings, budget), objective)
                for objective in ("annotate", "generate")}
    annotator, generator = (teacher.with_adapter(lm, adapters[name]) for name in ("annotate", "generate"))
    return SimpleNamespace(
        settings=settings, task=task, budget=budget, lm=lm, adapters=adapters, annotator=annotator, generator=generator,
        folder=settings.folder / task.name / f"budget-{budget}",
        annotated=annotate.annotate(annotator, Context.of(task, settings, budget)),
        generated=generate.generate(generator, annotator, Context.of(task, settings, budget)))


@pytest.fixture(scope="session")
def kill_when():
    """Once a condition holds, kill the processes that work for this one; give the thread that waits."""

    def start(condition) -> threading.Thread:
        def kill():
            while not condition():
                time.sleep(0.005)
            for process in active_children():
                process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        return thread

    return start


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished run shaped like the smoke profile's, of made-up results: two tasks, one budget, one seed."""
    import synthetic_results

    return synthetic_results.drawn(tmp_path_factory.mktemp("smoke"), "smoke")


@pytest.fixture(scope="session")
def laptop(tmp_path_factory):
    """The same in the shape of the default profile's."""
    import synthetic_results

    return synthetic_results.drawn(tmp_path_factory.mktemp("laptop"), "laptop")
