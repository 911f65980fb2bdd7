"""Models of the hub's kinds: small random ones of the real architectures, in the hub client's own cache or from a server."""

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from synthtune import annotate, experiment, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.custom import deployed
from synthtune.errors import AssetError, StageError
from synthtune.files import read_json
from synthtune.models import assets, fine_tuning, language_model, students
from synthtune.models import hub as hub_module
from synthtune.places import ROOT
from synthtune.tasks import webnlg
from tokenizers import ByteLevelBPETokenizer
from toy_corpora import facts
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizerFast,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
)

LIB = ROOT / "lib"
WORDS = ["What a fine day, thank you all!", "Facts and texts: Porto is in Portugal; it has a river.", "The train left at 8:30."]
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def save(name, folder):
    """A small random model of a declared architecture, as its authors publish theirs."""
    words = ByteLevelBPETokenizer()
    special = ["<|endoftext|>"] if name == "gpt-neox-20b" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words.train_from_iterator(WORDS * 4, vocab_size=400, special_tokens=special)
    words.save_model(str(folder))
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = {"gpt-neox-20b": GPTNeoXTokenizerFast, "roberta-large": RobertaTokenizerFast,
                 "bart-large": BartTokenizerFast}[name](**files)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    if name == "gpt-neox-20b":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **SMALL))
    elif name == "roberta-large":
        model = RobertaModel(RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, **SMALL))
    else:
        model = BartForConditionalGeneration(BartConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128))
        model.generation_config.update(num_beams=4, no_repeat_ngram_size=3, early_stopping=True, forced_bos_token_id=0)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The three models' files, by name."""
    folders = {}
    for name in ("gpt-neox-20b", "roberta-large", "bart-large"):
        folders[name] = tmp_path_factory.mktemp(name)
        save(name, folders[name])
    return folders


def snapshot(cache, name):
    model = assets.models()[name]
    return cache / f"models--{model.repository.replace('/', '--')}" / "snapshots" / model.revision


@pytest.fixture
def cached(published, tmp_path, monkeypatch):
    """A hub cache that holds the three, laid out as the client does, and nothing of the network."""
    cache = tmp_path / "hub"
    for name, folder in published.items():
        target = snapshot(cache, name)
        target.mkdir(parents=True)
        blobs = target.parents[1] / "blobs"
        blobs.mkdir()
        for path in folder.iterdir():
            blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.write_bytes(path.read_bytes())
            (target / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("SYNTHTUNE_CACHE", str(tmp_path / "cache"))
    return cache


@pytest.fixture
def paper(cached, tiny, tmp_path):
    """The smallest study with the models that the profile `paper` names."""
    named = settings_module.load("paper")
    assert named.hub_models() == ["gpt-neox-20b", "roberta-large", "bart-large"]

    def make(task, **changes):
        mine = named.for_task(task)
        return tiny(tmp_path / "run", **{
            "teacher.model": mine.teacher.model, "students.model": mine.students.model, "teacher.frozen_layers": 1,
            "students.frozen_layers": mine.students.frozen_layers, "teacher.learning_rate": 5e-3, "tasks": [task],
            "students.learning_rate": 1e-3, "students.max_tokens": 100, "teacher.max_tokens": 100, **changes})

    return make


@pytest.mark.parametrize("name", ["gpt-neox-20b", "roberta-large", "bart-large"])
def test_a_cached_snapshot_is_used_without_a_network(cached, name):
    assert assets.model_path(name) == snapshot(cached, name)
    assert len(assets.digest(name)) == 64 and assets.digest(name) != assets.digest("minilm-l6-v2")


def test_a_neox_teacher_learns_and_annotates(paper, monkeypatch):
    # The corpora and the small models are the machine's; only the hub's cache is this test's.
    monkeypatch.delenv("SYNTHTUNE_CACHE")
    settings = paper("tweets")
    task = tasks.load("tweets", settings)
    lm = language_model.load("gpt-neox-20b", "float32")
    assert type(lm.model).__name__ == "GPTNeoXForCausalLM" and lm.model.config._attn_implementation == "sdpa"
    for objective in ("annotate", "generate"):
        losses = teacher.fine_tune(lm, Context.of(task, settings, 32), objective).losses.groupby("epoch")["loss"].mean()
        assert losses[3] < losses[1]
    annotator = teacher.with_adapter(lm, teacher.fine_tune(lm, Context.of(task, settings, 32), "annotate"))
    table = annotate.annotate(annotator, Context.of(task, settings, 32))
    assert len(table) == 40 and set(table["output"]) <= set(task.labels)


@pytest.fixture
def neox(paper, monkeypatch):
    """Settings for the smallest NeoX, which is there for other processes too."""
    monkeypatch.delenv("SYNTHTUNE_CACHE")

    def make(run, **changes):
        return paper("tweets", **{"teacher.frozen_layers": 0, "teacher.batch_size": 4, "budgets": [18], **changes}
                     ).model_copy(update={"run_dir": run})

    return make


def trained(adapter):
    return load_file(adapter.folder / fine_tuning.WEIGHTS["lora" if (adapter.folder / "adapter_config.json").exists() else "full"])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "number_format"), [("lora", "float32"), ("full", "bfloat16")])
