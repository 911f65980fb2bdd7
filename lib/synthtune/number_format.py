"""The number format that models compute in: bfloat16 where the hardware is faster in it, float32 elsewhere.

The choice follows from what the processor or GPU has, never from a measurement, so that it is the same in every process
and in every run on a machine. `benchmarks/speed.py` measures what it rests on.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

NumberFormat = Literal["float32", "bfloat16"]

# oneDNN keeps each kernel it has made: one for every shape of a product, and texts have many lengths. Keeping 1,024 of them,
# its default, takes 0.8 GiB more in a teacher's notebook than keeping a few, and is no faster there. It reads this when it starts.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

# Size of a number.
BYTES: dict[NumberFormat, int] = {"float32": 4, "bfloat16": 2}


def device() -> Literal["cuda", "mps", "cpu"]:
    """What models compute on, as PyTorch names it: a GPU (CUDA; Apple's, MPS), or the processor.

    ``SYNTHTUNE_DEVICE=cpu`` keeps models off Apple's GPUs, on which this package was not tried.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and os.environ.get("SYNTHTUNE_DEVICE") != "cpu" else "cpu"


@lru_cache(maxsize=1)
def of_machine() -> NumberFormat:
    """The format to compute in on this machine.

    GPUs: bfloat16 from compute capability 8.0 on. Processors: bfloat16 with AMX tiles (Intel), and on AMD's with the AVX512-BF16
    instructions (Zen 4 and later), which multiply twice as fast in it. A Xeon that has those and no AMX was measured to be slower
    in bfloat16 than in float32, and emulation is several times slower. The environment variables that lower what PyTorch
    (`ATEN_CPU_CAPABILITY`) and oneDNN (`ONEDNN_MAX_CPU_ISA`) use are taken into account. Apple's GPUs were not tried, and get
    float32.
    """
    import torch

    if device() == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    amd = torch.cpu._is_avx512_bf16_supported() and _allowed("BF16", "FP16", "AMX", "AVX10") and "AMD" in processor()
    return "bfloat16" if _has_amx() or amd else "float32"


def _has_amx() -> bool:
    import torch

    return torch.cpu._is_amx_tile_supported() and _allowed("AMX")


def _allowed(*instructions: str) -> bool:
    """Whether PyTorch may use AVX-512 and oneDNN a set of instructions whose name has one of these words in it."""
    import torch

    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return (torch.backends.cpu.get_cpu_capability().startswith("AVX512")
            and any(word in most for word in ("ALL", "DEFAULT", *instructions)))


def dtype(number_format: NumberFormat) -> torch.dtype:
    """A format as PyTorch names it."""
    import torch

    return getattr(torch, number_format)


@contextlib.contextmanager
def computing(number_format: NumberFormat, device: torch.device, training: bool = False) -> Iterator[None]:
    """Where float32 weights are multiplied in a format: PyTorch's autocast.

    In training with AMX, the backward pass included, oneDNN rounds both factors to bfloat16 within the product and adds up in
    float32. Autocast copies each weight and each activation, which takes as long there as it saves for models as small as
    students. Without AMX oneDNN does not round so, and autocast takes a third off the time of training. Without gradients
    autocast is the faster one everywhere, since attention is computed in bfloat16 too.
    """
    import torch

    if number_format == "float32":
        yield
    elif training and device.type == "cpu" and _has_amx():
        matmul = torch.backends.mkldnn.matmul
        before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before
    else:
        with torch.autocast(device.type, dtype(number_format)):
            yield


def processor() -> str:
    """The processor's name, its maker's in it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def device_name() -> str:
    """What models compute on, in words: the GPU's name, or the processor's and its widest instructions."""
    import torch

    if device() == "cuda":
        return torch.cuda.get_device_name()
    if device() == "mps":
        return f"{processor()}, GPU (MPS)"
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"
