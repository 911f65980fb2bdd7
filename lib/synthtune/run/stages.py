"""Which results of a run exist, and how to compute those that a later stage needs."""

from __future__ import annotations

import pandas as pd

from synthtune import annotate, generate, teacher
from synthtune.analysis import results
from synthtune.files import read_json
from synthtune.models.language_model import LanguageModel
from synthtune.settings import Settings
from synthtune.tasks import Task

FILES = {"teacher": "teacher.parquet", "annotated": "annotation.json", "generated": "generation.json"}
"""The file of a budget's folder that each stage writes last."""


def ensure_synthetic(task: Task, settings: Settings) -> pd.DataFrame:
    """Annotate and generate at every budget where this run has no results with these settings.

    In a reproduction the earlier notebooks have done it, and no language model is loaded here. If the students' notebook
    is run on its own, this computes everything it needs.

    Returns
    -------
    DataFrame
        One row per budget: gold, annotated and generated are numbers of examples to train on.
    """
    settings, lm, rows = settings.check(task.name), None, []
    for budget in settings.budgets:
        if not _is_made(task, budget, settings):
            lm = lm or teacher.base(settings)
            _make(lm, task, budget, settings)
        folder = settings.folder_of(task.name, budget)
        rows.append(
            {
                "gold": len(task.gold(budget)),
                "annotated": read_json(folder / FILES["annotated"])["kept"],
                "generated": read_json(folder / FILES["generated"])["kept"] if "generate" in settings.objectives(budget) else 0,
            }
        )
    return pd.DataFrame(rows)


def _is_made(task: Task, budget: int, settings: Settings) -> bool:
    folder = settings.folder_of(task.name, budget)
    shared = {"data_digest": task.digest, "budget": budget}
    for stage, examples, report, more in (
        ("annotate", "annotated", "annotation", {"smallest_budget": settings.budgets[0]}),
        ("generate", "generated", "generation", {"labels": list(task.labels)}),
    ):
        if stage not in settings.objectives(budget):
            continue
        wanted = shared | more | {"settings": settings.for_stage(stage, task.name)}
        if not all(
            (folder / name).exists() for name in (f"{examples}.json", f"{examples}.parquet", f"{report}.json")
        ):
            return False
        made_from = read_json(folder / f"{examples}.json")["made_from"]
        if any(made_from.get(name) != value for name, value in wanted.items()):
            return False
    return True


def _make(lm: LanguageModel | None, task: Task, budget: int, settings: Settings) -> None:
    annotator = teacher.ready(lm, task, budget, "annotate", settings)
    annotate.check(annotate.annotate(annotator, task, budget, settings), annotator, task, budget, settings)
    if "generate" not in settings.objectives(budget):
        return
    generator = teacher.ready(lm, task, budget, "generate", settings)
    generate.audit(
        generate.generate(generator, annotator, task, budget, settings), generator, task, budget, settings
    )


def finished(settings: Settings) -> pd.DataFrame:
    """Which stages of each task have results in the run's folder.

    Returns
    -------
    DataFrame
        One row per task: the budgets at which the teacher, the annotated and the generated examples are done,
        and whether the students are; "missing" where there are no results.
    """
    rows = []
    for task in settings.tasks:
        folder = settings.folder / task
        row = {"task": task}
        for stage, name in FILES.items():
            done = sorted(
                int(path.parent.name.removeprefix("budget-")) for path in folder.glob(f"budget-*/{name}")
            )
            row[stage] = ", ".join(map(str, done)) or "missing"
        row["students"] = "done" if (folder / "results.parquet").exists() else "missing"
        rows.append(row)
    return pd.DataFrame(rows)


def deployed(task: Task, settings: Settings) -> pd.DataFrame:
    """Size and speed of a task's students, and of the teacher if notebook 01 has tested it; see `results.deployed`."""
    folder = settings.folder / task.name
    teachers = [pd.read_parquet(path) for path in sorted(folder.glob(f"budget-*/{FILES['teacher']}"))]
    return results.deployed(pd.read_parquet(folder / "results.parquet"), pd.concat(teachers) if teachers else pd.DataFrame())
