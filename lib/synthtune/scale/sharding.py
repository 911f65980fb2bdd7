"""Training a model that no single process holds: fully sharded data parallel (FSDP), and checkpoints of any training.

Every layer's weights, gradients and optimizer state are divided over the processes and gathered only while the layer
computes (Rajbhandari et al. 2020, "ZeRO", stage 3; Zhao et al. 2023, "PyTorch FSDP"). It is PyTorch's own
`fully_shard` ("FSDP2") on GPUs and, over gloo, on processors: accelerate starts the processes on both, but ignores its
FSDP plugin where there is no GPU.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from synthtune.files import read_json, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

TRAINED = StateDictOptions(ignore_frozen_params=True)
# How long processes wait for one that reads a model, maybe 40 GB over a network and their SHA-256, or that writes one.
PATIENCE = timedelta(minutes=30)
# How long they wait in an optimizer step, in which nothing is read or written: then the other's machine is lost. One
# without power sends no word of it.
STEP_PATIENCE = timedelta(minutes=2)


def shard(module: nn.Module, layers: Sequence[nn.Module], device: torch.device, computing: torch.dtype | None) -> None:
    """Divide a module over the processes, in place; each then holds its share of every parameter, as a DTensor.

    Parameters
    ----------
    module : Module
        With its weights in the first process, on the meta device in the others: one process reads them, and they are
        never whole in another.
    layers : sequence of Module
        Parts of it that are gathered one at a time.
    device : torch.device
        Where this process computes.
    computing : torch.dtype or None
        Format that weights are gathered and all is computed in, gradients being summed in float32; that of the weights if
        None.
    """
    first = distributed.get_rank() == 0
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    whole = module.state_dict() if first else {}
    policy = MixedPrecisionPolicy(param_dtype=computing, reduce_dtype=computing and torch.float32)
    for part in (*layers, module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    if not first:
        module.to_empty(device=device)
    set_model_state_dict(module, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    # Tables that models compute when they are made, such as rotary frequencies, are in no state dict.
    for buffer in module.buffers():
        distributed.broadcast(buffer, 0)


def share(module: nn.Module) -> float:
    """Share of a module's parameters that this process holds: 1 if it is not divided."""
    parameters = list(module.parameters())
    held = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
    return held / sum(p.numel() for p in parameters)


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The trained parameters, whole and on the processor, by name: in the first process; {} in the others.

    All processes must call it together.
    """
    return get_model_state_dict(model, options=StateDictOptions(ignore_frozen_params=True, full_state_dict=True, cpu_offload=True))


class Checkpoints:
    """The state of a training, kept as it goes: each process writes the shards that it holds.

    A checkpoint can be read by another number of processes than wrote it.

    Parameters
    ----------
    folder : Path
        Holds the last checkpoint, `step-<n>`.
    made_from : dict
        What the training depends on; checkpoints of another one are not read.
    accelerator : Accelerator
        Knows the processes.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any], accelerator: Accelerator):
        self.folder, self.made_from, self.accelerator = folder, made_from, accelerator

    def resume(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list]:
        """Bring module and optimizer to the last checkpoint; the steps done by then and what was noted of them.

        Those of another training are removed: one of this training would have the same name.
        """
        steps = sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))
        record = read_json(self.folder / f"step-{steps[-1]}" / "record.json") if steps else None
        if record is None or record["made_from"] != self.made_from:
            self.remove()
            return 0, []
        state = self._state(module, optimizer)
        checkpoint.load(state, checkpoint_id=self.folder / f"step-{steps[-1]}")
        set_model_state_dict(module, state["model"], options=StateDictOptions(strict=False))
        set_optimizer_state_dict(module, optimizer, state["optimizer"])
        return steps[-1], record["notes"]

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, notes: list) -> None:
        """Write a checkpoint, and only then remove the one before."""
        writing = self.folder / f"writing-{step}"
        self._alone(lambda: shutil.rmtree(writing, ignore_errors=True))
        checkpoint.save(self._state(module, optimizer), checkpoint_id=writing)
        self._alone(lambda: self._put(writing, step, notes))

    def remove(self) -> None:
        """Remove them all, such as once the training is done and its result kept."""
        self._alone(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    @staticmethod
    def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {"model": get_model_state_dict(module, options=TRAINED),
                "optimizer": get_optimizer_state_dict(module, optimizer, options=TRAINED)}

    def _put(self, writing: Path, step: int, notes: list) -> None:
        write_json(writing / "record.json", {"made_from": self.made_from, "notes": notes})
        earlier = list(self.folder.glob("step-*"))
        writing.rename(self.folder / f"step-{step}")
        for path in earlier:
            shutil.rmtree(path)

    def _alone(self, action) -> None:
        """Do something in the first process while the others wait: one that reads on would read half a file."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            action()
        self.accelerator.wait_for_everyone()


@contextlib.contextmanager
def in_step() -> Iterator[None]:
    """Take a process that does not answer here for lost after `STEP_PATIENCE`.

    All processes must come here together: after a barrier or another step.
    """
    _wait_at_most(STEP_PATIENCE)
    yield
    _wait_at_most(PATIENCE)


def _wait_at_most(time: timedelta) -> None:
    if distributed.is_initialized():
        _set_pg_timeout(time)