def test_two_processes_that_share_a_neox_train_what_one_does_that_holds_it(neox, tmp_path, method, number_format):
    """Eighteen examples in batches of four: the last batch has two, and no process ever holds a layer's weights but
    while it computes.

    In float32 sums in another order differ by 1e-7 of a gradient, and weights by little. In bfloat16 a gradient has three
    digits. Adam divides each by its own size, so where it is nearly zero its sign, and with it a whole step, is decided
    by the rounding: single weights differ by up to the learning rate a step. What was learned as a whole must not.
    """
    changes = {"teacher.method": method, "teacher.learning_rate": 2e-3, "number_format": number_format}
    alone, shared = neox(tmp_path / "one", **changes), neox(tmp_path / "two", **changes, **{
        "teacher.processes": 2, "teacher.sharding": "sharded", "teacher.activations": "checkpointed"})
    task = tasks.load("tweets", alone)
    lm = language_model.load("gpt-neox-20b", number_format)
    one, two = (teacher.fine_tune(lm, Context.of(task, settings, 18), "generate") for settings in (alone, shared))
    assert read_json(one.folder / "settings.json")["held"] == 1
    record = read_json(two.folder / "settings.json")
    assert record["processes"] == 2 and 0.49 < record["held"] < 0.51
    exact = number_format == "float32"
    assert list(two.losses["loss"]) == pytest.approx(list(one.losses["loss"]), rel=1e-3 if exact else 5e-3)
    first, second = trained(one), trained(two)
    assert first.keys() == second.keys() and len(first) > 10
    before = lm.model.state_dict()
    if exact:
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=1e-2, atol=2e-4)
    else:
        start = {name: before.get(name, torch.zeros(1)) for name in first}  # the B of LoRA starts at zero
        names = [name for name in first if "lora_A" not in name]
        moved, apart = (torch.cat([(value[name] - other[name]).float().flatten() for name in names]).norm()
                        for value, other in ((first, start), (second, first)))
        assert moved > 0 and apart < 0.1 * moved, (apart, moved)
    tuned = teacher.with_adapter(lm, two).model.state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, before[name])}
    assert any("dense_h_to_4h" in name for name in changed) and ("gpt_neox.embed_in.weight" in changed) == (method == "full")


@pytest.mark.slow
def test_a_killed_sharded_training_resumes_and_ends_with_the_same_weights(neox, tmp_path, kill_when):
    changes = {"teacher.processes": 2, "teacher.sharding": "sharded", "teacher.epochs": 8, "teacher.checkpoint_steps": 7,
               "teacher.lora_dropout": 0.1}
    whole, killed = neox(tmp_path / "whole", **changes), neox(tmp_path / "killed", **changes)
    task, lm = tasks.load("tweets", whole), language_model.load("gpt-neox-20b", "float32")
    uninterrupted = teacher.fine_tune(lm, Context.of(task, whole, 18), "annotate")
    assert not list(tmp_path.rglob("*-training"))

    folder = killed.folder / "tweets" / "budget-18" / "teacher-annotate-training"
    thread = kill_when(lambda: list(folder.glob("step-*")))
    with pytest.raises(StageError, match="A process ended without a word"):
        teacher.fine_tune(lm, Context.of(task, killed, 18), "annotate")
    thread.join()
    assert list(tmp_path.rglob("*-training/step-*/*.distcp"))
    resumed = teacher.fine_tune(lm, Context.of(task, killed, 18), "annotate")
    assert read_json(resumed.folder / "settings.json")["resumed_at_step"] % 7 == 0 < read_json(
        resumed.folder / "settings.json")["resumed_at_step"]
    assert resumed.digest == uninterrupted.digest and resumed.losses.equals(uninterrupted.losses)
    assert not list(tmp_path.rglob("*-training"))


