"""Kinds of GPUs that a run can be planned for, and this machine's processor."""

from dataclasses import dataclass
from pathlib import Path

import joblib
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

# Peak 10¹² FLOP/s of one core with which the laptop profile takes the hours that it took on two (AVX2; AVX512-BF16), by number
# format, and stated memory bandwidth, 10⁹ bytes/s.
CORE_TFLOPS = {"float32": 0.175, "bfloat16": 0.475}
CPU_BANDWIDTH = 20.0


def cores() -> int:
    """Processor cores that this process may use, by affinity and by the quota of its control group."""
    return joblib.cpu_count()


def device(settings: Settings) -> Device:
    """The kind of GPU that the settings name, or this machine.

    Raises
    ------
    SettingsError
        With the nearest names, if there is none of that name.
    """
    plan = settings.plan
    if plan.gpu == "cpu":
        memory, tflops = psutil.virtual_memory().total / GIB, cores() * CORE_TFLOPS[settings.planned_format]
        return Device("cpu", memory, tflops, CPU_BANDWIDTH, CPU_BANDWIDTH)
    if plan.gpu not in DEVICES:
        raise SettingsError(f"plan.gpu: unknown GPU '{plan.gpu}'; {nearest(plan.gpu, [*DEVICES, 'cpu'])}")
    return DEVICES[plan.gpu]
