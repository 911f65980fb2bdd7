"""Models that are not declared: small random ones of many architectures, saved as ordinary folders, in every role."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from synthtune import experiment, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.custom import deployed
from synthtune.errors import AssetError, StageError
from synthtune.files import read_json
from synthtune.models import assets, decoding, language_model, layers, names, scoring
from synthtune.scale import model_cost
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

WORDS = ["What a fine day, thank you all! not good, so bad :( great :)", "Facts: Porto | country | Portugal; it has a river.",
         "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:!?()|@#'\"-_/ Text Label positive negative"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
BOTH = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160, "scale_embedding": True}

GROUPED = {**SIZE, "max_position_embeddings": 256, "num_key_value_heads": 2}
OLDER = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}

ENCODERS = {
    "Bert": {**SIZE, "max_position_embeddings": 160},
    "Roberta": {**SIZE, "max_position_embeddings": 162},
    "XLMRoberta": {**SIZE, "max_position_embeddings": 162},
    "DistilBert": {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 160},
    "Electra": {**SIZE, "embedding_size": 16, "max_position_embeddings": 160},
    "DebertaV2": {**SIZE, "max_position_embeddings": 160, "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm",
                  "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0},
    "ModernBert": {**SIZE, "max_position_embeddings": 160, "local_attention": 16},
    "MPNet": {**SIZE, "max_position_embeddings": 162},
    "Albert": {**SIZE, "embedding_size": 16, "max_position_embeddings": 160},
    "GPT2": OLDER,
    "Qwen3": {**GROUPED, "head_dim": 8},
}
"""Sizes of a classifier of each architecture, by the name of its configuration."""
EXPORTED = ("DistilBert", "ModernBert", "T5")
"""Those that are written as ONNX here, which takes most of the time; docs/models.md tells which were tried once."""
SEQ2SEQ = {"Bart": BOTH, "MBart": BOTH, "Pegasus": BOTH,
           "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}}


DECODERS = {
    # architecture: sizes; whether frozen layers are read once; labels side by side; a cache of keys and values
    "Llama": (GROUPED, True, True, True),
    "Mistral": ({**GROUPED, "sliding_window": 64}, True, True, True),
    "Qwen2": (GROUPED, True, True, True),
    "Qwen3": ({**GROUPED, "head_dim": 8}, True, True, True),
    "Gemma3Text": ({**GROUPED, "head_dim": 8, "sliding_window": 64}, True, True, True),
    "Phi3": (GROUPED, True, True, True),
    "Olmo2": (GROUPED, True, True, True),
    "Granite": ({**GROUPED, "logits_scaling": 4.0, "embedding_multiplier": 3.0}, False, True, True),
    "Mixtral": ({**GROUPED, "num_local_experts": 2}, True, True, True),
    "GPTNeoX": ({**SIZE, "max_position_embeddings": 256}, True, True, True),
    "GPT2": (OLDER, False, True, True),
    "GPTJ": ({**OLDER, "rotary_dim": 4}, True, True, True),
    "OPT": ({"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32,
             "max_position_embeddings": 256}, False, True, True),
    "Bloom": ({"hidden_size": 32, "n_layer": 4, "n_head": 4}, False, False, True),
    "Falcon": ({**SIZE, "alibi": False}, True, True, True),
    "Mpt": ({"d_model": 32, "n_layers": 4, "n_heads": 4, "max_seq_len": 256}, True, False, False),
}


def save(folder, name, sizes, form, around, **tokens):
    """A small random model as a user's folder has it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS * 4, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False,
                                                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 0), ("</s>", 2)])
    named = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>", **tokens}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.save_pretrained(folder)
    config = getattr(transformers, f"{name}Config")(vocab_size=len(fast), pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes)
    torch.manual_seed(1)
    getattr(transformers, name.removesuffix("Text") + form)(config).save_pretrained(folder)


def trained(task, settings):
    """A student of gold, saved whole with its tokenizer: its bench, what it says of some texts, and the folder."""
    bench = student.trainer(Context.of(task, settings))
    cell = experiment.Cell(32, "gold", 0, 1)
    result = bench.train(experiment.training_rows(Context.of(task, settings), cell)[0], cell)
    folder = settings.folder / "model"
    bench.whole(result).save_pretrained(folder)
    bench.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    bench.tokenizer.model_max_length = settings.students.max_tokens
    bench.tokenizer.save_pretrained(folder)
    texts = [example.text for example in task.test[:9]]
    return bench, texts, bench.predict(result, texts, scored=True), folder


