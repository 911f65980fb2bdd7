"""P(Y|X): the fine-tuned teacher annotates unlabelled inputs (Kaddour & Liu 2023, "annotation")."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from synthtune import mixture, teacher
from synthtune.files import digest, read_json, write_json, write_table
from synthtune.models import language_model
from synthtune.models.language_model import LanguageModel
from synthtune.scale.workers import Shards
from synthtune.settings import Settings
from synthtune.tasks import Task, Unlabelled
from synthtune.tasks.example import log_probability

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

NO_OUTPUT = "no output"
NO_LABEL = "no label"
INCOMPLETE = "leaves out a value"
"""Why an output is dropped: it is empty, a prompted model's answer names no label, or not every value of the input is in it."""


def by_label(task: Task, scores: torch.Tensor) -> dict[str, np.ndarray]:
    """Log-probabilities, shape (texts, labels), as one column per label."""
    return {log_probability(label): scores[:, place].numpy() for place, label in enumerate(task.labels)}


def annotate(lm: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> pd.DataFrame:
    """Annotate unlabelled inputs, or read the annotations of this run if they are cached with the same fingerprint.

    Only `task.unlabelled(budget)` is read, which has no labels. It is empty where the whole pool is gold.

    Parameters
    ----------
    lm : LanguageModel or Prompted
        The annotating teacher (`teacher.ready`).
    task : Task
    budget : int
        Number of gold examples; the inputs that follow them in the pool are annotated.
    settings : Settings

    Returns
    -------
    DataFrame
        Columns id, text, output, log_probability (of the output given the input, in nats; for classification
        normalised over the labels; NaN from a prompted model), dropped (a reason not to train on it, or "") and, for
        classification, one column `log P(label)` per label. A prompted model gives all of the probability to its label.
        Where `annotate.annotator` is "mixture", output and probabilities are the mixture's, and by_teacher is the teacher's label.
    """
    settings = settings.check(task.name, budget)
    folder = settings.folder_of(task.name, budget)
    made_from = _made_from(lm, task, budget, settings)
    if (kept := _kept(folder, made_from)) is not None:
        return kept
    start = time.perf_counter()
    shards = _shards(lm, task, budget, settings)
    if task.unlabelled(budget):
        table = shards.done("annotate", task.name, budget, settings, settings.annotate.processes)
    else:  # all of the pool is gold
        table = pd.DataFrame({"id": "", "text": "", "output": "", "log_probability": 0.0}, index=[])
        table = table.assign(**{log_probability(label): 0.0 for label in task.labels})
    if mixture.wanted(task, settings):
        mixed = mixture.combine(table, task, budget, settings)
        table = table.assign(by_teacher=table["output"], **mixed)
    complete, nothing = settings.annotate.outputs == "complete", NO_LABEL if task.labels else NO_OUTPUT
    table.insert(4, "dropped", [nothing if not output.strip() else INCOMPLETE if complete and task.left_out(text, output) else ""
                                for text, output in zip(table["text"], table["output"], strict=True)])
    write_table(folder / "annotated.parquet", table,
                {"made_from": made_from, "seconds": round(time.perf_counter() - start, 2)})
    shards.remove()
    return table


def annotate_share(task: Task, budget: int, settings: Settings, rank: int, processes: int) -> None:
    """Annotate one process's share of the inputs, with the teacher that this run has fine-tuned."""
    settings = settings.check(task.name, budget)
    lm = language_model.load(settings.teacher.model, settings.format)
    adapter = teacher.fine_tune(lm, task, budget, "annotate", settings)
    annotator = teacher.with_adapter(lm, adapter, copied=False)
    _shards(annotator, task, budget, settings).do(rank, processes)


def _shards(lm: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> Shards:
    inputs = task.unlabelled(budget)[: settings.annotate.inputs]

    def make(_number: int, part: Sequence[Unlabelled], doing: str) -> pd.DataFrame:
        outputs, log_probabilities, scores = teacher.answers(lm, task, [item.text for item in part], settings,
                                                             description=doing)
        table = pd.DataFrame({"id": [item.id for item in part], "text": [item.text for item in part],
                              "output": outputs, "log_probability": log_probabilities})
        return table if scores is None else table.assign(**by_label(task, scores))

    size = settings.annotate.shard_size if isinstance(lm, LanguageModel) else None
    return Shards.of(inputs, size, settings.folder_of(task.name, budget), "annotated",
                     _made_from(lm, task, budget, settings), make, "annotate")


def _made_from(lm: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> dict:
    inputs = [[item.id, item.text] for item in task.unlabelled(budget)[: settings.annotate.inputs]]
    return {"model_digest": lm.digest, "data_digest": task.digest, "inputs": digest(inputs), "budget": budget,
            "smallest_budget": settings.budgets[0], "settings": settings.for_stage("annotate", task.name)}


def _kept(folder: Path, made_from: dict) -> pd.DataFrame | None:
    record, table = folder / "annotated.json", folder / "annotated.parquet"
    if record.exists() and table.exists() and read_json(record)["made_from"] == made_from:
        return pd.read_parquet(table)
    return None


def check(annotated: pd.DataFrame, lm: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> dict:
    """Compare annotations with the true outputs, and write `annotation.json`.

    No later stage reads this report; it is for people. Without annotations there are no scores.
    """
    settings = settings.check(task.name, budget)
    folder = settings.folder_of(task.name, budget)
    true = {example.id: example for example in task.pool[budget:]}
    scores = task.score([true[name] for name in annotated["id"]], list(annotated["output"])) if len(annotated) else {}
    scores.pop("per_example", None)
    mean = float(annotated["log_probability"].mean())
    report = {"task": task.name, "budget": budget, "n": len(annotated),
              "kept": int((annotated["dropped"] == "").sum()), "metric": task.metric,
              "value": scores.get(task.metric), "scores": scores,
              "mean_logprob": None if np.isnan(mean) else mean,
              "seconds": read_json(folder / "annotated.json")["seconds"], "model_digest": lm.digest,
              "data_digest": task.digest, "settings_digest": settings.stage_digest("annotate", task.name, budget)}
    if len(annotated) and mixture.wanted(task, settings):
        report["annotator"] = mixture.weigh(task, budget, settings)
    write_json(folder / "annotation.json", report)
    return report


def reliability(annotated: pd.DataFrame, task: Task, budget: int, bins: int = 5) -> pd.DataFrame:
    """Accuracy of annotations by the teacher's own confidence, in bins of equal size.

    Returns
    -------
    DataFrame
        Columns confidence (mean probability of the output in the bin), accuracy (percent), n.
    """
    true = {example.id: example.target for example in task.pool[budget:]}
    table = pd.DataFrame({"confidence": np.exp(annotated["log_probability"]),
                          "accuracy": 100.0 * (annotated["output"] == annotated["id"].map(true))})
    groups = pd.qcut(table["confidence"].rank(method="first"), min(bins, len(table)), labels=False)
    return table.assign(n=1).groupby(groups).agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(
        drop=True)
