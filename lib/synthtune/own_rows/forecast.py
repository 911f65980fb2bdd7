"""How long a run on a user's rows will take, said before it starts.

Operations are counted from the settings, and the rate at which this machine multiplies matrices is measured; what share of
it each kind of work reaches was measured once. It is a forecast of minutes: no result depends on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from synthtune import machine, number_format
from synthtune.own_rows.parts import WHOLE, Part
from synthtune.settings import Settings

TRAINING, READING, WRITING, STUDENTS = 0.12, 0.35, 0.12, 0.12
"""Share of the rate that fine-tuning, reading and writing with the teacher, and training students reach."""

START_SECONDS = 15.0
"""A process and its models are loaded, and results are written."""

STUDENT_FACTOR = 6
"""Operations for each weight and word piece: two forward, four backward."""


def seconds(each: Sequence[Part], settings: Settings) -> float:
    """Seconds that the parts will take if nothing of them is there yet.

    Parameters
    ----------
    each : sequence of Part
    settings : Settings
    """
    flops = [_flops(part) / _rate(settings) for part in each if not _is_done(part)]
    processes = machine.processes(settings, len(each))
    # The parts are about equal and go round over the processes.
    return START_SECONDS + max(flops, default=0.0) * math.ceil(len(flops) / processes)


def _is_done(part: Part) -> bool:
    return bool(list((part.settings.folder / part.name / "answers").glob("*.parquet")))


def _flops(part: Part) -> float:
    """Operations of a part, each divided by the share of the rate that it reaches."""
    chosen = part.settings
    names = chosen.models()
    large, small = (machine.weights(names[name]) if name in names else 0 for name in (
        chosen.teacher.model, chosen.students.model))
    layers = names[chosen.teacher.model].architecture.get("num_hidden_layers", 1) if chosen.teacher.model in names else 1
    trained = max(0.1, 1 - chosen.teacher.frozen_layers / layers)
    tokens = chosen.teacher.max_tokens
    inputs = min(chosen.annotate.inputs, len(part.task.unlabelled(part.budget))) + len(part.task.test)
    written = chosen.annotate.max_new_tokens if part.task.kind == "nlg" else 0
    read = inputs + chosen.generate.pairs
    seeds = len(chosen.students.seeds if part.name == WHOLE else chosen.students.seeds_larger)
    steps = (chosen.students.gold_steps + 3 * chosen.students.steps) * seeds if part.task.test else 0
    return (
        2 * chosen.teacher.epochs * part.budget * tokens * 4 * large * trained / TRAINING
        + 2 * large * read * tokens / READING
        + 2 * large * (inputs * written + chosen.generate.pairs * chosen.generate.max_new_tokens) / WRITING
        + STUDENT_FACTOR * small * steps * chosen.students.batch_size * chosen.students.max_tokens / STUDENTS
    )


def _rate(settings: Settings) -> float:
    """Operations a second with which this machine multiplies matrices as large as the teacher's."""
    dtype = number_format.dtype(settings.format)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.ones(512, 576, dtype=dtype, device=device), torch.ones(576, 1536, dtype=dtype, device=device)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * 512 * 576 * 1536 / best