@pytest.mark.slow
def test_two_machines_share_a_neox_from_the_shell(neox, tmp_path):
    """Two launchers of one process each, as accelerate starts on every machine of a cluster."""
    settings = neox(tmp_path / "run", **{"teacher.sharding": "sharded", "teacher.epochs": 1})
    changed = settings_module.load("smoke").for_task("tweets").teacher.model_dump()
    mine = {f"teacher.{name}": value for name, value in settings.teacher.model_dump().items() if changed[name] != value}
    mine |= {name: getattr(settings, name) for name in ("budgets", "pool_size", "test_size", "dev_size", "nlg_test_size",
                                               "number_format")}
    words = [word for name, value in mine.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr",
               "127.0.0.1", "--master-port", str(port)]
    asked = ["-m", "synthtune.teacher", "--profile", "smoke", "--run-dir", str(settings.folder), "--task", "tweets",
             "--budget", "18", "--objective", "annotate", *words]
    nodes = [subprocess.Popen([*command, "--node-rank", str(rank), *asked], env={**os.environ, "PYTHONPATH": str(LIB)},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    said = [node.communicate(timeout=180)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    lm = language_model.load("gpt-neox-20b", "float32")
    adapter = teacher.fine_tune(lm, Context.of(tasks.load("tweets", settings), settings, 18), "annotate")  # what they left is taken
    record = read_json(adapter.folder / "settings.json")
    assert record["processes"] == 2 and 0.49 < record["held"] < 0.51


@pytest.mark.parametrize(("name", "model", "metric"), [("tweets", "roberta-large", "accuracy"),
                                                       ("webnlg", "bart-large", "chrf")])
def test_roberta_and_bart_students(paper, monkeypatch, name, model, metric):
    monkeypatch.delenv("SYNTHTUNE_CACHE")
    settings = paper(name, **{"students.steps": 6}).check(name)
    assert settings.students.model == model
    task = tasks.load(name, settings)
    table = student.run_cells(Context.of(task, settings), [experiment.Cell(32, "gold", 0, 1)])
    assert table["model"].tolist() == [model] and table["model_digest"].tolist() == [assets.digest(model)]
    assert 0 <= table[metric][0] <= 100
    again = student.run_cells(Context.of(task, settings), [experiment.Cell(32, "gold", 0, 1)])
    assert again.equals(table)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tweets", "webnlg"])
def test_students_of_the_paper_are_saved_whole(paper, monkeypatch, tmp_path, name):
    monkeypatch.delenv("SYNTHTUNE_CACHE")
    settings = paper(name, **{"students.steps": 6}).check(name)
    task = tasks.load(name, settings)
    bench = student.trainer(Context.of(task, settings))
    cell = experiment.Cell(32, "gold", 0, 1)
    trained = bench.train(experiment.training_rows(Context.of(task, settings), cell)[0], cell)
    bench.whole(trained).save_pretrained(tmp_path / "model")
    bench.tokenizer.model_max_length = settings.students.max_tokens
    bench.tokenizer.save_pretrained(tmp_path / "model")
    texts = [example.text for example in task.test[:9]]
    said, sure = bench.predict(trained, texts, scored=True)
    outputs, scores, _ = deployed.predict(tmp_path / "model", texts, task.labels)
    assert outputs == said
    np.testing.assert_allclose(scores.reshape(sure.shape), sure, atol=1e-4)
    networks = {path.name: ReferenceEvaluator(str(path)) for path in deployed.to_onnx(tmp_path / "model", task.labels)}
    read = {key: value.numpy() for key, value in bench.tokenizer(texts[:4], padding=True, truncation=True,
                                                                 return_tensors="pt").items() if key != "token_type_ids"}
    if task.labels:
        logits = networks["model.onnx"].run(["logits"], read)[0]
        np.testing.assert_allclose(torch.tensor(logits).log_softmax(-1), sure[:4], atol=1e-4)
        return
    [hidden] = networks["encoder_model.onnx"].run(["last_hidden_state"], read)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    written = model.generate(**{key: torch.tensor(value) for key, value in read.items()}).numpy()
    logits = networks["decoder_model.onnx"].run(["logits"], {
        "input_ids": written[:, :-1], "encoder_hidden_states": hidden, "encoder_attention_mask": read["attention_mask"]})[0]
    wanted, greedy = written[:, 2:-1], logits.argmax(-1)[:, 1:-1]  # the first and the last word piece are forced
    assert (greedy == wanted)[wanted != model.config.pad_token_id].all() and wanted.size


def test_a_pretrained_writer_learns(paper, monkeypatch):
    monkeypatch.delenv("SYNTHTUNE_CACHE")
    settings = paper("webnlg", **{"students.steps": 60, "students.learning_rate": 5e-3}).check("webnlg")
    task = tasks.load("webnlg", settings)
    losses = []
    fit = students.StudentTrainer.fit

    def watched(self, module, rows, cell, loss):
        def mean():
            with torch.no_grad():
                sums, numbers = loss(rows[:16])
            return float(sums.sum() / numbers.sum())

        losses.append(mean())
        fit(self, module, rows, cell, loss)
        losses.append(mean())

    monkeypatch.setattr(students.StudentTrainer, "fit", watched)
    student.run_cells(Context.of(task, settings), [experiment.Cell(len(task.pool), "full", 0, 1)])
    assert losses[1] < 0.8 * losses[0]


def test_what_is_not_in_the_cache_is_named_with_what_to_do(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(AssetError, match=r"'bart-large' \(facebook/bart-large .* revision cb48c1365bd8\) is not in the hub's "
                                         r"cache, .*empty, and HF_HUB_OFFLINE forbids to download it"):
        assets.model_path("bart-large")


def test_without_variables_the_models_are_where_run_all_puts_them(monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert "$root/.cache/huggingface" in (LIB.parent / "run_all.sh").read_text()
    assert hub_module.cache() == LIB.parent / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert hub_module.cache() == Path("/elsewhere/hub")


def test_pickles_are_not_taken(cached):
    folder = snapshot(cached, "roberta-large")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(AssetError, match="has no weights in safetensors, and pickles are not loaded"):
        assets.model_path("roberta-large")


def test_damaged_weights_are_refused_and_deleted(cached):
    weights = snapshot(cached, "gpt-neox-20b") / "model.safetensors"
    blob = weights.resolve()
    contents = blob.read_bytes()
    blob.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    with pytest.raises(AssetError, match=r"model.safetensors of 'gpt-neox-20b' .* is damaged and was deleted: run again"):
        assets.model_path("gpt-neox-20b")
    assert not blob.exists() and not weights.is_symlink()


class Hub(http.server.BaseHTTPRequestHandler):
    """The little of the hub's interface that its client asks for a public model; breaks off or falls silent on demand."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server
        if hub.silent:
            self.close_connection = True
            return None
        revision = assets.models()["bart-large"].revision
        if self.path.startswith("/api/models/") and re.search(f"/bart-large(/revision/{revision})?$", self.path) and not hub.gone:
            files = [{"rfilename": path.name} for path in hub.folder.iterdir()] + [{"rfilename": "pytorch_model.bin"}]
            return self.answer(200, json.dumps({"id": "facebook/bart-large", "sha": revision, "siblings": files}).encode(),
                               Content_Type="application/json")
        if self.path.startswith("/api/models/") and "/tree/" in self.path and not hub.gone:
            tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                    for path in hub.folder.iterdir()]
            return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        if hub.gone:
            status, code = hub.gone
            return self.answer(status, b"{}", X_Error_Code=code, X_Error_Message="not for you")
        path = hub.folder / self.path.split("?")[0].rsplit("/", 1)[-1]
        if not path.is_file():
            return self.answer(404, b"{}", X_Error_Code="EntryNotFound")
        hub.asked.append((self.command, path.name, self.headers.get("Range")))
        contents = path.read_bytes()
        etag = hashlib.sha256(contents).hexdigest()
        if path.suffix == ".safetensors" and hub.wrong:
            contents = bytes(len(contents))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        headers = {"ETag": f'"{etag}"', "X_Repo_Commit": revision, "Accept_Ranges": "bytes"}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(contents) - 1}/{len(contents)}"
        if self.command == "GET" and path.suffix == ".safetensors" and hub.breaks:
            hub.breaks -= 1
            hub.silent = hub.silent_after
            self.send_response(200)
            for name, value in {"Content-Length": len(contents), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(contents[: len(contents) // 2])
            self.wfile.flush()
            self.connection.close()
            return None
        return self.answer(206 if start else 200, contents[start:], **headers)


@pytest.fixture
def hub(published):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked, server.breaks, server.wrong, server.gone = published["bart-large"], [], 0, False, None
    server.silent = server.silent_after = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(hub, folder, expression="assets.model_path('bart-large')", **variables):
    """A process of its own, which may use the network: what it gets, or the sentence it ends with."""
    code = ("from synthtune import errors, settings\nfrom synthtune.models import assets\n"
            f"try:\n    print({expression})\n"
            "except errors.AssetError as error:\n    print('ERROR', error)\n")
    environment = {name: value for name, value in os.environ.items()
                   if not name.lower().endswith("_proxy") and name != "HF_HUB_CACHE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HUB_OFFLINE": "0",
                    "HF_HOME": str(folder / "hf"), "SYNTHTUNE_CACHE": str(folder / "cache"), "PYTHONPATH": str(LIB),
                    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                    **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_model_is_downloaded_without_its_pickles_and_a_broken_download_is_tried_again(hub, tmp_path):
    hub.breaks = 1
    folder = Path(ask(hub, tmp_path))
    assert (folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists()
    gets = [ranged for command, name, ranged in hub.asked if command == "GET" and name == "model.safetensors"]
    assert len(gets) == 2
    hub.asked.clear()
    assert Path(ask(hub, tmp_path)) == folder and not [name for command, name, _ in hub.asked if command == "GET"]


def test_wrong_bytes_are_refused(hub, tmp_path):
    hub.wrong = True
    assert "is damaged and was deleted: run again to download it anew" in ask(hub, tmp_path)
    hub.wrong = False
    assert Path(ask(hub, tmp_path)).is_dir()


@pytest.mark.parametrize(("gone", "advice"), [
    ((404, "RevisionNotFound"), "it has no such revision: correct its entry in assets.yaml."),
    ((404, "RepoNotFound"), "correct its name in assets.yaml if it was renamed, or put an access token of yours into the"),
    ((401, "RepoNotFound"), "correct its name in assets.yaml if it was renamed, or put an access token of yours into the"),
    ((401, "GatedRepo"), "ask for access on its page, https://huggingface.co/facebook/bart-large, put an access token"),
    ((403, "GatedRepo"), "ask for access on its page, https://huggingface.co/facebook/bart-large, put an access token")])
def test_a_model_that_the_hub_does_not_give_is_explained(hub, tmp_path, gone, advice):
    hub.gone = gone
    said = ask(hub, tmp_path)
    assert said.startswith("ERROR The hub does not give 'bart-large' (facebook/bart-large") and advice in said


def test_the_commit_of_a_branch_is_looked_up_once_for_a_run(hub, tmp_path):
    """The first process asks the hub; those after it need no network and get the same."""
    def named(run):
        return f"settings.load('smoke', ['students.model=facebook/bart-large'], run_dir={str(tmp_path / run)!r}).students.model"

    wanted = f"facebook/bart-large@{assets.models()['bart-large'].revision}"
    assert ask(hub, tmp_path, named("run")) == wanted
    hub.silent = True
    assert ask(hub, tmp_path, named("run")) == wanted
    assert ask(hub, tmp_path, named("other")).startswith("ERROR Cannot download facebook/bart-large on the Hugging Face hub")
    hub.silent, hub.gone = False, (401, "GatedRepo")
    assert "its authors say who may have it: ask for access on its page" in ask(hub, tmp_path, named("gated"))
    hub.gone = (404, "RepoNotFound")
    assert "it has no such repository, or hides it: correct its name (there is no such folder here" in ask(hub, tmp_path, named("gone"))
    hub.gone = None
    # Sizes for a plan: config.json and nothing else.
    hub.asked.clear()
    assert ask(hub, tmp_path, f"assets.architecture({wanted!r})['model_type']") == "bart"
    assert {name for _, name, _ in hub.asked} == {"config.json"}
    folder = Path(ask(hub, tmp_path, f"assets.model_path({wanted!r})"))
    assert (folder / "model.safetensors").exists() and not (folder / "pytorch_model.bin").exists()


class Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy that wants a password, and a page to log in on."""

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.send_error(407)

    def do_GET(self):
        page = b"<html>Please log in.</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, tmp_path):
    """However the client tells it; it tries for some twenty seconds, so all at once."""
    hub.silent = True
    refusing = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{refusing.server_address[1]}"
    cases = {
        "closed port": ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "Connection refused"),
        "dead proxy": ({"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": "http://127.0.0.1:9"}, "Connection refused"),
        "proxy with a password": ({"HF_ENDPOINT": "https://hub.invalid", "HTTPS_PROXY": address}, "407 Proxy Authentication"),
        "no such proxy": ({"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": "nonsense://here"}, "Unknown scheme for proxy"),
        "silence": ({}, "Server disconnected without sending a response"),
        "a page to log in on": ({"HF_ENDPOINT": address}, "what answers there is not the hub, but perhaps a page to log in"),
    }
    try:
        with ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda name: ask(hub, tmp_path / name, **cases[name][0]), cases))
    finally:
        refusing.shutdown()
        refusing.server_close()
    for said, (name, (_, reason)) in zip(told, cases.items(), strict=True):
        assert said.startswith("ERROR Cannot download 'bart-large' (facebook/bart-large on"), (name, said)
        assert reason in said and "Run again to go on with what is there, or copy" in said, (name, said)


@pytest.mark.slow
def test_a_hub_that_is_lost_while_it_sends_is_one_sentence(hub, tmp_path):
    hub.breaks, hub.silent_after = 1, True
    assert ask(hub, tmp_path).startswith("ERROR Cannot download 'bart-large' (facebook/bart-large on")
    hub.silent = False
    assert Path(ask(hub, tmp_path)).is_dir()


def test_a_full_disk_while_a_model_arrives_is_one_sentence(hub, tmp_path, small_disk):
    small = small_disk((hub.folder / "model.safetensors").stat().st_size // 2)
    said = ask(hub, tmp_path, HF_HUB_CACHE=str(small))
    assert said.startswith("ERROR Cannot store 'bart-large' (facebook/bart-large on")
    assert f"in {small}: the disk is full. Free space there" in said and "HF_HUB_CACHE" in said


def write_public(root):
    """A corpus of our own in the official format of a public one: whether a sentence says what another does."""
    facts.write(root / "webnlg", seed=3, sizes={"train": 120, "dev": 20, "test": 60})
    (root / "rte").mkdir()
    for file, split, number in (("train.tsv", "train", 90), ("dev.tsv", "test", 40)):
        entries = webnlg.read(root / "webnlg", split)[:number]
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for place, entry in enumerate(entries):
            follows = place % 2 == 0
            claim = entry.references[-1] if follows else entries[place - 1].references[0]
            lines.append(f"{place}\t{entry.references[0]}\t{claim}\t{'entailment' if follows else 'not_entailment'}")
        (root / "rte" / file).write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.slow
def test_the_papers_graph_runs_whole_on_small_models_in_two_processes(cached, tmp_path, monkeypatch):
    """Every notebook of the profile `paper`: two processes share the teacher's layers, and the work of the other stages."""
    monkeypatch.delenv("SYNTHTUNE_CACHE")
    write_public(tmp_path / "corpora")
    changes = {"run_dir": str(tmp_path / "run"), "pool_size": 40, "budgets": [16], "test_size": 20, "dev_size": 10,
               "teacher.max_tokens": 100, "teacher.epochs": 1, "teacher.processes": 2, "teacher.test_examples": 10,
               "teacher.prompted_examples": 10, "teacher.checkpoint_steps": 1, "teacher.batch_size": 8, "annotate.inputs": 12,
               "annotate.processes": 2, "annotate.shard_size": 6, "generate.pairs": 12, "generate.processes": 2,
               "generate.shard_size": 6, "generate.max_new_tokens": 40, "students.max_tokens": 100, "students.processes": 2,
               "students.seeds": [1, 2], "students.seeds_full": [1], "students.passes": 0, "students.steps": 2,
               "figures.resamples": 100}
    # What the profile says for a task wins over what it says for all.
    changes |= {f"per_task.rte.{key}": changes[key] for key in settings_module.load("paper").per_task["rte"] if key in changes}
    command = [sys.executable, "-m", "synthtune.run.reproduce", "--profile", "paper", "--only", "rte",
               "--data-root", str(tmp_path / "corpora"), *[f"--set={key}={json.dumps(value)}" for key, value in changes.items()]]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={
        **os.environ, "PYTHONPATH": str(LIB), "HF_HUB_CACHE": str(cached), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(tmp_path / "run" / "rte" / "budget-16" / "teacher-annotate" / "settings.json")
    assert record["processes"] == 2 and record["held"] < 0.6, "each process is to hold a share of the teacher"
    table = pd.read_parquet(tmp_path / "run" / "rte" / "results.parquet")
    assert set(table["model"]) == {"roberta-large"} and {"gold", "gold+annotated", "full"} <= set(table["condition"])
