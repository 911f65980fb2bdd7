"""The number format: chosen from what the processor has, the same in all processes, part of what results depend on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from synthtune import experiment, number_format, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.analysis.results import Results, mixture
from synthtune.context import Context
from synthtune.files import read_json, write_json
from synthtune.models import language_model
from synthtune.run import graph

LIB = Path(__file__).resolve().parents[1] / "lib"
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def python(code, **environment):
    """Run code on the processor as it is, whatever these tests run on, but for what `environment` lowers."""
    mine = {name: value for name, value in os.environ.items() if name not in AVX2}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**mine, "PYTHONPATH": str(LIB), "CUDA_VISIBLE_DEVICES": "", **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


CHOICE = "from synthtune import number_format; print(number_format.of_machine())"


def test_a_processor_without_bfloat16_instructions_computes_in_float32():
    assert python(CHOICE, **AVX2) == ["float32"]
    assert python(CHOICE, ONEDNN_MAX_CPU_ISA="AVX512_CORE") == ["float32"]


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this processor has no AMX")
def test_a_processor_with_amx_computes_in_bfloat16():
    assert python(CHOICE) == ["bfloat16"]


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this processor has no AVX512-BF16 instructions")
@pytest.mark.parametrize(("name", "chosen"), [("AMD EPYC", "bfloat16"), ("Intel(R) Xeon(R)", "float32")])
def test_without_amx_the_maker_decides_what_the_instructions_for_bfloat16_are_worth(name, chosen):
    code = f"from synthtune import number_format as f; f.processor = lambda: '{name}'; print(f.of_machine(), f._has_amx())"
    assert python(code, ONEDNN_MAX_CPU_ISA="AVX512_CORE_BF16") == [chosen, "False"]


def test_the_format_is_decided_when_a_run_begins_and_handed_to_every_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(number_format, "of_machine", lambda: "bfloat16")
    settings = settings_module.load("smoke", run_dir=tmp_path)
    run = graph.Run(settings, ["seed=17"], [])
    assert all("number_format=bfloat16" in job["overrides"] for job in run.jobs.values())
    with run.written(keep=True):
        assert read_json(tmp_path / "settings.json")["number_format"] == "bfloat16"
        assert read_json(tmp_path / "settings" / "tweets" / "teacher.json")["number_format"] == "bfloat16"
    # On another machine it goes on as it began, unless the user says otherwise.
    monkeypatch.setattr(number_format, "of_machine", lambda: "float32")
    assert settings_module.load("smoke", run_dir=tmp_path).check("tweets").number_format == "bfloat16"
    assert settings_module.load("smoke", ["number_format=float32"], run_dir=tmp_path).format == "float32"
    assert settings_module.load("smoke", run_dir=tmp_path / "other").format == "float32"


def test_results_depend_on_the_format(tmp_path):
    one, two = (settings_module.load("smoke", {"number_format": name}, run_dir=tmp_path) for name in ("float32", "bfloat16"))
    for stage in ("teacher", "annotate", "generate", "students"):
        assert one.for_stage(stage, "tweets") != two.for_stage(stage, "tweets")
    assert one.for_stage("figures") == two.for_stage("figures")


def test_a_teacher_of_one_format_is_not_taken_for_the_other(lm, tiny, tmp_path):
    settings = tiny(tmp_path, **{"teacher.epochs": 1, "teacher.frozen_layers": 29, "budgets": [8]})
    task = tasks.load("tweets", settings)
    adapters = [teacher.fine_tune(model, Context.of(task, settings.model_copy(update={"number_format": model.format}), 8), "annotate")
                for model in (lm, language_model.load(lm.name, "bfloat16"))]
    assert adapters[0].digest != adapters[1].digest


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_students_learn_in_either_format_and_say_in_which(study, tiny, tmp_path, name):
    settings = tiny(tmp_path, number_format=name, **{"students.steps": 15, "students.learning_rate": 6e-4})
    table = student.run_cells(Context.of(study.task, settings), [experiment.Cell(32, "gold", 0, 1)])
    assert table["number_format"].tolist() == [name] and table["device"].str.len().all()
    assert table["accuracy"][0] > 60


def test_products_of_students_are_rounded_to_bfloat16_within_the_context_only():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a @ b
    for training in (True, False):
        with number_format.computing("float32", torch.device("cpu"), training):
            assert torch.equal(a @ b, exact)
        with number_format.computing("bfloat16", torch.device("cpu"), training):
            rounded = (a @ b).float()
        assert torch.equal(a @ b, exact)
        apart = (rounded - exact).norm() / exact.norm()
        assert 1e-4 < apart < 1e-2


def test_a_run_that_mixes_formats_says_so(tmp_path):
    def results(formats):
        rows = pd.DataFrame({"task": "tweets", "number_format": formats, "device": "a processor"})
        return Results(None, rows, rows[:0], pd.DataFrame(), pd.DataFrame())

    assert mixture(results(["float32"] * 2)) == ""
    said = mixture(results(["float32", "bfloat16", "bfloat16"]))
    assert "1 in float32 on a processor" in said and "2 in bfloat16 on a processor" in said


MEMORY = """
import sys
from pathlib import Path
from synthtune.models import decoding, language_model

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

lm = language_model.load("smollm2-135m-instruct", "bfloat16")
lm.model.requires_grad_(False)  # as after peft's merge
decoding.decode(lm, ["One"], 2)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
decoding.decode(lm, ["One two three four"] * 64, 3, batch_size=64)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_decoding_copies_no_weights(tmp_path):
    """PyTorch copies the output layer's weights once a row where its input is not contiguous: 3.6 GB for 64 prompts."""
    assert int(python(MEMORY, OMP_NUM_THREADS="1")[-1]) < 500


def test_the_output_layer_reads_contiguous_states_of_tuned_and_narrowed_models(study):
    for model in (study.annotator.model, study.generator.model, language_model.with_vocabulary(
            study.lm, torch.arange(1, 600)).model):
        seen = []
        hook = model.get_output_embeddings().register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0]))
        with torch.inference_mode():
            model(torch.ones(3, 5, dtype=torch.long), logits_to_keep=1)
        hook.remove()
        assert seen[0].shape[1] == 1 and seen[0].is_contiguous()


def test_settings_handed_to_other_processes_are_resolved(tmp_path):
    settings = settings_module.load("smoke", run_dir=tmp_path)
    assert settings.number_format == "auto"
    assert json.loads(settings.check("tweets").model_dump_json())["number_format"] in ("float32", "bfloat16")
    write_json(tmp_path / "settings.json", {"profile": "smoke"})  # of an earlier version
    assert settings.format in ("float32", "bfloat16")


def test_apples_gpus_are_used_where_torch_has_them_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert number_format.device() == "mps"
    monkeypatch.setenv("SYNTHTUNE_DEVICE", "cpu")
    assert number_format.device() == "cpu"
