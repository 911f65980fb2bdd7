"""Which results of a run are there."""

import shutil

from synthtune import annotate, generate
from synthtune.context import Context
from synthtune.run import stages


def test_finished_budgets_of_each_stage(laptop, tmp_path):
    _, settings = laptop
    found = stages.finished(settings).set_index("task")
    assert list(found.index) == list(settings.tasks) and set(found["teacher"]) == {"125, 500"} and set(found["students"]) == {"done"}
    elsewhere = settings.model_copy(update={"run_dir": tmp_path})
    assert set(stages.finished(elsewhere).drop(columns="task").to_numpy().ravel()) == {"missing"}


def test_synthetic_examples_of_other_settings_are_not_taken_for_those_that_are_wanted(study, tiny, tmp_path):
    shutil.copytree(study.settings.folder, tmp_path / "run")
    here = Context.of(study.task, tiny(tmp_path / "run"), study.budget)
    annotate.check(study.annotated, study.annotator, here)
    generate.audit(study.generated, study.generator, here)
    assert stages._is_made(here)
    other = Context.of(study.task, tiny(tmp_path / "run", **{"annotate.inputs": 30}), study.budget)
    assert not stages._is_made(other)
    (here.folder / "annotation.json").unlink()
    assert not stages._is_made(here)
