"""Whom to believe: the teacher, a student of the gold examples alone, or both, by cross-validation on gold.

On some tasks a small model knows more after 125 examples than the language model does, and rows that the language model
annotates make it worse. So the two are mixed: P(label) = w P_teacher + (1 - w) P_students, a linear opinion pool (Stone 1961),
with the weight w that makes the gold examples likeliest when teacher and student were trained without them (stacking;
Breiman 1996). A weight of 1 is the teacher alone.
"""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold

from synthtune import student, teacher
from synthtune.context import Context
from synthtune.experiment import Cell, Row
from synthtune.files import digest, read_json, write_json
from synthtune.models import assets, language_model
from synthtune.tasks import Example
from synthtune.tasks.example import log_probability

# Parts of the gold examples, each left out once.
FOLDS = 3

# Weights of the teacher that are tried; of equally good ones the largest is taken.
WEIGHTS = np.linspace(1, 0, 21)

RECORD = "annotator.json"


def wanted(context: Context) -> bool:
    """Whether the labels of a task are those of the mixture: classification by one label, with the teacher of this package."""
    task, chosen = context.task, context.settings.annotate
    return chosen.annotator == "mixture" and chosen.source != "endpoint" and task.task_type == "classification" and not task.separator


def weigh(context: Context) -> dict[str, Any]:
    """Choose the teacher's weight by cross-validation on the gold examples, or read it back.

    Parameters
    ----------
    context : Context
        Of a classification task.

    Returns
    -------
    dict
        weight (of the teacher, 0 to 1); teacher, student and both (percent of the gold examples, left out of training, that
        each labels rightly); n, their number.
    """
    task, settings, record = context.task, context.settings, context.folder / RECORD
    made_from = {"data": task.digest, "budget": context.budget, "settings": context.settings_of("annotate"),
                 "models": [assets.digest(settings.teacher.model), assets.digest(settings.students.model)]}
    if record.exists() and (found := read_json(record))["made_from"] == made_from:
        return found
    gold = context.gold
    true = np.array([task.labels.index(example.target) for example in gold])
    by_teacher, by_student = np.zeros((2, len(gold), len(task.labels)))
    lm = language_model.load(settings.teacher.model, settings.format)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=context.seed("folds"))
    with warnings.catch_warnings():  # of a label that has fewer examples than there are folds
        warnings.simplefilter("ignore", UserWarning)
        divided = list(folds.split(np.zeros(len(gold)), true))
    for number, (learned, held) in enumerate(divided):
        part = [gold[place] for place in learned]
        texts = [gold[place].text for place in held]
        by_teacher[held] = _of_teacher(lm, context, part, texts, number)
        by_student[held] = of_students(context, part, texts, settings.students.seeds[:1])
    of_truth = np.arange(len(gold)), true
    likelihood = [np.log(mixed(by_teacher, by_student, weight)[of_truth]).mean() for weight in WEIGHTS]
    weight = float(WEIGHTS[int(np.argmax(likelihood))])

    def right(probabilities: np.ndarray) -> float:
        return float(100 * (probabilities.argmax(1) == true).mean())

    found = {"weight": weight, "teacher": right(by_teacher), "student": right(by_student),
             "both": right(mixed(by_teacher, by_student, weight)), "n": len(gold), "made_from": made_from}
    write_json(record, found)
    return found


def sentence(found: dict[str, Any]) -> str:
    """What `weigh` found, in words."""
    return (f"Labels are a mixture of the teacher's distribution (weight {found['weight']:g}) and that of students trained on gold "
            f"alone ({1 - found['weight']:g}), by cross-validation on the {found['n']} gold examples: left out of training, "
            f"{found['teacher']:.1f} % of them are labelled rightly by the teacher, {found['student']:.1f} % by a student and "
            f"{found['both']:.1f} % by the mixture.")


def combine(table: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Put the mixture in the place of the teacher's distribution in a table of texts.

    Parameters
    ----------
    table : DataFrame
        Columns text and `log P(label)` of every label, by the teacher.

    Returns
    -------
    DataFrame
        As many rows, in the same order: output, the likeliest label; log_probability, that of the output; and the columns
        `log P(label)`.
    """
    labels = context.task.labels
    columns = [log_probability(label) for label in labels]
    probabilities = np.exp(table[columns].to_numpy(float))
    if len(table) and (weight := weigh(context)["weight"]) < 1:
        by_students = of_students(context, context.gold, list(table["text"]), context.settings.students.seeds)
        probabilities = mixed(probabilities, by_students, weight)
    logs = np.log(np.maximum(probabilities, 1e-12))
    found = pd.DataFrame(logs, columns=columns, index=table.index)
    return found.assign(output=[labels[place] for place in logs.argmax(1)], log_probability=logs.max(1))


def mixed(by_teacher: np.ndarray, by_students: np.ndarray, weight: float) -> np.ndarray:
    """The mixture of two arrays of probabilities, each of shape (texts, labels)."""
    return weight * by_teacher + (1 - weight) * by_students


def of_students(context: Context, gold: Sequence[Example], texts: list[str], seeds: Sequence[int]) -> np.ndarray:
    """Mean probabilities, shape (texts, labels), of students that are trained on gold examples alone, one a seed."""
    trainer = student.trainer(context)
    rows = [Row(example.text, example.target) for example in gold]
    trained = [trainer.train(rows, Cell(len(rows), "annotator", 0, seed)) for seed in seeds]
    scores = [trainer.predict(each, texts, scored=True)[1] for each in trained]
    return torch.stack([each.double().exp() for each in scores]).mean(0).numpy()


def _of_teacher(lm: language_model.LanguageModel, context: Context, gold: list[Example], texts: list[str],
                number: int) -> np.ndarray:
    """Probabilities, shape (texts, labels), by a teacher that is fine-tuned on one fold's gold examples."""
    task, settings, folder = context.task, context.settings, context.folder / "folds" / str(number)
    alone = replace(task, pool=tuple(gold), digest=digest([task.digest, "fold", number]))
    chosen = settings.teacher.model_copy(update={"epochs": settings.epochs(context.budget, "annotate"), "processes": 1})
    fold = Context(alone, len(gold), settings.model_copy(update={"run_dir": folder, "budgets": [len(gold)], "per_task": {},
                                                                 "teacher": chosen}))
    scores = teacher.answers(teacher.ready(lm, fold, "annotate"), fold, texts)[2].double().exp().numpy()
    shutil.rmtree(folder, ignore_errors=True)
    return scores
