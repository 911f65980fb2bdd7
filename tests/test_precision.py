"""What is trained is float32, whatever a model was published in and is computed in; and what several processes wait for."""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from synthtune import experiment, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.files import read_json, write_json
from synthtune.models import assets, fine_tuning, language_model, students
from test_hub_models import save, snapshot
from transformers import AutoModel, AutoModelForSeq2SeqLM

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put a small random model into a hub cache of its own, which is there for other processes too: hub(name, dtype)."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))

    def make(name, dtype=torch.float32):
        folder = tmp_path / name
        folder.mkdir()
        save(name, folder)
        kind = AutoModelForSeq2SeqLM if name == "bart-large" else AutoModel
        if dtype != torch.float32:
            kind.from_pretrained(folder).to(dtype).save_pretrained(folder)
        target = snapshot(cache, name)
        blobs = target.parents[1] / "blobs"
        for place in (target, blobs):
            place.mkdir(parents=True)
        for path in folder.iterdir():
            blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.write_bytes(path.read_bytes())
            (target / path.name).symlink_to(Path("..", "..", "blobs", blob.name))

    return make


# Students.


def dtypes(model):
    return {weight.dtype for weight in model.parameters()}


@pytest.mark.parametrize(("task_name", "model"), [("tweets", "roberta-large"), ("webnlg", "bart-large")])
def test_a_student_that_was_published_in_float16_learns_in_float32(hub, tiny, tmp_path, task_name, model):
    hub(model, torch.float16)
    [published] = Path(assets.model_path(model)).glob("*.safetensors")
    assert {value.dtype for value in load_file(published).values()} == {torch.float16}
    settings = tiny(tmp_path / "run", **{"students.model": model, "students.frozen_layers": 0, "students.max_tokens": 100,
                                         "students.learning_rate": 1e-3}).check(task_name)
    task, cell = tasks.load(task_name, settings), experiment.Cell(32, "gold", 0, 1)
    bench = student.trainer(Context.of(task, settings))
    trained = bench.train(experiment.training_rows(Context.of(task, settings), cell)[0], cell)
    assert dtypes(trained.model) == {torch.float32}
    assert all(weight.isfinite().all() for weight in trained.model.parameters())
    bench.whole(trained).save_pretrained(tmp_path / "whole")
    assert {value.dtype for value in load_file(tmp_path / "whole" / "model.safetensors").values()} == {torch.float32}
    assert AutoModel.from_pretrained(tmp_path / "whole").dtype == torch.float32


@pytest.fixture
def halved(monkeypatch):
    """Students compute as they do on a GPU; the formats that their linear maps give are listed."""
    seen = set()
    monkeypatch.setattr(students.StudentTrainer, "computing", lambda self, training=False: torch.autocast("cpu", torch.bfloat16))
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, read, given: seen.add(given.dtype) if isinstance(module, torch.nn.Linear) else None)
    yield seen
    hook.remove()


def test_a_classifier_learns_in_bfloat16_with_float32_weights(halved, tiny, tmp_path):
    settings = tiny(tmp_path, **{"students.learning_rate": 1e-3, "students.frozen_layers": 5, "students.steps": 16,
                                 "students.max_tokens": 24})
    task = tasks.load("tweets", settings)
    cell = experiment.Cell(len(task.pool), "full", 0, 1)
    rows, _ = experiment.training_rows(Context.of(task, settings), cell)
    bench = student.trainer(Context.of(task, settings))
    halved.clear()  # that the model's two parts give what the whole gives is tried in float32
    trained = bench.train(rows, cell)
    assert halved == {torch.bfloat16} and dtypes(trained.model) == {torch.float32}
    texts, wanted = [row.text for row in rows[:48]], torch.tensor([task.labels.index(row.output) for row in rows[:48]])
    _, sure = bench.predict(trained, texts, scored=True)
    assert sure.dtype == torch.float32
    assert torch.nn.functional.nll_loss(sure, wanted) < 0.6  # guessing costs 0.69
    assert {state.dtype for state in bench.states.values()} == {torch.float32}
    assert dtypes(bench.whole(trained)) == {torch.float32}


@pytest.mark.parametrize("model", ["minilm-l6-v2", "bart-large"])
def test_a_writer_writes_in_bfloat16_with_float32_weights(halved, hub, tiny, tmp_path, model):
    if model == "bart-large":
        hub(model)
    settings = tiny(tmp_path / "run", **{"students.model": model, "students.max_tokens": 100, "students.encoder_layers": 1,
                                         "students.decoder_layers": 1}).check("webnlg")
    task, cell = tasks.load("webnlg", settings), experiment.Cell(32, "gold", 0, 1)
    bench = student.trainer(Context.of(task, settings))
    trained = bench.train(experiment.training_rows(Context.of(task, settings), cell)[0], cell)
    written, sure = bench.predict(trained, [example.text for example in task.test[:4]], scored=True)
    assert halved == {torch.bfloat16} and dtypes(trained.model) == {torch.float32}
    assert len(written) == 4 and sure.isfinite().all() and (sure < 0).all()
    assert dtypes(bench.whole(trained)) == {torch.float32}


