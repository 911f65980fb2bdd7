"""Which results of a run exist, and how to compute those that a later stage needs."""

import pandas as pd

from synthtune import annotate, generate, teacher
from synthtune.analysis import results
from synthtune.context import Context
from synthtune.experiment import PROMPTED_ROUTE
from synthtune.files import read_json
from synthtune.models.language_model import LanguageModel
from synthtune.settings import Settings

# The file of a budget's folder that each stage writes last.
FILES = {"teacher": "teacher.parquet", "annotated": "annotation.json", "generated": "generation.json"}


def ensure_synthetic(context: Context) -> pd.DataFrame:
    """Annotate and generate at every budget where this run has no results with these settings.

    In a reproduction the earlier notebooks have done it, and no language model is loaded here. If the students' notebook
    is run on its own, this computes everything it needs.

    Returns
    -------
    DataFrame
        One row per budget: gold, annotated and generated are numbers of examples to train on.
    """
    lm, rows = None, []
    for here in map(context.at, context.settings.budgets):
        if not _is_made(here):
            lm = lm or teacher.base(here.settings)
            _make(lm, here)
        generates = "generate" in here.settings.objectives(here.budget)
        rows.append({"gold": len(here.gold), "annotated": read_json(here.folder / FILES["annotated"])["kept"],
                     "generated": read_json(here.folder / FILES["generated"])["kept"] if generates else 0})
    return pd.DataFrame(rows)


def _is_made(context: Context) -> bool:
    """Whether the examples that students read are there, made with these settings, and the reports on them."""
    for stage in context.settings.objectives(context.budget):
        examples, report = ("annotated", "annotation") if stage == "annotate" else ("generated", "generation")
        if not all((context.folder / name).exists() for name in (f"{examples}.json", f"{examples}.parquet", f"{report}.json")):
            return False
        wanted = {"data_digest": context.task.digest, "budget": context.budget, "settings": context.settings_of(stage)}
        if not wanted.items() <= read_json(context.folder / f"{examples}.json")["made_from"].items():
            return False
    return context.settings.annotate.beside is None or (context.folder / f"{PROMPTED_ROUTE}.parquet").exists()


def _make(lm: LanguageModel | None, context: Context) -> None:
    annotator = teacher.ready(lm, context, "annotate")
    annotate.check(annotate.annotate(annotator, context), annotator, context)
    annotate.beside(context)
    if "generate" in context.settings.objectives(context.budget):
        generator = teacher.ready(lm, context, "generate")
        generate.audit(generate.generate(generator, annotator, context), generator, context)


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
            done = sorted(int(path.parent.name.removeprefix("budget-")) for path in folder.glob(f"budget-*/{name}"))
            row[stage] = ", ".join(map(str, done)) or "missing"
        row["students"] = "done" if (folder / "results.parquet").exists() else "missing"
        rows.append(row)
    return pd.DataFrame(rows)


def deployed(context: Context) -> pd.DataFrame:
    """Size and speed of a task's students, and of the teacher if notebook 01 has tested it; see `results.deployed`."""
    folder = context.settings.folder / context.task.name
    teachers = [pd.read_parquet(path) for path in sorted(folder.glob(f"budget-*/{FILES['teacher']}"))]
    return results.deployed(pd.read_parquet(folder / "results.parquet"), pd.concat(teachers) if teachers else pd.DataFrame())
