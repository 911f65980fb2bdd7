"""P(Y|X): the fine-tuned teacher annotates unlabelled inputs (Kaddour & Liu 2023, "annotation")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from synthtune import mixture, teacher
from synthtune.context import Context
from synthtune.experiment import PROMPTED_ROUTE
from synthtune.files import cached, digest, read_json, write_json
from synthtune.models.language_model import LanguageModel
from synthtune.scale import workers
from synthtune.scale.workers import Shards
from synthtune.tasks import Task, Unlabelled
from synthtune.tasks.example import log_probability

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

# Why an output is dropped: it is empty, a prompted model's answer names no label, or not every value of the input is in it.
NO_OUTPUT = "no output"
NO_LABEL = "no label"
INCOMPLETE = "leaves out a value"


def by_label(task: Task, scores: torch.Tensor) -> dict[str, np.ndarray]:
    """Log-probabilities, shape (texts, labels), as one column per label."""
    return {log_probability(label): scores[:, place].numpy() for place, label in enumerate(task.labels)}


def annotate(lm: LanguageModel | Prompted, context: Context, name: str = "annotated") -> pd.DataFrame:
    """Annotate unlabelled inputs, or read the annotations that are cached with the same fingerprint.

    Only `context.unlabelled` is read, which has no labels. It is empty where the whole pool is gold.

    Parameters
    ----------
    lm : LanguageModel or Prompted
        The annotating teacher (`teacher.ready`).
    context : Context
        The inputs that follow the gold examples in the pool are annotated.
    name : str
        Of the file in `context.folder`.

    Returns
    -------
    DataFrame
        Columns id, text, output, log_probability (of the output given the input, in nats; for classification
        normalised over the labels; NaN from a prompted model), dropped (a reason not to train on it, or "") and, for
        classification, one column `log P(label)` per label. A prompted model gives all of the probability to its label.
        Where `annotate.annotator` is "mixture", output and probabilities are the mixture's, and by_teacher is the teacher's label.
    """
    table = cached(context.folder / f"{name}.parquet", _fingerprint(lm, context), lambda: _annotated(lm, context, name))
    workers.remove_shards(context.folder, name)
    return table


def beside(context: Context) -> pd.DataFrame | None:
    """What the prompted model of the endpoint says of the same inputs, for the condition gold+prompted (`annotate.beside`).

    Returns
    -------
    DataFrame or None
        As of `annotate`, kept in `prompted.parquet`; None if the settings ask for none.
    """
    if context.settings.annotate.beside is None:
        return None
    from synthtune.models.endpoint import Prompted  # its client library takes a second to import, and few ask

    return annotate(Prompted(context), context, PROMPTED_ROUTE)


def right(annotated: pd.DataFrame, context: Context) -> dict[str, float]:
    """How good annotations are: every metric of the task against the true outputs; {} if there are none."""
    true = {example.id: example for example in context.task.pool[context.budget:]}
    if not len(annotated):
        return {}
    scores = context.task.score([true[name] for name in annotated["id"]], list(annotated["output"]))
    return {name: value for name, value in scores.items() if name != "per_example"}


def _annotated(lm: LanguageModel | Prompted, context: Context, name: str) -> pd.DataFrame:
    task, settings = context.task, context.settings
    if context.unlabelled:
        table = _shards(lm, context, name).done(annotate_share, context, settings.annotate.processes)
    else:  # all of the pool is gold
        table = pd.DataFrame({"id": "", "text": "", "output": "", "log_probability": 0.0}, index=[])
        table = table.assign(**{log_probability(label): 0.0 for label in task.labels})
    if mixture.wanted(context) and isinstance(lm, LanguageModel):
        table = table.assign(by_teacher=table["output"], **mixture.combine(table, context))
    complete, nothing = settings.annotate.outputs == "complete", NO_LABEL if task.labels else NO_OUTPUT
    table.insert(4, "dropped", [nothing if not output.strip() else INCOMPLETE if complete and task.missing_slots(text, output) else ""
                                for text, output in zip(table["text"], table["output"], strict=True)])
    return table


def annotate_share(context: Context, rank: int, processes: int) -> None:
    """Annotate one process's share of the inputs, with the teacher that this run has fine-tuned."""
    _shards(teacher.ready(teacher.base(context.settings), context, "annotate", copied=False), context).do(rank, processes)


def _shards(lm: LanguageModel | Prompted, context: Context, name: str = "annotated") -> Shards:
    inputs = context.unlabelled[: context.settings.annotate.inputs]

    def make(_number: int, part: Sequence[Unlabelled], doing: str) -> pd.DataFrame:
        outputs, log_probabilities, scores = teacher.answers(lm, context, [item.text for item in part], description=doing)
        table = pd.DataFrame({"id": [item.id for item in part], "text": [item.text for item in part],
                              "output": outputs, "log_probability": log_probabilities})
        return table if scores is None else table.assign(**by_label(context.task, scores))

    size = context.settings.annotate.shard_size if isinstance(lm, LanguageModel) else None
    return Shards(inputs, size, context.folder, name, _fingerprint(lm, context), make, "annotate")


def _fingerprint(lm: LanguageModel | Prompted, context: Context) -> dict:
    inputs = [[item.id, item.text] for item in context.unlabelled[: context.settings.annotate.inputs]]
    return {"model_digest": lm.digest, "data_digest": context.task.digest, "inputs": digest(inputs), "budget": context.budget,
            "smallest_budget": context.settings.budgets[0], "settings": context.settings_of("annotate")}


def check(annotated: pd.DataFrame, lm: LanguageModel | Prompted, context: Context) -> dict:
    """Compare annotations with the true outputs, and write `annotation.json`.

    No result depends on this report; it says that the stage has finished, and how. Without annotations there are no scores.
    """
    task, folder, scores = context.task, context.folder, right(annotated, context)
    mean = float(annotated["log_probability"].mean())
    report = {"task": task.name, "budget": context.budget, "n": len(annotated), "kept": int((annotated["dropped"] == "").sum()),
              "metric": task.metric, "value": scores.get(task.metric), "scores": scores, "mean_logprob": None if np.isnan(mean) else mean,
              "seconds": read_json(folder / "annotated.json")["seconds"], "model_digest": lm.digest, **context.digests("annotate")}
    if len(annotated) and mixture.wanted(context):
        report["annotator"] = mixture.weigh(context)
    write_json(folder / "annotation.json", report)
    return report


def reliability(annotated: pd.DataFrame, context: Context, bins: int = 5) -> pd.DataFrame:
    """Accuracy of annotations by the teacher's own confidence, in bins of equal size.

    Returns
    -------
    DataFrame
        Columns confidence (mean probability of the output in the bin), accuracy (percent), n.
    """
    true = {example.id: example.target for example in context.task.pool[context.budget:]}
    table = pd.DataFrame({"confidence": np.exp(annotated["log_probability"]),
                          "accuracy": 100.0 * (annotated["output"] == annotated["id"].map(true))})
    groups = pd.qcut(table["confidence"].rank(method="first"), min(bins, len(table)), labels=False)
    return table.assign(n=1).groupby(groups).agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(drop=True)