# Teachers.

PROCESS = """
import json, os, time
from datetime import timedelta
from pathlib import Path
from synthtune import teacher
from synthtune.models import fine_tuning
from synthtune.scale import sharding
from torch.distributed import get_rank
from torch.distributed.tensor import DTensor

gather, put, rate, train = sharding.trained_weights, sharding.Checkpoints._put, fine_tuning.warm_up_and_decay, teacher._train_share

def gathered(model):
    formats = {name: [isinstance(p, DTensor), str(p.dtype), p.requires_grad] for name, p in model.named_parameters()}
    Path(os.environ["SEEN"], f"{get_rank()}.json").write_text(json.dumps(formats))
    return gather(model)

def slowly_put(*arguments):
    time.sleep(7)
    put(*arguments)

def lost(step, steps):
    if "SILENT" in os.environ and step == 1 and get_rank():
        time.sleep(600)
    return rate(step, steps)

def watched(*given):
    sharding.STEP_PATIENCE = timedelta(seconds=5)
    sharding.trained_weights, sharding.Checkpoints._put, fine_tuning.warm_up_and_decay = gathered, slowly_put, lost
    train(*given)
"""


@pytest.fixture
def watched(hub, tiny, tmp_path, monkeypatch):
    """Train the smallest NeoX in two processes, which say what they hold and whose patience is short."""
    hub("gpt-neox-20b")
    folder = tmp_path / "seen"
    folder.mkdir()
    monkeypatch.setenv("SEEN", str(folder))
    (tmp_path / "watched_process.py").write_text(PROCESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(teacher, "_train_share", importlib.import_module("watched_process").watched)
    paper = settings_module.load("paper").for_task("tweets")

    def make(**changes):
        return tiny(tmp_path / "run", **{
            "teacher.model": paper.teacher.model, "teacher.frozen_layers": 0, "teacher.max_tokens": 100, "budgets": [18],
            "teacher.learning_rate": 5e-3, "teacher.batch_size": 4, "teacher.processes": 2, "tasks": ["tweets"], **changes})

    yield make, folder
    del sys.modules["watched_process"]


@pytest.mark.parametrize(("method", "sharding", "frozen"), [
    ("lora", "sharded", 0), ("full", "sharded", 0), ("full", "replicated", 1)])
def test_what_two_processes_train_of_a_bfloat16_teacher_is_float32(watched, method, sharding, frozen):
    make, folder = watched
    settings = make(**{"teacher.method": method, "teacher.sharding": sharding, "teacher.frozen_layers": frozen,
                       "teacher.checkpoint_steps": 10})
    kept = settings.folder / "tweets" / "budget-18" / "teacher-annotate"
    # What a killed training with other settings has left.
    write_json(kept.with_name(f"{kept.name}-training") / "step-10" / "record.json", {"made_from": {}, "notes": [1]})
    task, lm = tasks.load("tweets", settings), language_model.load("gpt-neox-20b", "bfloat16")
    adapter = teacher.fine_tune(lm, Context.of(task, settings, 18), "annotate")
    record = read_json(adapter.folder / "settings.json")
    assert record["processes"] == 2 and record["resumed_at_step"] == 0
    by_epoch = adapter.losses.groupby("epoch")["loss"].mean()
    assert adapter.losses["loss"].notna().all() and by_epoch[3] < 0.97 * by_epoch[1]
    for rank in range(2):
        formats = json.loads((folder / f"{rank}.json").read_text())
        assert {divided for divided, _, _ in formats.values()} == {sharding == "sharded"}
        assert {dtype for _, dtype, trained in formats.values() if trained} == {"torch.float32"}
        assert {dtype for _, dtype, trained in formats.values() if not trained} == (
            set() if method == "full" and not frozen else {"torch.bfloat16"})
    weights = load_file(adapter.folder / fine_tuning.WEIGHTS[method])
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in weights.values())
    tuned = teacher.with_adapter(lm, adapter)
    assert dtypes(tuned.model) == {torch.bfloat16}
    [logs] = teacher.answers(tuned, Context.of(task, settings), [task.test[0].text])[1]
    assert logs < 0
    before = lm.model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in tuned.model.state_dict().items())


def test_processes_do_not_wait_long_for_one_that_is_silent(watched, monkeypatch):
    """Its machine is without power, say; nothing tells the others so."""
    make, _ = watched
    monkeypatch.setenv("SILENT", "1")
    settings = make(**{"teacher.sharding": "sharded"})
    context = Context.of(tasks.load("tweets", settings), settings, 18)
    with pytest.raises(RuntimeError, match="(?i:timed? ?out)"):
        teacher.fine_tune(language_model.load("gpt-neox-20b", "float32"), context, "annotate")
