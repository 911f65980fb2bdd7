r"""How settings were chosen: train with each choice, and measure on a task's development examples.

    python benchmarks/settings_on_dev.py --task film_reviews --try teacher.frozen_layers=0 --try teacher.frozen_layers=15
    python benchmarks/settings_on_dev.py --task webnlg --conditions gold gold+annotated \
        --try "students.steps=260" --try "students.steps=130 students.learning_rate=5e-4"

Without conditions the fine-tuned teacher is measured, with them the students. Test examples are never looked at: the
development examples stand in their place. Rows are added to settings_on_dev.csv beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import torch
from synthtune import experiment, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.conditions import CONDITIONS, FULL
from synthtune.context import Context
from synthtune.errors import SettingsError, SynthtuneError
from synthtune.files import atomic_path, locked
from synthtune.models import language_model
from synthtune.run import stages
from synthtune.settings import ROOT, Settings
from synthtune.tasks import Task

RESULTS = HERE / "settings_on_dev.csv"


def development(name: str, settings: Settings) -> Task:
    """The task with its development examples in place of its test examples."""
    task = tasks.load(name, settings)
    if not task.dev:
        raise SettingsError(f"dev_size: {name} has no development examples; set it above 0.")
    return replace(task, test=task.dev)


def measure_teacher(name: str, settings: Settings) -> Iterator[dict]:
    """Fine-tune the annotating teacher at the smallest budget; one row."""
    task, budget = development(name, settings), settings.budgets[0]
    lm = language_model.load(settings.check(name).teacher.model, settings.format)
    adapter = teacher.fine_tune(lm, Context.of(task, settings, budget), "annotate")
    row = teacher.evaluate(teacher.with_adapter(lm, adapter), Context.of(task, settings, budget))
    yield {
        "budget": budget,
        "system": row["system"],
        "metric": task.metric,
        "score": row[task.metric],
        "examples": min(len(task.test), settings.check(name).teacher.test_examples),
        "seconds": adapter.seconds,
        "settings": row["settings"],
    }


def measure_students(name: str, settings: Settings, conditions: list[str]) -> Iterator[dict]:
    """Train the students of some conditions at the smallest budget; one row each."""
    task = development(name, settings)
    stages.ensure_synthetic(Context.of(task, settings))
    wanted = [cell for cell in experiment.cells(Context.of(task, settings)) if cell.condition in conditions]
    if not wanted:
        raise SettingsError(f"--conditions: {name} has no cells of {', '.join(conditions)} with these settings.")
    for row in student.run_cells(Context.of(task, settings), wanted).to_dict("records"):
        yield {
            "budget": row["budget"],
            "system": f"{row['condition']}, {row['amount']} added, seed {row['seed']}",
            "metric": task.metric,
            "score": row[task.metric],
            "macro_f1": row["macro_f1"],
            "examples": len(task.test),
            "seconds": row["train_seconds"],
            "settings": row["settings"],
        }


def add(rows: list[dict]) -> pd.DataFrame:
    """Append rows to the file of results, whole or not at all."""
    table = pd.DataFrame(rows)
    with locked(ROOT / "runs" / "dev"):
        kept = [pd.read_csv(RESULTS)] if RESULTS.exists() else []
        with atomic_path(RESULTS) as temporary:
            pd.concat([*kept, table], ignore_index=True).to_csv(temporary, index=False)
    return table


def main() -> int:
    """Measure every value at every seed, one row of results as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--task", required=True, choices=settings_module.TASKS)
    parser.add_argument(
        "--try",
        dest="tries",
        required=True,
        action="append",
        metavar="'SETTING=VALUE …'",
        help="settings to try together, between blanks; give it once for every choice to compare",
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        metavar="CONDITION",
        choices=[*CONDITIONS, FULL],
        help="train students of these conditions; without it, the teacher is measured",
    )
    parser.add_argument("--profile", default="laptop", choices=settings_module.profiles())
    parser.add_argument("--seed", default="17", help="seed of the run; another one splits the data anew")
    chosen = parser.parse_args()
    try:
        smallest = settings_module.load(chosen.profile).budgets[0]
        for tried in chosen.tries:
            # Among the task's own settings, which go before those of all tasks.
            changes = [f"per_task.{chosen.task}.{change}" for change in tried.split()]
            settings = settings_module.load(
                chosen.profile,
                [*changes, f"seed={chosen.seed}", f"budgets=[{smallest}]"],
                run_dir=ROOT / "runs" / f"dev-{chosen.seed}" / ("students" if chosen.conditions else "teacher"),
            )
            torch.set_num_threads(settings.threads)
            shared = {"task": chosen.task, "profile": chosen.profile, "tried": tried, "run_seed": chosen.seed}
            measured = (
                measure_students(chosen.task, settings, chosen.conditions)
                if chosen.conditions
                else measure_teacher(chosen.task, settings)
            )
            rows = add([shared | row for row in measured])
            print(rows.drop(columns="settings").to_string(index=False), flush=True)
    except SynthtuneError as error:
        print(f"settings_on_dev.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
