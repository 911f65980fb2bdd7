"""One of the processes that share a stage's work, started by `workers.share`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from synthtune import annotate, generate, student, tasks
from synthtune.context import Context
from synthtune.scale import workers
from synthtune.settings import Settings


def main(stage: workers.Stage, task: str, budget: int, rank: int, processes: int, settings: dict[str, Any]) -> None:
    """Do this process's share of a stage."""
    chosen = Settings(**settings)
    torch.set_num_threads(chosen.threads)
    context = Context(tasks.load(task, chosen), budget, chosen)
    if stage == "students":
        student.run_share(context, rank, processes)
    elif stage == "annotate":
        annotate.annotate_share(context, rank, processes)
    else:
        generate.generate_share(stage, context, rank, processes)


if __name__ == "__main__":
    workers.end_with_starter()
    main(**json.loads(sys.argv[1]))
