"""Kinds of GPUs that a run can be planned for."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from synthtune.errors import SettingsError, nearest
from synthtune.settings import Settings

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A kind of GPU.

    Attributes
    ----------
    name : str
    memory : float
        GiB.
    tflops : float
        Peak of its tensor cores in bfloat16 without sparsity, 10¹² FLOP/s.
    bandwidth : float
        Of its memory, 10⁹ bytes/s.
    link : float
        To the other GPUs of a machine, in one direction (half of what data sheets give), 10⁹ bytes/s.
    """

    name: str
    memory: float
    tflops: float
    bandwidth: float
    link: float


# NVIDIA's data sheets of each product (B200: an eighth of the DGX B200); the RTX 4090's is the Ada GPU architecture
# white paper. Figures given "with sparsity" are halved.
DEVICES = {
    device.name: device
    for device in (
        Device("B200 180GB", 180, 2250, 8000, 900),
        Device("H200 141GB", 141, 989, 4800, 450),
        Device("H100 80GB", 80, 989, 3350, 450),
        Device("A100 80GB", 80, 312, 2039, 300),
        Device("A100 40GB", 40, 312, 1555, 300),
        Device("L40S 48GB", 48, 362, 864, 32),
        Device("L4 24GB", 24, 121, 300, 32),
        Device("A10 24GB", 24, 125, 600, 32),
        Device("RTX 4090 24GB", 24, 165, 1008, 32),
    )
}

CPU_TFLOPS = {"float32": 0.2, "bfloat16": 0.8}
"""Peak 10¹² FLOP/s of two cores with which the laptop profile takes the hours that it took (AVX2; AMX), by number format."""


def device(settings: Settings) -> Device:
    """The kind of GPU that the settings name, or this machine.

    Raises
    ------
    SettingsError
        With the nearest names, if there is none of that name.
    """
    plan = settings.plan
    if plan.gpu == "cpu":
        memory = psutil.virtual_memory().total / GIB
        return Device("cpu", memory, plan.cpu_tflops or CPU_TFLOPS[settings.planned_format], plan.cpu_bandwidth, plan.cpu_bandwidth)
    if plan.gpu not in DEVICES:
        raise SettingsError(f"plan.gpu: unknown GPU '{plan.gpu}'; {nearest(plan.gpu, [*DEVICES, 'cpu'])}")
    return DEVICES[plan.gpu]
