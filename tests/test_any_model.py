"""Models that are not declared: small random ones of many architectures, saved as ordinary folders, in every role."""

import re

import numpy as np
import pytest
import torch
import transformers
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from synthtune import language_model, layers, model_cost, student, tasks, teacher
from synthtune.own_rows import deployed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

WORDS = ["What a fine day, thank you all! not good, so bad :( great :)", "Facts: Porto | country | Portugal; it has a river.",
         "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:!?()|@#'\"-_/ Text Label positive negative"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
BOTH = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160, "scale_embedding": True}

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
}
"""Sizes of a classifier of each architecture, by the name of its configuration."""
EXPORTED = ("DistilBert", "ModernBert", "T5")
"""Those that are written as ONNX here, which takes most of the time; docs/models.md tells which were tried once."""
SEQ2SEQ = {"Bart": BOTH, "MBart": BOTH, "Pegasus": BOTH,
           "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}}


GROUPED = {**SIZE, "max_position_embeddings": 256, "num_key_value_heads": 2}
OLDER = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
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
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>", **tokens})
    fast.save_pretrained(folder)
    config = getattr(transformers, f"{name}Config")(vocab_size=len(fast), pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes)
    torch.manual_seed(1)
    getattr(transformers, name.removesuffix("Text") + form)(config).save_pretrained(folder)


def trained(task, settings):
    """A student of gold, saved whole with its tokenizer: its bench, what it says of some texts, and the folder."""
    bench = student.Bench.of(task, settings)
    cell = student.Cell(32, "gold", 0, 1)
    result = bench.train(student.training_rows(task, cell, settings)[0], cell)
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
    for direction in ("annotate", "generate"):
        adapter = teacher.fine_tune(lm, task, 16, direction, settings)
        losses = adapter.losses.groupby("epoch")["loss"].mean()
        assert losses[3] < losses[1]
        tuned = load_file(adapter.folder / "adapter_model.safetensors")
        assert {int(re.search(r"\.(\d+)\.", key)[1]) for key in tuned} == {2, 3}, "the lowest layers are left as they are"
    used, plain = [], language_model._next_logits
    monkeypatch.setattr(language_model, "_next_logits", lambda lm, rows, number: used.append(len(rows)) or plain(lm, rows, number))
    annotator = teacher.with_adapter(lm, teacher.fine_tune(lm, task, 16, "annotate", settings))
    prefix, prompts, labels = "Some examples first.\n", ["Text: one\nLabel:", "Text: another, longer one :)\nLabel:"], ["positive", "not at all"]
    scores = language_model.score_labels(annotator, prompts, labels, prefix)
    assert (len(used) == 2) == side_by_side  # once for each label, to try
    for row, prompt in enumerate(prompts):
        for column, label in enumerate(labels):
            before, after = lm.encode(prefix + prompt), lm.encode(f" {label}")
            found = read_plainly(annotator, before + after)[len(before) - 1: -1].gather(1, torch.tensor(after)[:, None]).sum()
            assert scores[row, column] == pytest.approx(float(found), rel=1e-3)
    used.clear()
    generator = teacher.with_adapter(lm, adapter)
    texts, sums, _ = language_model.write(generator, prompts, 5, prefix)
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


@pytest.mark.parametrize("name", ENCODERS)
def test_a_classifier(tiny, tmp_path, name):
    save(tmp_path / "own", name, ENCODERS[name], "Model", "<s> $A </s>", bos_token="<s>", cls_token="<s>", sep_token="</s>", mask_token="<mask>")
    settings = tiny(tmp_path / "run", **{"students.model": str(tmp_path / "own"), "students.frozen_layers": 2,
                                         "students.learning_rate": 1e-2, "students.max_tokens": 100}).check("tweets")
    task = tasks.load("tweets", settings)
    bench, texts, (said, sure), folder = trained(task, settings)
    assert (bench.parts is None) == (name == "Albert") and bench.apart == (name != "Albert")
    [(outputs, scores, _)] = deployed.predict(folder, texts, task.labels)
    assert outputs == said
    np.testing.assert_allclose(scores, sure, atol=1e-4)
    assert [answer["label"] for answer in pipeline("text-classification", str(folder))(texts)] == said
    before, after = (AutoModelForSequenceClassification.from_pretrained(path, num_labels=2) for path in (tmp_path / "own", folder))
    if bench.parts:
        path = bench.parts.path
        changed = [any(not torch.equal(a, b) for a, b in zip(*(list(model.get_submodule(f"{path}.{place}").parameters())
                                                                for model in (before, after)), strict=True)) for place in range(4)]
        assert changed == [False, False, True, True]
    if name not in EXPORTED:
        return
    [network] = deployed.to_onnx(folder, task.labels)
    read = {key: value.numpy() for key, value in bench.tokenizer(texts[:3], padding=True, return_tensors="pt").items()}
    logits = ReferenceEvaluator(str(network)).run(["logits"], read)[0]
    np.testing.assert_allclose(torch.tensor(logits).log_softmax(-1), sure[:3], atol=1e-3)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_seq2seq_student(tiny, tmp_path, name):
    start = {} if name == "MBart" else {"decoder_start_token_id": 1 if name in ("T5", "Pegasus") else 2}
    save(tmp_path / "own", name, {**SEQ2SEQ[name], **start}, "ForConditionalGeneration", "$A </s>")
    settings = tiny(tmp_path / "run", **{"students.model": str(tmp_path / "own"), "students.max_tokens": 100,
                                         "students.learning_rate": 1e-2}).check("webnlg")
    task = tasks.load("webnlg", settings)
    bench, texts, (said, sure), folder = trained(task, settings)
    [(outputs, scores, _)] = deployed.predict(folder, texts, ())
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
