"""Where models are: a large teacher and those fine-tuned from it do not fit on a GPU side by side, so they take turns.

Models wait in the machine's memory until they are used. One that is moved to the GPU stays there; others leave it only where
it would be too full. A model too large for one GPU is laid out over all that the process sees, layer after layer (accelerate's
"big model inference"; the layers compute in turn).
"""

import gc
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from synthtune import number_format
from synthtune.errors import StageError

# Memory that must be free for a model, as a multiple of its weights: caches and activations need some too.
ROOM = 1.5

# As PyTorch names them: the number of a GPU, or "cpu".
Device = int | str

# What else is on the GPU: called, each leaves it.
guests: list[Callable[[], None]] = []

_on_device: weakref.WeakKeyDictionary[nn.Module, None] = weakref.WeakKeyDictionary()


def to_device(model: PreTrainedModel) -> None:
    """Move a model to the GPU, or GPUs, if there are any; others leave, the first that came first, until there is room."""
    there = number_format.device()
    if there == "cpu" or model in _on_device:
        return
    if there == "mps":  # it shares the machine's memory: nobody has to leave
        model.to(there)
        _on_device[model] = None
        return
    # cuDNN's attention makes a plan for each length of the cache: 1.6 ms of an H200's processor a layer and token, two thirds of
    # the time of decoding (torch 2.11). PyTorch's own kernels make none.
    torch.backends.cuda.enable_cudnn_sdp(False)
    for leave in tuple(guests):  # each takes itself off the list
        leave()
    needed = ROOM * model.get_memory_footprint(return_buffers=False)
    if free() < needed:
        gc.collect()  # what is no longer used, and not yet gone
    for other in [other for other in _on_device if other is not model]:
        if free() < needed:
            offload(other)
    memory = gpus()
    if needed <= memory[0] or len(memory) == 1:
        model.to("cuda")
    else:
        offload_all()
        spread(model, layout(model, memory))
    _on_device[model] = None


def offload(model: nn.Module) -> None:
    """Move a model to where it waits."""
    if model in _on_device:
        from accelerate.hooks import remove_hook_from_module

        del _on_device[model]
        remove_hook_from_module(model, recurse=True)
        for part in model.modules():
            # What is left of a hook is a `forward` of this very module, which its twins would call in place of their own.
            vars(part).pop("forward", None)
        vars(model).pop("hf_device_map", None)
        model.to("cpu")


def offload_all() -> None:
    """Leave the GPUs to others."""
    for leave in tuple(guests):  # each takes itself off the list
        leave()
    for model in list(_on_device):
        offload(model)


def layout(model: PreTrainedModel, memory: Mapping[Device, int]) -> dict[str, Device]:
    """Which part of a model goes to which device: layers whole, about as many bytes to each.

    Parameters
    ----------
    model : PreTrainedModel
    memory : mapping
        Bytes that each device has; `ROOM` is left there.

    Returns
    -------
    dict
        Device of each part, by the part's name in the model.

    Raises
    ------
    StageError
        If the devices together do not hold it.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole, limits = list(model._no_split_modules or []), {device: int(most / ROOM) for device, most in memory.items()}
    limits = get_balanced_memory(model, max_memory=limits, no_split_module_classes=whole)
    found = infer_auto_device_map(model, max_memory=limits, no_split_module_classes=whole)
    if not set(found.values()) <= set(memory):  # accelerate would keep the rest on disk and read it again for every word
        size = model.get_memory_footprint(return_buffers=False) / 1e9
        raise StageError(f"The model's weights ({size:,.1f} GB) and room to work, half as much again, do not fit on "
                         f"{len(memory)} GPUs of {min(memory.values()) / 1e9:,.1f} GB. Use more, or larger ones: ./run_all.sh "
                         "--plan says how many. With fewer annotate.processes and generate.processes each process gets more GPUs.")
    return found


def spread(model: PreTrainedModel, places: Mapping[str, Device]) -> None:
    """Move a model's parts to their devices; it then takes its inputs on the first of them and answers there."""
    from accelerate import dispatch_model

    dispatch_model(model, dict(places), main_device=next(iter(places.values())), force_hooks=True,
                   skip_keys=model._skip_keys_device_placement)


def gpus() -> dict[Device, int]:
    """Bytes of each GPU that this process sees."""
    return {number: torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())}


def free() -> int:
    """Bytes that are free on this process's first GPU."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]
