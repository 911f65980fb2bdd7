"""The measurement of one GPU: its steps with tiny shapes on this processor, and what it says where a model does not fit."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
CASES = ["student, roberta-large: training", "student, bart-large: training", "teacher, scoring labels: 8 prompts",
         "teacher, sampling: our write, batches", "teacher, sampling: plain generate",
         "teacher, LoRA training: activations kept, adapters in float32", "teacher, LoRA training: activations kept",
         "teacher, LoRA training: activations checkpointed",
         *(["teacher, sampling: our write, vLLM"] if importlib.util.find_spec("vllm") else [])]
PLANNED = ["predicted_rate", "limit_rate", "predicted_gib"]


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark as a module."""
    specification = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def measured(gpu, tmp_path, monkeypatch):
    """Run it with tiny shapes; give its table, which has a row for every case."""

    def run(**changes):
        for name, value in changes.items():
            monkeypatch.setattr(gpu, name, value)
        monkeypatch.setattr(sys, "argv", ["gpu", "--toy", "--out", str(tmp_path)])
        gpu.main()
        table = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False, na_values=[""])
        cases = [f"{what}: {how}" for what, how in zip(table["what"], table["how"], strict=True)]
        assert all(case.startswith(start) for case, start in zip(cases, CASES, strict=True)), cases
        assert (tmp_path / "gpu.md").read_text().count("\n| ") == len(CASES) + 1
        assert (table[PLANNED] > 0).all(axis=None)
        return table

    return run


@pytest.mark.slow
def test_every_case_is_measured_beside_what_was_planned(measured):
    table = measured()
    assert table["note"].isna().all() and (table["rate"] > 0).all()


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_a_row_that_says_so(measured, monkeypatch):
    for kind in (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification):
        make = kind.from_config

        def too_large(config, make=make, **options):
            if torch.get_default_device().type != "meta":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return make(config, **options)

        monkeypatch.setattr(kind, "from_config", too_large)
    table = measured()
    assert set(table["note"]) == {"does not fit in memory"} and table["rate"].isna().all()


def test_what_comes_too_late_is_a_row_that_says_so(measured):
    assert set(measured(SECONDS=-1)["note"]) == {"not measured: time was up"}


@pytest.mark.parametrize(("said", "gib", "chip"), [("NVIDIA H200", 139.8, "H200 141GB"), ("NVIDIA H100 80GB HBM3", 79.2, "H100 80GB"),
                                                   ("NVIDIA A100-SXM4-40GB", 39.4, "A100 40GB")])
def test_the_chip_is_found_by_its_name_and_memory(gpu, tmp_path, monkeypatch, said, gib, chip):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: said)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=gib * gpu.GIB))
    bench = gpu.Bench(gpu.TOY, tmp_path)
    assert bench.plan.gpu == bench.chip.name == chip and bench.device.type == "cuda"
