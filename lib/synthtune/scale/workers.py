"""Work on many inputs, divided into shards that several processes of one machine share.

Each shard is a file that does not depend on which process made it or how many there are, so neither does the union. A
killed run loses only the shards in progress.
"""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from synthtune import places, tasks
from synthtune.context import Context
from synthtune.errors import StageError
from synthtune.files import atomic_path, digest
from synthtune.models import placement
from synthtune.progress import SOCKET
from synthtune.settings import Settings

# A function of a module that does a process's share of a stage, given its context, the process's rank, and how many there are.
Share = Callable[[Context, int, int], None]


class Shards:
    """Tables that are computed one by one, and stored until their union is.

    Parameters
    ----------
    items : sequence
        What they are made from, in consecutive parts.
    size : int or None
        Items of a part at most; there is one part if it is None, or if there are no items.
    place : Path
        The folder in which they are kept.
    name : str
        What they are.
    made_from : object
        All that they depend on, as plain JSON.
    make : callable
        Makes the table of a part, given its number, the part, and what a progress bar is to say.
    doing : str
        What that is of all of them, a verb and its object.
    """

    def __init__(self, items: Sequence[Any], size: int | None, place: Path, name: str, made_from: Any,
                 make: Callable[[int, Any, str], pd.DataFrame], doing: str):
        number = max(len(items), 1)
        self.parts = [items[start: start + (size or number)] for start in range(0, number, size or number)]
        self.folder, self.make, self.doing = place / f"{name}-{digest(made_from)[:12]}", make, doing

    def do(self, rank: int = 0, processes: int = 1) -> None:
        """Make those that are not there, or one process's share of them."""
        for number in range(rank, len(self.parts), processes):
            path = self._path(number)
            if not path.exists():
                doing = f"{self.doing}, shard {number + 1} of {len(self.parts)}" if len(self.parts) > 1 else self.doing
                with atomic_path(path) as temporary:
                    self.make(number, self.parts[number], doing).to_parquet(temporary)

    def done(self, work: Share, context: Context, processes: int | None) -> pd.DataFrame:
        """All of them in their order, made by as many processes as a setting says; `work` makes a process's share of them."""
        number = number_of(processes)
        if number > 1 and len(self.parts) > 1:
            share(work, context, number)
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


@contextlib.contextmanager
def pool(processes: int, settings: Settings) -> Iterator[ProcessPoolExecutor]:
    """Processes that work for this one, and draw no bars. If what they are used for fails, they are ended at once.

    Raises
    ------
    StageError
        If one of them is killed.
    """
    others, context = active_children(), get_context("forkserver")
    context.set_forkserver_preload(["synthtune.student"])  # and all that it imports: seconds, once for all processes
    with ProcessPoolExecutor(processes, context, _begin, (places.environment(settings.threads),)) as executor:
        try:
            yield executor
        except BaseException as error:
            for process in active_children():
                if process not in others:
                    process.kill()
            if isinstance(error, BrokenProcessPool):
                raise StageError("A process ended without a word, most likely because memory ran out. Close other programs, or "
                                 "choose a smaller teacher, and run again; finished work is kept.") from error
            raise


def _begin(environment: dict[str, str]) -> None:
    """Make a new process one that works for the process that started it, without bars of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    os.environ.update(environment, TQDM_DISABLE="1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that it works for, which cannot see to it when it is killed, has ended."""
    parent_process().join()
    os._exit(1)


def share(work: Share, context: Context, processes: int, connected: bool = False) -> None:
    """Do a stage's work in several processes and wait for all.

    The machine's GPUs are divided over them, or, if they are to be `connected`, each sees all and finds the others as those of
    torchrun do. If one of them fails, its error is raised here and the others are ended; finished shards are kept.
    """
    placement.offload_all()
    given = context.task.name, context.budget, context.settings.model_dump(mode="json")
    places = _connected(processes) if connected else [_own_gpus(rank, processes) for rank in range(processes)]
    with pool(processes, context.settings) as executor:
        started = [executor.submit(_share, work, *given, rank, processes, place) for rank, place in enumerate(places)]
        for each in as_completed(started):
            each.result()


def _share(work: Share, task: str, budget: int, settings: dict[str, Any], rank: int, processes: int, place: dict[str, str]) -> None:
    """Do this process's share of a stage; the first process shows how far it is where somebody listens."""
    os.environ.update(place)
    if rank == 0 and SOCKET in os.environ:
        del os.environ["TQDM_DISABLE"]
    chosen = Settings(**settings)
    torch.set_num_threads(chosen.threads)
    work(Context(tasks.load(task, chosen), budget, chosen), rank, processes)


def _connected(processes: int) -> list[dict[str, str]]:
    """What lets processes of this machine find each other, for each: accelerate reads it."""
    from accelerate.utils.other import get_free_port

    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port()), "WORLD_SIZE": str(processes),
              "LOCAL_WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


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
