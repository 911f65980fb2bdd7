"""The student: a small model trained on gold and synthetic examples, one run of it for each cell of the study."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import AutoConfig

from synthtune import number_format
from synthtune.context import Context
from synthtune.experiment import Cell, Row, cells, steps, training_rows
from synthtune.files import atomic_path, digest
from synthtune.metrics import METRICS
from synthtune.models import assets, names
from synthtune.models.classifier import Classifier
from synthtune.models.seq2seq import Pretrained, WarmStarted
from synthtune.models.students import StudentTrainer
from synthtune.progress import progress
from synthtune.scale import workers

# Settings that a seq2seq student does not read.
OF_CLASSIFIERS = {"pooling", "class_weight"}
# Settings of the students that say which cells there are and how they are run, not what one of them is.
NOT_OF_A_CELL = {"seeds", "seeds_larger", "seeds_full", "sweep", "processes"}


def trainer(context: Context) -> StudentTrainer:
    """What trains students for a task, by its type and by `students.model`.

    Raises
    ------
    AssetError
        If that model cannot do it.
    """
    name = context.settings.students.model
    if context.task.task_type == "classification":
        return Classifier(context)
    config = AutoConfig.from_pretrained(assets.model_path(name))
    if not config.is_encoder_decoder and config.model_type != "bert":
        raise names.no_text_student(name, config.model_type, context.task.name)
    return Pretrained(context) if config.is_encoder_decoder else WarmStarted(context)


def run_cells(context: Context, wanted: Sequence[Cell] | None = None) -> pd.DataFrame:
    """Run every cell of a task that has not been run, and write `results.parquet`.

    Each cell is kept as soon as it is done, under `<task>/cells`, named by the digest of all it depends on: an
    interrupted run loses at most the cell in flight, and a changed setting or example runs again what it changes.

    Parameters
    ----------
    context : Context
        Of the task; all of its budgets are run.
    wanted : sequence of Cell, optional
        At least one of them; all of `cells` if not given.

    Returns
    -------
    DataFrame
        One row per cell, in the order of `cells` or `wanted`.
    """
    plan = _plan(context, cells(context) if wanted is None else wanted)
    processes = workers.number_of(context.settings.students.processes)
    if processes > 1 and wanted is None and not all(planned.kept.exists() for planned in plan):
        workers.share(run_share, context, processes)
    _run(context, plan, plan)
    table = pd.concat([pd.read_parquet(planned.kept) for planned in plan], ignore_index=True)
    with atomic_path(context.settings.folder / context.task.name / "results.parquet") as temporary:
        table.to_parquet(temporary)
    return table


def run_share(context: Context, rank: int, processes: int) -> None:
    """Run one process's share of a task's cells."""
    plan = _plan(context, cells(context))
    _run(context, plan, plan[rank::processes])


@dataclass(frozen=True)
class _Planned:
    """A cell, what it trains on, what its result depends on, and where that is kept."""

    cell: Cell
    rows: list[Row]
    counts: dict[str, int]
    fingerprint: dict
    kept: Path


def _plan(context: Context, wanted: Sequence[Cell]) -> list[_Planned]:
    plan = []
    for cell in wanted:
        rows, counts = training_rows(context, cell)
        fingerprint = depends_on(context, cell, rows)
        kept = context.settings.folder / context.task.name / "cells" / f"{digest(fingerprint)[:24]}.parquet"
        plan.append(_Planned(cell, rows, counts, fingerprint, kept))
    return plan


def depends_on(context: Context, cell: Cell, rows: Sequence[Row]) -> dict[str, Any]:
    """All that a cell's result depends on, as plain JSON: the same again, and it need not be run again."""
    task, settings = context.task, context.settings
    unread = NOT_OF_A_CELL if task.task_type == "classification" else NOT_OF_A_CELL | OF_CLASSIFIERS
    return {"cell": asdict(cell), "data": digest([asdict(row) for row in rows]), "task": task.digest,
            "settings": settings.students.model_dump(mode="json", exclude=unread, exclude_none=True),
            "steps": steps(context, cell, rows), "threads": settings.threads, "number_format": settings.format,
            "model": assets.digest(settings.students.model)}


def _run(context: Context, plan: list[_Planned], mine: list[_Planned]) -> None:
    """Run those of a plan's cells that have not been run and are `mine`."""
    task, training, once = context.task, None, 0.0
    texts = [example.text for example in task.test]
    for planned in progress(mine, desc="students", unit="cell"):
        if planned.kept.exists():
            continue
        if training is None:
            training = trainer(context)
            # Those of other cells too, the pool first: in other batches a text's last digits differ, and a run that was interrupted,
            # shared by several processes, or begun with fewer budgets is to end with the numbers of a whole one.
            for each in ([example.text for example in task.pool], *([row.text for row in other.rows] for other in plan)):
                training.read(each)
            start = time.perf_counter()
            training.read(texts)
            once = time.perf_counter() - start
        start = time.perf_counter()
        trained = training.train(planned.rows, planned.cell)
        answering = time.perf_counter()
        predicted, _ = training.predict(trained, texts)
        end = time.perf_counter()
        timed = {"train_seconds": round(end - start, 2), "answer_seconds": round(1000 * (once + end - answering) / len(texts), 2),
                 "parameters": training.parameters(trained)}
        row = _result(context, planned, task.score(list(task.test), predicted), timed)
        with atomic_path(planned.kept) as temporary:
            pd.DataFrame([row]).to_parquet(temporary)


def _result(context: Context, planned: _Planned, scores: dict, timed: dict) -> dict:
    task, fingerprint, empty = context.task, planned.fingerprint, dict.fromkeys(METRICS, math.nan)
    return {"task": task.name, "task_type": task.task_type, **asdict(planned.cell), **planned.counts, **empty, **scores,
            **timed, "number_format": fingerprint["number_format"],
            "device": number_format.device_name(), "data_digest": fingerprint["data"], "model": context.settings.students.model,
            "model_digest": fingerprint["model"], "settings_digest": digest(fingerprint["settings"]),
            "settings": json.dumps(context.settings_of("students"), sort_keys=True)}
