"""How settings were chosen: train with each value of one, and measure on a task's development examples.

    python benchmarks/settings_on_dev.py --task film_reviews --vary teacher.frozen_layers=0,15,20
    python benchmarks/settings_on_dev.py --task tweets --vary students.steps=40,80,160 --seeds 17,18

A setting of the teacher is measured by the fine-tuned teacher, any other (annotate, generate, students) by
students in every condition. Test examples are never looked at: the development examples stand in their place.
Rows are added to settings_on_dev.csv beside this file.
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

from synthtune import language_model, settings as settings_module, stages, student, tasks, teacher
from synthtune.errors import SettingsError, SynthtuneError
from synthtune.files import atomic_path
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
    lm = language_model.load(settings.check(name).teacher.model)
    adapter = teacher.fine_tune(lm, task, budget, "annotate", settings)
    row = teacher.evaluate(teacher.with_adapter(lm, adapter), task, budget, settings)
    yield {
        "budget": budget,
        "system": row["system"],
        "metric": task.metric,
        "score": row[task.metric],
        "examples": min(len(task.test), settings.check(name).teacher.test_examples),
        "seconds": adapter.seconds,
        "settings": row["settings"],
    }


def measure_students(name: str, settings: Settings) -> Iterator[dict]:
    """Train students in every condition at the smallest budget; one row each."""
    task = development(name, settings)
    stages.ensure_synthetic(task, settings)
    for row in student.run_cells(task, settings).to_dict("records"):
        yield {
            "budget": row["budget"],
            "system": f"{row['condition']}, {row['amount']} added, seed {row['seed']}",
            "metric": task.metric,
            "score": row[task.metric],
            "examples": len(task.test),
            "seconds": row["train_seconds"],
            "settings": row["settings"],
        }


def add(rows: list[dict]) -> pd.DataFrame:
    """Append rows to the file of results, whole or not at all."""
    table = pd.DataFrame(rows)
    kept = [pd.read_csv(RESULTS)] if RESULTS.exists() else []
    with atomic_path(RESULTS) as temporary:
        pd.concat([*kept, table], ignore_index=True).to_csv(temporary, index=False)
    return table


def main() -> int:
    """Measure every value at every seed, one row of results as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--task", required=True, choices=settings_module.TASKS)
    parser.add_argument(
        "--vary", required=True, metavar="SETTING=VALUE,VALUE", help="dotted name and its values"
    )
    parser.add_argument("--profile", default="laptop", choices=settings_module.profiles())
    parser.add_argument(
        "--seeds", default="17", help="seeds of the run, by commas; each also splits the data anew"
    )
    chosen = parser.parse_args()
    setting, found, values = chosen.vary.partition("=")
    if not found:
        parser.error(f"--vary: '{chosen.vary}' has no '='; write teacher.frozen_layers=0,15,20.")
    measure = measure_teacher if setting.startswith("teacher.") else measure_students
    try:
        smallest = settings_module.load(chosen.profile).budgets[0]
        for seed in chosen.seeds.split(","):
            for value in values.split(","):
                # Among the task's own settings, which go before those of all tasks.
                settings = settings_module.load(
                    chosen.profile,
                    [f"per_task.{chosen.task}.{setting}={value}", f"seed={seed}", f"budgets=[{smallest}]"],
                    run_dir=ROOT / "runs" / "dev",
                )
                torch.set_num_threads(settings.threads)
                shared = {
                    "task": chosen.task,
                    "profile": chosen.profile,
                    "setting": setting,
                    "value": value,
                    "seed": seed,
                }
                rows = add([shared | row for row in measure(chosen.task, settings)])
                print(rows.drop(columns="settings").to_string(index=False), flush=True)
    except SynthtuneError as error:
        print(f"settings_on_dev.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