def read_plainly(lm, ids):
    """Log-probabilities after every token of one row, by a pass of its own: (length, vocabulary)."""
    with torch.inference_mode():
        return lm.model(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)


@pytest.mark.parametrize("name", DECODERS)
def test_a_teacher(tiny, tmp_path, monkeypatch, name):
    sizes, once, side_by_side, cached = DECODERS[name]
    save(tmp_path / "own", name, sizes, "LMHeadModel" if name == "GPT2" else "ForCausalLM", "")
    settings = tiny(tmp_path / "run", **{
        "budgets": [16], "teacher.model": str(tmp_path / "own"), "teacher.frozen_layers": 2, "teacher.learning_rate": 1e-2,
        "teacher.max_tokens": 100, "teacher.vocabulary": 300}).check("tweets")
    task = tasks.load("tweets", settings)
    lm = language_model.load(settings.teacher.model, "float32")
    assert layers.parts(lm.model, 2, torch.tensor([lm.encode("some words")])).apart == once
    for objective in ("annotate", "generate"):
        adapter = teacher.fine_tune(lm, Context.of(task, settings, 16), objective)
        losses = adapter.losses.groupby("epoch")["loss"].mean()
        assert losses[3] < losses[1]
        tuned = load_file(adapter.folder / "adapter_model.safetensors")
        assert {int(re.search(r"\.(\d+)\.", key)[1]) for key in tuned} == {2, 3}, "the lowest layers are left as they are"
    used, plain = [], language_model.next_logits
    for module in (scoring, decoding):
        monkeypatch.setattr(module, "next_logits", lambda lm, rows, number: used.append(len(rows)) or plain(lm, rows, number))
    annotator = teacher.with_adapter(lm, teacher.fine_tune(lm, Context.of(task, settings, 16), "annotate"))
    prefix, labels = "Some examples first.\n", ["positive", "not at all"]
    prompts = ["Text: one\nLabel:", "Text: another, longer one :)\nLabel:"]
    scores = scoring.score_labels(annotator, prompts, labels, prefix)
    assert (len(used) == 2) == side_by_side  # once for each label, to try
    for row, prompt in enumerate(prompts):
        for column, label in enumerate(labels):
            before, after = lm.encode(prefix + prompt), lm.encode(f" {label}")
            found = read_plainly(annotator, before + after)[len(before) - 1: -1].gather(1, torch.tensor(after)[:, None]).sum()
            assert scores[row, column] == pytest.approx(float(found), rel=1e-3)
    used.clear()
    generator = teacher.with_adapter(lm, adapter)
    texts, sums, _ = decoding.decode(generator, prompts, 5, prefix)
    assert (len(used) == 2) == cached
    known = generator.vocabulary
    for prompt, total in zip(prompts, sums, strict=True):
        ids, wanted = lm.encode(prefix + prompt), 0.0
        for _ in range(5):
            logs, best = read_plainly(generator, ids)[-1].max(-1)
            wanted, ids = wanted + float(logs), [*ids, int(known[best])]
            if ids[-1] == lm.end:
                break
        assert total == pytest.approx(wanted, rel=1e-3)
    assert len(texts) == 2
    assert model_cost.model_of(settings.teacher.model, "teacher").parameters == lm.model.num_parameters()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_a_classifier(tiny, tmp_path, name):
    save(tmp_path / "own", name, ENCODERS[name], "Model", "<s> $A </s>", bos_token="<s>", cls_token="<s>", sep_token="</s>",
         mask_token="<mask>")
    settings = tiny(tmp_path / "run", **{"students.model": str(tmp_path / "own"), "students.frozen_layers": 2,
                                         "students.learning_rate": 1e-2, "students.max_tokens": 100}).check("tweets")
    task = tasks.load("tweets", settings)
    bench, texts, (said, sure), folder = trained(task, settings)
    assert (bench.parts is None) == (name == "Albert") and bench.apart == (name not in ("Albert", "GPT2", "Qwen3"))
    outputs, scores, _ = deployed.predict(folder, texts, task.labels)
    assert outputs == said
    np.testing.assert_allclose(scores, sure, atol=1e-4)
    assert [answer["label"] for answer in pipeline("text-classification", str(folder))(texts)] == said
    before, after = (AutoModelForSequenceClassification.from_pretrained(path, num_labels=2) for path in (tmp_path / "own", folder))
    if bench.parts:
        path = bench.parts.path
        changed = [any(not torch.equal(a, b) for a, b in zip(*(list(model.get_submodule(f"{path}.{place}").parameters())
                                                                for model in (before, after)), strict=True)) for place in range(4)]
        assert changed == [False, False, True, True]
    if name in ("DebertaV2", "GPT2", "Qwen3"):
        with pytest.raises(StageError, match="custom.export: no ONNX file can be written of a student of this architecture"):
            deployed.to_onnx(folder, task.labels)
    if name not in EXPORTED:
        return
    [network] = deployed.to_onnx(folder, task.labels)
    read = {key: value.numpy() for key, value in bench.tokenizer(texts[:3], padding=True, return_tensors="pt").items()}
    logits = ReferenceEvaluator(str(network)).run(["logits"], read)[0]
    np.testing.assert_allclose(torch.tensor(logits).log_softmax(-1), sure[:3], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_seq2seq_student(tiny, tmp_path, name):
    start = {} if name == "MBart" else {"decoder_start_token_id": 1 if name in ("T5", "Pegasus") else 2}
    save(tmp_path / "own", name, {**SEQ2SEQ[name], **start}, "ForConditionalGeneration", "$A </s>")
    settings = tiny(tmp_path / "run", **{"students.model": str(tmp_path / "own"), "students.max_tokens": 100,
                                         "students.learning_rate": 1e-2}).check("webnlg")
    task = tasks.load("webnlg", settings)
    bench, texts, (said, sure), folder = trained(task, settings)
    outputs, scores, _ = deployed.predict(folder, texts, ())
    assert outputs == said and len(set(said)) >= 1
    np.testing.assert_allclose(scores[:, 0], sure, atol=1e-4)
    if name not in EXPORTED:
        return
    files = {path.name: ReferenceEvaluator(str(path)) for path in deployed.to_onnx(folder, ())}
    read = {key: value.numpy() for key, value in bench.tokenizer(texts[:2], padding=True, return_tensors="pt").items()}
    [hidden] = files["encoder_model.onnx"].run(["last_hidden_state"], read)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    written = model.generate(**{key: torch.tensor(value) for key, value in read.items()}).numpy()
    [logits] = files["decoder_model.onnx"].run(["logits"], {
        "input_ids": written[:, :-1], "encoder_hidden_states": hidden, "encoder_attention_mask": read["attention_mask"]})
    assert (logits.argmax(-1)[:, 0] == written[:, 1]).all()


@pytest.fixture
def llama(tmp_path):
    """A folder with a small Llama."""
    save(tmp_path / "own", "Llama", GROUPED, "ForCausalLM", "")
    return tmp_path / "own"


def test_a_folder_is_named_by_its_whole_path_and_by_what_is_in_it(llama, monkeypatch):
    monkeypatch.setenv("SYNTHTUNE_STARTED_IN", str(llama.parent))
    settings = settings_module.load("smoke", ["teacher.model=own", "per_task.tweets.students.model=./own"], run_dir=llama.parent / "run")
    assert settings.teacher.model == settings.for_task("tweets").students.model == str(llama) and not settings.hub_models()
    before = assets.digest("own")
    assert before == assets.digest(str(llama)) and len(before) == 64
    os.utime(llama / "config.json")
    assert assets.digest("own") == before
    weights = bytearray((llama / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (llama / "model.safetensors").write_bytes(weights)
    os.utime(llama / "model.safetensors", ns=(1, 1))
    assert assets.digest("own") != before


def test_the_commit_of_a_hub_model_is_that_of_when_the_run_began(tmp_path, monkeypatch):
    """With no network: the hub client's cache says where a branch was last."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    branch = tmp_path / "hub" / "models--someone--tiny" / "refs" / "main"
    branch.parent.mkdir(parents=True)

    def named(run, *more):
        return settings_module.load("smoke", ["teacher.model=someone/tiny", *more], run_dir=tmp_path / run).teacher.model

    with pytest.raises(AssetError, match="someone/tiny on the Hugging Face hub, revision main is not in the hub's cache"):
        named("one")
    branch.write_text("1" * 40)
    assert named("one") == f"someone/tiny@{'1' * 40}"
    branch.write_text("2" * 40)
    assert named("one") == f"someone/tiny@{'1' * 40}" and named("two") == f"someone/tiny@{'2' * 40}"
    assert named("one", f"teacher.model=someone/tiny@{'3' * 40}") == f"someone/tiny@{'3' * 40}"
    assert read_json(tmp_path / "one" / "models.json") == {"someone/tiny": f"someone/tiny@{'1' * 40}"}
    assert assets.digest(f"someone/tiny@{'1' * 40}") != assets.digest(f"someone/tiny@{'2' * 40}")


@pytest.mark.parametrize(("missing", "there", "said"), [
    ("config.json", "notes.txt", "holds no model: it has no config.json"),
    ("config.json", "adapter_config.json", "It holds an adapter: merge it into its model first"),
    ("model.safetensors", "pytorch_model.bin", "has no weights in safetensors, and pickles are not loaded"),
    ("tokenizer*", "notes.txt", "has no tokenizer")])
def test_a_folder_that_lacks_something_is_one_sentence(llama, missing, there, said):
    for file in llama.glob(missing):
        file.unlink()
    (llama / there).write_text("")
    with pytest.raises(AssetError, match=re.escape(str(llama))) as caught:
        assets.model_path(str(llama))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "said"), [
    ("/no/such/folder", "There is no folder /no/such/folder"), ("minilm", "did you mean 'minilm-l6-v2'"),
    ("a/b/c", "There is no folder a/b/c")])
def test_a_name_of_nothing_is_one_sentence(name, said):
    with pytest.raises(AssetError, match=said):
        names.find(name)


@pytest.mark.parametrize(("name", "form", "said"), [
    ("Bert", "Model", "is an encoder (bert), and a teacher continues texts"),
    ("Bart", "ForConditionalGeneration", "is an encoder–decoder (bart), and a teacher continues texts")])
def test_a_model_that_cannot_be_a_teacher_is_one_sentence(tmp_path, name, form, said):
    save(tmp_path, name, {**ENCODERS, **SEQ2SEQ}[name], form, "")
    with pytest.raises(AssetError, match=re.escape(said)):
        language_model.load(str(tmp_path))


def test_a_decoder_does_not_become_a_seq2seq_student(llama, tiny, tmp_path):
    settings = tiny(tmp_path / "run", **{"students.model": str(llama)}).check("webnlg")
    with pytest.raises(AssetError, match=r"\(llama\) does not write texts, and webnlg needs a student that does"):
        student.trainer(Context.of(tasks.load("webnlg", settings), settings))


@pytest.mark.parametrize(("tokens", "ends", "said"), [
    ({"eos_token": None}, True, "its tokenizer has no end token"),
    ({"eos_token": None, "pad_token": None}, False, "its tokenizer has no padding token"),
    ({"pad_token": "<padding>"}, False, "its tokenizer has 401 tokens, but the model knows 400")])
def test_a_tokenizer_that_does_not_fit_is_one_sentence(llama, tokens, ends, said):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(llama / "tokenizer.json"), **{"unk_token": "<unk>", **tokens})
    tokenizer.save_pretrained(llama)
    known = read_json(llama / "config.json")["vocab_size"]
    with pytest.raises(AssetError, match=re.escape(said.replace("400", f"{known:,}").replace("401", f"{len(tokenizer):,}"))):
        language_model.tokenizer_of(str(llama), ends)


def test_a_tokenizer_without_padding_pads_with_its_end(llama):
    PreTrainedTokenizerFast(tokenizer_file=str(llama / "tokenizer.json"), eos_token="</s>").save_pretrained(llama)
    assert language_model.tokenizer_of(str(llama)).pad_token == "</s>"


def test_a_label_without_tokens_is_one_sentence(llama):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "good": 1, "</s>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    lm = replace(language_model.load(str(llama), "float32"), tokenizer=PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="</s>"))
    with pytest.raises(StageError, match="has no tokens for the label 'schlecht': give the label another name"):
        scoring.score_labels(lm, ["good"], ["good", "schlecht"])
