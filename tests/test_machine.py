"""How a run divides a machine: cores, memory, GPUs."""

import pytest
from synthtune import settings as settings_module
from synthtune.scale import machine

GIB = 2**30


@pytest.fixture
def there(monkeypatch):
    def make(cores, gib, gpus=0):
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "free_memory", lambda: gib * GIB)
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)

    return make


def test_all_cores_are_used(there):
    settings = settings_module.load("laptop", {"budgets": [125, 500]})
    there(2, 20)
    assert machine.divided(settings) == machine.Division(2, {})
    there(16, 64)
    assert machine.divided(settings) == machine.Division(12, {"students": 2})
    there(64, 256)
    assert machine.divided(settings) == machine.Division(12, {"annotate": 5, "generate": 5, "students": 10})


def test_memory_limits_how_many_notebooks_run(there):
    settings = settings_module.load("laptop")
    there(16, 8)
    found = machine.divided(settings)
    assert found.jobs == 2 and "Of 16 cores 2 are used" in found.said
    there(16, 64)
    assert machine.divided(settings, measured=20 * GIB).jobs == 3
    there(2, 2)
    found = machine.divided(settings)
    assert found.jobs == 1 and found.said.startswith("Memory may run out") and "Close other programs" in found.said
    asked = machine.divided(settings_module.load("laptop", {"jobs": 4}))
    assert asked.jobs == 4 and "Run fewer (--jobs 1)" in asked.said


def test_what_the_user_sets_stays(there):
    there(16, 64)
    found = machine.divided(settings_module.load("laptop", {"jobs": 2, "students.processes": 1, "tasks": ["tweets"]}))
    assert found.jobs == 2 and found.processes == {"annotate": 8, "generate": 8}
    there(16, 64)
    assert machine.divided(settings_module.load("laptop", {"threads": 4})).jobs == 4


def test_notebooks_share_a_gpu_as_far_as_the_planner_says_and_several_gpus_go_to_one(there, monkeypatch):
    there(16, 512, gpus=8)
    assert machine.divided(settings_module.load("laptop")).jobs == 1
    there(16, 512, gpus=1)

    class Properties:
        total_memory = 24 * GIB

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: Properties)
    assert machine.divided(settings_module.load("laptop", {"number_format": "bfloat16"})).jobs > 2  # as on such a GPU
    assert machine.divided(settings_module.load("paper", {"tasks": ["rte"], "data_root": "/nowhere"})).jobs == 1


def test_memory_of_a_notebook_grows_with_the_teacher():
    small, large = (machine.notebook_bytes(settings_module.load(name)) for name in ("laptop", "paper"))
    assert 2.5 * GIB < small < 4 * GIB and large > 200 * GIB
