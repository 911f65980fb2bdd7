"""What a run may use of this machine, and how it is divided over notebooks and their processes.

No result depends on it: a notebook computes the same in one process and in several, beside others and alone.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from synthtune.models import assets
from synthtune.scale.devices import cores
from synthtune.settings import Settings

# Memory of a notebook without a model: PyTorch, transformers and the kernel.
BASE_GIB = 1.0

# Memory that it takes besides for each weight of the teacher, in either number format: copies of the teacher and what is
# computed with them. With the laptop's teacher that is 2.2 GiB.
BYTES_PER_WEIGHT = 16

# Stages whose work can be shared by processes.
SHARED = ("annotate", "generate", "students")


def free_memory() -> int:
    """Bytes that are free, on the machine and within the limit of this process's control group."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit is the word "max"
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    return free


def weights(model: str) -> int:
    """About how many weights a model has, from the sizes of its layers and its vocabulary."""
    shape = assets.architecture(model)

    def size(*names: str) -> int:
        return next((shape[name] for name in names if shape.get(name)), 0)

    hidden, layers = size("hidden_size", "d_model", "n_embd", "dim"), size("num_hidden_layers", "n_layer", "n_layers")
    inner = size("intermediate_size") or 4 * hidden
    return layers * (4 * hidden**2 + 3 * hidden * inner) + shape.get("vocab_size", 0) * hidden


def notebook_bytes(settings: Settings) -> float:
    """Memory that a notebook of a run takes at most, estimated from the size of the teacher."""
    return BASE_GIB * 2**30 + BYTES_PER_WEIGHT * max(map(weights, settings.models()))


def processes(settings: Settings, stages: int) -> int:
    """Processes that do so many stages of custom data side by side: as many as cores and memory allow."""
    import torch

    if torch.cuda.is_available():
        return 1
    return max(1, min(stages, cores() // settings.threads, int(free_memory() // notebook_bytes(settings))))


@dataclass(frozen=True)
class Division:
    """How a machine is divided.

    Attributes
    ----------
    jobs : int
        Notebooks run side by side.
    processes : dict
        Processes of a notebook, by stage; only of stages that have more than one.
    said : str
        What the user should know about it; "" if nothing.
    """

    jobs: int
    processes: dict[str, int]
    said: str = ""


def divided(settings: Settings, measured: float = 0.0) -> Division:
    """Divide this machine: a core for each notebook as far as memory goes, and spare cores for processes of notebooks.

    With GPUs notebooks share them where the planner says that they fit; where a notebook has several, it runs alone.

    Parameters
    ----------
    settings : Settings
        What they say of jobs and processes is left as it is.
    measured : float
        Most bytes that a notebook of this run has taken so far; 0 if none has run.
    """
    import torch

    each, free = measured or notebook_bytes(settings), free_memory()
    room = int(free // each)
    gpus = torch.cuda.device_count()
    wide = len(settings.tasks) * len(settings.budgets)
    slots = max(1, min(cores() // settings.threads, room))
    jobs = settings.jobs or min(slots, wide, _on_gpus(settings, gpus) if gpus else slots)
    processes = {}
    if not gpus:
        spare = {stage: slots // min(jobs, len(settings.tasks) if stage == "students" else wide) for stage in SHARED}
        processes = {stage: number for stage, number in spare.items() if number > 1 and getattr(settings, stage).processes is None}
    said = ""
    if jobs * each > free:
        said = (f"Memory may run out: a notebook takes up to {each / 2**30:.1f} GiB, {jobs} run at a time, and "
                f"{free / 2**30:.1f} GiB are free. " + ("Run fewer (--jobs 1)" if jobs > 1 else "Close other programs")
                + ", or choose a smaller profile or teacher.")
    elif room < min(cores(), wide) and not settings.jobs and not gpus:
        said = f"Of {cores()} cores {jobs} are used: a notebook takes up to {each / 2**30:.1f} GiB, and {free / 2**30:.1f} are free."
    return Division(jobs, processes, said)


def _on_gpus(settings: Settings, gpus: int) -> int:
    """Notebooks that share the machine's GPU; one where a notebook takes several."""
    import torch

    from synthtune.scale import planner

    if gpus > 1:
        return 1
    needed = planner.plan(settings).table["memory_total"].max()
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    return max(1, int(total * (1 - settings.plan.memory_reserve) // needed))
