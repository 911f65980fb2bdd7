"""Made-up results, for tests of drawing and of arithmetic only. No number in here was measured.

`write(folder, shape)` lays out a run folder as the stages would and returns settings that go with it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from synthtune import metrics
from synthtune.analysis import claims, figures, report, table
from synthtune.conditions import ANNOTATED, BOTH, FULL, GENERATED, GOLD, HARD
from synthtune.files import write_json
from synthtune.settings import Settings

SHAPES = {
    "smoke": {
        "tasks": ["tweets", "webnlg"],
        "budgets": [25],
        "seeds": [0],
        "pool": 100,
        "amount": 50,
        "amounts": [50],
        "test": 40,
    },
    "laptop": {
        "tasks": ["film_reviews", "product_reviews", "tweets", "reuters_r8", "webnlg", "sgd"],
        "budgets": [125, 500],
        "seeds": [0, 1, 2],
        "pool": 2500,
        "amount": 1000,
        "amounts": [125, 250, 500, 1000],
        "test": 300,
    },
    "paper": {
        "tasks": ["film_reviews", "product_reviews", "tweets", "reuters_r8", "webnlg", "sgd"],
        "budgets": [125, 250, 500, 1000, 1500],
        "seeds": [0, 1, 2, 3, 4],
        "pool": 2500,
        "amount": 1000,
        "amounts": [125, 250, 500, 1000],
        "test": 300,
    },
}

# Made-up quality (0 to 1) of a student on 25 gold examples, of the teacher, and of the ceiling.
_QUALITY = {
    "film_reviews": (0.72, 0.85, 0.84),
    "product_reviews": (0.80, 0.88, 0.89),
    "tweets": (0.80, 0.93, 0.95),
    "reuters_r8": (0.80, 0.90, 0.94),
    "webnlg": (0.50, 0.80, 0.85),
    "sgd": (0.45, 0.76, 0.82),
}
_NLG = {"webnlg", "sgd"}


def settings_for(shape: str, **changes) -> Settings:
    """Settings that go with a shape of made-up results."""
    made = SHAPES[shape]
    values = {
        "profile": shape,
        "seed": 7,
        "tasks": made["tasks"],
        "budgets": made["budgets"],
        "pool_size": made["pool"],
        "figures": {"resamples": 300},
    }
    return Settings(**(values | changes))


def write(folder: Path, shape: str, **changes) -> Settings:
    """Write a run folder of made-up results and return its settings."""
    settings, made = settings_for(shape, **changes), SHAPES[shape]
    minutes = []
    for task in settings.tasks:
        generator = np.random.default_rng([1, len(task), made["test"]])
        hardness = generator.normal(0, 0.12, made["test"])
        start, teacher, ceiling = _QUALITY[task]
        (folder / task).mkdir(parents=True)
        rows = []

        def student(
            budget, condition, amount, quality, task=task, rows=rows, generator=generator, hardness=hardness
        ):
            for seed in made["seeds"][: 3 if budget == min(made["budgets"]) else 2]:
                n_annotated = amount if condition == ANNOTATED else amount // 2 if condition == BOTH else 0
                n_generated = amount - n_annotated if condition in (GENERATED, BOTH) else 0
                rows.append(
                    {
                        **_scores(task, quality + generator.normal(0, 0.01), hardness, generator),
                        "budget": budget,
                        "condition": condition,
                        "amount": amount,
                        "n_gold": budget,
                        "n_annotated": n_annotated,
                        "n_generated": n_generated,
                        "seed": seed,
                        "train_seconds": 5 + (budget + amount) / (20 if task in _NLG else 100),
                        "answer_seconds": 4.0,
                        "parameters": 22e6,
                        "data_digest": "d" * 64,
                        "model": "made-up-student",
                        "model_digest": "e" * 64,
                        "number_format": "float32",
                        "device": "made-up processor",
                        "settings_digest": "f" * 64,
                        "settings": "{}",
                    }
                )

        for budget in settings.budgets:
            gold = start + (ceiling - start) * np.log(budget / 25) / np.log(made["pool"] / 25)
            room = teacher - gold
            student(budget, GOLD, 0, gold)
            amounts = (
                made["amounts"] if task in _NLG and budget == min(settings.budgets) else [made["amount"]]
            )
            for amount in amounts:
                share = 1 - 0.35 ** (amount / 500)
                student(budget, ANNOTATED, amount, gold + room * 0.8 * share)
                student(budget, GENERATED, amount, gold + room * 0.45 * share)
                if amount == made["amount"]:
                    student(budget, BOTH, amount, gold + room * 0.75 * share)
                    if task not in _NLG and budget == min(settings.budgets):
                        student(budget, HARD, amount, gold + room * 0.6 * share)
            _write_teacher(
                folder / task / f"budget-{budget}", task, budget, teacher, hardness, generator, made
            )
            minutes += [
                (f"{stage}", task, budget, float(generator.uniform(0.3, 3)), float(generator.uniform(1, 4)))
                for stage in ("01_teacher", "02_annotate", "03_generate")
            ]
        student(made["pool"], FULL, 0, ceiling)
        pd.DataFrame(rows).to_parquet(folder / task / "results.parquet")
        minutes.append(("04_students", task, None, float(generator.uniform(1, 6)), 3.2))
    minutes.append(("05_figures", None, None, 0.5, 0.9))
    for number, cost in enumerate(minutes):
        named = dict(zip(("notebook", "task", "budget", "minutes", "peak_rss_gib"), cost, strict=True))
        write_json(folder / "minutes" / f"{number}.json", named)
    (folder / "settings.json").write_text(settings.model_dump_json())
    return settings


def _write_teacher(folder, task, budget, quality, hardness, generator, made):
    folder.mkdir()
    systems = {
        "fine-tuned teacher": quality,
        "prompted, 0-shot": quality - 0.25,
        "prompted, 5-shot": quality - 0.15,
    }
    pd.DataFrame(
        [
            {
                **_scores(task, value, hardness, generator),
                "budget": budget,
                "system": system,
                "model": "made-up-teacher",
                "seconds": 60.0,
                "parameters": 135e6,
                "data_digest": "d" * 64,
                "model_digest": "a" * 64,
                "number_format": "float32",
                "device": "made-up processor",
                "settings_digest": "f" * 64,
                "settings": "{}",
            }
            for system, value in systems.items()
        ]
    ).to_parquet(folder / "teacher.parquet")
    (folder / "annotation.json").write_text(
        json.dumps({"task": task, "budget": budget, "kept": made["amount"], "seconds": 90.0})
    )
    (folder / "generation.json").write_text(
        json.dumps(
            {
                "task": task,
                "budget": budget,
                "requested": made["amount"],
                "kept": made["amount"],
                "seconds": 300.0,
            }
        )
    )


def _scores(task, quality, hardness, generator):
    chance = np.clip(quality + hardness, 0.02, 0.98)
    if task not in _NLG:
        right = (generator.random(len(chance)) < chance).astype(float)
        accuracy = 100 * right.mean()
        return {
            "task": task,
            "task_type": "classification",
            "accuracy": accuracy,
            "macro_f1": accuracy - 1.5,
            "bleu": np.nan,
            "chrf": np.nan,
            "rouge_l": np.nan,
            "per_example": right.tolist(),
        }
    length = generator.integers(8, 20, len(chance))
    totals = length[:, None] - np.arange(4)
    matched = generator.binomial(totals, chance[:, None] ** np.arange(1, 5))
    statistics = np.column_stack([matched, totals, length, length])
    bleu = metrics.bleu_from(statistics)
    return {
        "task": task,
        "task_type": "generation",
        "accuracy": np.nan,
        "macro_f1": np.nan,
        "bleu": bleu,
        "chrf": bleu + 18,
        "rouge_l": bleu + 22,
        "per_example": statistics.astype(float).ravel().tolist(),
    }


def drawn(folder: Path, shape: str) -> tuple[Path, Settings]:
    """A run folder of made-up results with everything drawn, and its settings."""
    settings = write(folder, shape, figures={"resamples": 100}).model_copy(update={"run_dir": folder})
    for draw in (figures.draw_all, table.write, claims.write, report.write):
        draw(folder, settings)
    return folder, settings


def copied(run: tuple[Path, Settings], folder: Path) -> tuple[Path, Settings]:
    """A copy of such a run without its figures, that a test may spoil."""
    shutil.copytree(run[0], folder / "run", ignore=shutil.ignore_patterns("figures"))
    return folder / "run", run[1].model_copy(update={"run_dir": folder / "run"})
