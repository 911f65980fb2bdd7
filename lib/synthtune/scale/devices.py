"""Kinds of GPUs that a run can be planned for."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from synthtune.errors import SettingsError, nearest
from synthtune.files import read_yaml
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


DEVICES = {name: Device(name, **numbers) for name, numbers in read_yaml(Path(__file__).with_name("devices.yaml")).items()}

# Peak 10¹² FLOP/s of two cores with which the laptop profile takes the hours that it took: in float32 (AVX2), and in bfloat16
# with AMX and without. Memory bandwidth of two cores, 10⁹ bytes/s.
CPU_TFLOPS = {"float32": 0.2, "bfloat16": 0.8}
CPU_TFLOPS_WITHOUT_AMX = 0.4
CPU_BANDWIDTH = 20.0


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
