"""Work on many inputs, divided into shards that several processes of one machine share.

Each shard is a file that does not depend on which process made it or how many there are, so neither does the union. A
killed run loses only the shards in progress.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import psutil
import torch

from synthtune.context import Context
from synthtune.errors import GPU_FULL, SAVE_GPU_MEMORY, StageError
from synthtune.files import atomic_path, digest
from synthtune.models import placement
from synthtune.places import ROOT
from synthtune.settings import Settings

Stage = Literal["annotate", "sample", "relabel", "students"]
"""What processes can share: see `_main`."""

POLL_SECONDS = 0.2

STARTER = "SYNTHTUNE_STARTER"
"""Environment variable with the number of the process that one works for."""

STARTER_SECONDS = 1.0
"""Between two looks whether it is still there."""


@dataclass(frozen=True)
class Shards:
    """Tables that are computed one by one, and stored until their union is.

    Attributes
    ----------
    folder : Path
        Where they are kept, named for what they are and what they are made from.
    parts : sequence
        What each is made of.
    make : callable
        Makes the table of a part, given its number, the part, and what a progress bar is to say.
    doing : str
        What that is of all of them, a verb and its object.
    """

    folder: Path
    parts: Sequence[Any]
    make: Callable[[int, Any, str], pd.DataFrame]
    doing: str

    @classmethod
    def of(cls, items: Sequence[Any], size: int | None, place: Path, name: str, made_from: Any,
           make: Callable[[int, Any, str], pd.DataFrame], doing: str) -> Shards:
        """Consecutive parts of at most `size` items, one part if it is None or there is none, kept in the folder `place`."""
        number = max(len(items), 1)
        parts = [items[start: start + (size or number)] for start in range(0, number, size or number)]
        return cls(place / f"{name}-{digest(made_from)[:12]}", parts, make, doing)

    def do(self, rank: int = 0, processes: int = 1) -> None:
        """Make those that are not there, or one process's share of them."""
        for number in range(rank, len(self.parts), processes):
            path = self._path(number)
            if not path.exists():
                doing = f"{self.doing}, shard {number + 1} of {len(self.parts)}" if len(self.parts) > 1 else self.doing
                with atomic_path(path) as temporary:
                    self.make(number, self.parts[number], doing).to_parquet(temporary)

    def done(self, stage: Stage, context: Context, processes: int | None) -> pd.DataFrame:
        """All of them in their order, made by as many processes as a setting says."""
        number = number_of(processes)
        if number > 1 and len(self.parts) > 1:
            share(stage, context, number)
        self.do()
        return self.union()

    def union(self) -> pd.DataFrame:
        """All of them, in their order."""
        return pd.concat([pd.read_parquet(self._path(number)) for number in range(len(self.parts))], ignore_index=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.parquet"


def remove_shards(place: Path, *names: str) -> None:
    """Remove shards of these names once their union is kept, and those of other settings that a killed run has left."""
    for name in names:
        for folder in place.glob(f"{name}-????????????"):
            shutil.rmtree(folder, ignore_errors=True)


def number_of(processes: int | None) -> int:
    """Number of processes for a setting: null means one for each GPU, or one if there is none."""
    return processes or max(1, torch.cuda.device_count())


def environment(settings: Settings) -> dict[str, str]:
    """Environment variables of a process that does a part of this one's work."""
    path = os.pathsep.join([str(ROOT / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(settings.threads), STARTER: str(os.getpid())}


def end_with_starter() -> None:
    """End this process soon after the one that it works for, which cannot see to it when it is killed.

    Those of torchrun have torchrun in between. A process that a person started in a shell works for nobody and is left alone.
    """
    if STARTER in os.environ:
        threading.Thread(target=_watch, args=(int(os.environ[STARTER]),), daemon=True).start()


def _watch(starter: int) -> None:
    while _is_above(starter):
        time.sleep(STARTER_SECONDS)
    os._exit(1)


def _is_above(starter: int) -> bool:
    """Whether a process is this one's parent, or its parent's. The children of one that ends get another at once."""
    above = os.getppid()
    with contextlib.suppress(psutil.Error):
        while above not in (starter, 0):
            above = psutil.Process(above).ppid()
    return above == starter


def share(stage: Stage, context: Context, processes: int) -> None:
    """Do a stage's work in several processes, the machine's GPUs divided over them, and wait for all.

    Raises
    ------
    StageError
        If one of them fails; the others are ended, and finished shards are kept.
    """
    placement.offload_all()
    task, settings = context.task.name, context.settings
    started: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="synthtune-") as folder:
        try:
            for rank in range(processes):
                job = {"stage": stage, "task": task, "budget": context.budget, "rank": rank, "processes": processes,
                       "settings": settings.model_dump(mode="json")}
                mine = {**environment(settings), **_own_gpus(rank, processes)}
                if rank:
                    mine.pop("SYNTHTUNE_PROGRESS", None)  # one bar, the first process's
                with open(Path(folder, f"{rank}"), "w", encoding="utf-8") as said:
                    started.append(subprocess.Popen([sys.executable, "-m", "synthtune.scale.worker", json.dumps(job)], env=mine,
                                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said))
            while any(process.poll() is None for process in started):
                if any(process.poll() for process in started):
                    break
                time.sleep(POLL_SECONDS)
        finally:
            for process in started:
                process.kill()
                process.wait()
        failed = [rank for rank, process in enumerate(started) if process.returncode not in (0, -9)]
        failed = failed or [rank for rank, process in enumerate(started) if process.returncode]
        if failed:
            said = reason(Path(folder, f"{failed[0]}").read_text("utf-8"), started[failed[0]].returncode)
            raise StageError(f"{task}, {stage} in {processes} processes failed: {said} Correct that and run again; "
                             "finished shards are reused.")


def _own_gpus(rank: int, processes: int) -> dict[str, str]:
    """What shows a process its own GPUs only: an equal number each, or one that several share where there are too few."""
    there = torch.cuda.device_count()
    if not there:
        return {}
    # A scheduler may have given this process some of the machine's GPUs only, by number or by name.
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in given.split(",")] if given else [str(number) for number in range(there)]
    each = max(1, there // processes)
    first = rank * each % there
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[first: first + each])}


def reason(said: str, status: int) -> str:
    """Why a process failed, in a sentence, from its standard error and its exit status."""
    if GPU_FULL in said:
        return SAVE_GPU_MEMORY
    rank, line = r"^(?:\[rank\d+\]: ?)?", r"[\w.]*(?:Error|Exception): (.+)"
    # Ours are written for the reader; what raised them stands before.
    raised = re.findall(rf"{rank}synthtune\.errors\.{line}", said, re.MULTILINE) or re.findall(rank + line, said, re.MULTILINE)
    if raised:
        return f"{raised[0].rstrip('.')}."
    if status == -9 or "SIGKILL" in said:
        return "one was killed, most likely because memory ran out."
    return f"exit status {status}."
