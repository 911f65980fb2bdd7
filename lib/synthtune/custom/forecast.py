"""How long a run on custom data will take, said before it starts.

The work of each kind is counted from the settings and multiplied by what a unit of it took on one core of a reference machine
(a Xeon with AMX, the laptop's models), in the number format there whose rate of multiplying matrices is nearest to this
machine's; times are scaled by the two rates. It is a forecast of minutes: no result depends on it.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from synthtune import mixture, number_format
from synthtune.conditions import CONDITIONS
from synthtune.context import Context
from synthtune.custom.parts import WHOLE
from synthtune.models import assets, classifier
from synthtune.scale import machine
from synthtune.settings import Settings


@dataclass(frozen=True)
class Reference:
    """Seconds on the reference machine.

    Attributes
    ----------
    trained, read, written : float
        For a token that the teacher learns from (all its layers trained), reads, or writes.
    student : float
        For a word piece that a student learns from.
    rate : float
        Operations a second in a product of matrices.
    """

    trained: float
    read: float
    written: float
    student: float
    rate: float


# In bfloat16 and in float32. What does not multiply matrices takes as long in both, so the two are not multiples of each other.
REFERENCES = (
    Reference(trained=2.9e-3, read=0.45e-3, written=2.8e-3, student=0.19e-3, rate=1.0e12),
    Reference(trained=5.6e-3, read=1.25e-3, written=3.4e-3, student=0.21e-3, rate=0.12e12),
)

# Weights of the reference machine's models, as `machine.weights` counts them.
TEACHER, STUDENT = 148e6, 26e6

# Processes and models are loaded, and results are written.
START_SECONDS = 20.0

# Share of a part's work that is done one after the other, however many processes there are.
IN_TURN = 0.7


def seconds(each: Sequence[Context], settings: Settings, processes: int) -> float:
    """Seconds that the parts will take in so many processes if nothing of them is there yet."""
    rate = _rate(settings)
    reference = min(REFERENCES, key=lambda known: abs(math.log(known.rate / rate)))
    work = [_seconds(part, reference) for part in each if not any((part.settings.folder / part.task.name / "answers").glob("*.parquet"))]
    longest = max(IN_TURN * max(work, default=0.0), sum(work) / processes)
    return START_SECONDS + longest * reference.rate / rate


def _seconds(part: Context, reference: Reference) -> float:
    """Seconds of one part on a core of the reference machine."""
    chosen = part.settings
    layers = assets.architecture(chosen.teacher.model).get("num_hidden_layers", 1)
    tokens, inputs = chosen.teacher.max_tokens, len(part.task.unlabelled(part.budget)[: chosen.annotate.inputs])
    annotates, generates = (section.source != "endpoint" for section in (chosen.annotate, chosen.generate))
    mixed = mixture.wanted(part)
    again = (mixture.FOLDS - 1) * mixed  # each fold's teacher learns from all of the rows but its own
    trained = max(0.1, 1 - chosen.teacher.frozen_layers / layers)
    passes = (annotates + again) * chosen.epochs(part.budget, "annotate") + generates * chosen.epochs(part.budget, "generate")
    learned = passes * part.budget * tokens * trained
    read = annotates * (inputs + len(part.task.test) + chosen.generate.pairs) * tokens
    written = generates * chosen.generate.pairs * chosen.generate.max_new_tokens
    if part.task.task_type == "generation" and annotates:
        written += (inputs + len(part.task.test) + chosen.generate.pairs) * chosen.annotate.max_new_tokens
    seeds = len(chosen.students.seeds if part.task.name == WHOLE else chosen.students.seeds_larger) if part.task.test else 0
    trainings = 1 + classifier.FOLDS if part.task.separator and chosen.students.thresholds else 1
    steps = trainings * (seeds * len(CONDITIONS) + mixed * (mixture.FOLDS + 2 * len(chosen.students.seeds))) * chosen.students.steps
    teacher = learned * reference.trained + read * reference.read + written * reference.written
    student = steps * chosen.students.batch_size * chosen.students.max_tokens * reference.student
    return teacher * machine.weights(chosen.teacher.model) / TEACHER + student * machine.weights(chosen.students.model) / STUDENT


def _rate(settings: Settings) -> float:
    """Operations a second with which this machine multiplies matrices as large as the teacher's."""
    dtype, device = number_format.dtype(settings.format), number_format.device()
    a, b = (torch.ones(size, dtype=dtype, device=device) for size in ((512, 576), (576, 1536)))
    best = math.inf
    for _ in range(30):  # the best of many: what else the machine does falls on some
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * 512 * 576 * 1536 / best
