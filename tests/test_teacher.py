"""Fine-tuning the real teacher, briefly: what it learns from, what is kept, and what several processes change."""

import contextlib
import math
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from sealed import sealed
from synthtune import annotate, tasks, teacher
from synthtune.context import Context
from synthtune.errors import AssetError, SettingsError
from synthtune.files import read_json
from synthtune.models import decoding, fine_tuning, scoring
from synthtune.places import environment
from synthtune.settings import TeacherSettings
from torch import nn
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


@pytest.fixture
def copied(study, tiny, tmp_path):
    """The study in a folder of its own, for tests that change it; make settings of it."""
    shutil.copytree(study.settings.folder, tmp_path / "run")
    return lambda **changes: tiny(tmp_path / "run", **changes)


@pytest.mark.parametrize("objective", ["annotate", "generate"])
def test_the_loss_falls_and_its_curve_is_kept(study, objective):
    losses = study.adapters[objective].losses
    assert list(losses.columns) == ["epoch", "step", "loss"]
    assert list(losses["step"]) == list(range(1, 3 * math.ceil(study.budget / 8) + 1))
    by_epoch = losses.groupby("epoch")["loss"].mean()
    assert len(by_epoch) == 3 and by_epoch[3] < 0.9 * by_epoch[1]
    assert list(pd.read_csv(study.adapters[objective].folder / "losses.csv")["loss"]) == list(losses["loss"])


@pytest.mark.parametrize("head_is_trained", [True, False])
def test_the_loss_of_a_few_tokens_at_a_time_is_that_of_all_at_once(head_is_trained):
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                             intermediate_size=64))
    head = model.get_output_embeddings().requires_grad_(head_is_trained)
    ids = torch.randint(0, 300, (4, 20))
    targets = ids.masked_fill(torch.rand(4, 20) < 0.4, fine_tuning.IGNORED)
    rows = []
    head.register_forward_hook(lambda _head, inputs, _logits: rows.append(inputs[0].shape[-2]))

    def run(at_once):
        rows.clear()
        model.zero_grad()
        loss = fine_tuning.TargetLoss(model, at_once)(ids, targets)
        loss.backward()
        return loss, [weight.grad for weight in model.parameters() if weight.requires_grad], list(rows)

    (whole, gradients, [tokens]), (loss, others, sizes) = run(None), run(16)
    torch.testing.assert_close([loss, *others], [whole, *gradients])
    assert max(sizes) == 16 and sum(sizes) == 2 * tokens  # each is computed again in the backward pass


def test_adapters_multiplied_in_bfloat16_learn_what_float32_ones_do():
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                                             intermediate_size=128)).to(torch.bfloat16)
    tuned = fine_tuning.trainable(model, TeacherSettings(lora_dropout=0.0), 0)
    adapters = {name: weight for name, weight in tuned.named_parameters() if weight.requires_grad}
    for weight in adapters.values():
        nn.init.normal_(weight, std=0.05)
    ids, seen = torch.randint(0, 300, (4, 20)), []
    for layer in tuned.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_A["default"].register_forward_hook(lambda _map, _inputs, output: seen.append(output.dtype))

    def gradient(computing):
        tuned.zero_grad()
        seen.clear()
        with computing:
            fine_tuning.TargetLoss(model)(ids, ids).backward()
        assert {weight.grad.dtype for weight in adapters.values()} == {torch.float32}
        return torch.cat([weight.grad.flatten() for weight in adapters.values()]), set(seen)

    (ours, by_peft), (in_bfloat16, dtypes) = gradient(contextlib.nullcontext()), gradient(
        fine_tuning.multiplied_in(torch.bfloat16, tuned, torch.device("cpu")))
    assert (by_peft, dtypes) == ({torch.float32}, {torch.bfloat16})
    assert functional.cosine_similarity(ours, in_bfloat16, dim=0) > 0.99


def test_fine_tuning_leaves_the_pretrained_model_as_it_was(study, lm):
    assert not any("lora" in name for name, _ in lm.model.named_parameters())
    from synthtune.models import language_model

    fresh = language_model.load(lm.name, "float32").model.state_dict()
    assert all(torch.equal(weights, fresh[name]) for name, weights in lm.model.state_dict().items())


def test_an_adapter_is_kept_as_safetensors_with_its_settings(study):
    for objective, adapter in study.adapters.items():
        names = {path.name for path in adapter.folder.rglob("*") if path.is_file()}
        assert {"adapter_model.safetensors", "adapter_config.json", "settings.json", "losses.csv"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))]
        made_from = read_json(adapter.folder / "settings.json")["made_from"]
        assert made_from["direction"] == objective and made_from["budget"] == study.budget
        assert made_from["epochs"] == 3 and made_from["data_digest"] == study.task.digest
        layers = {name.split(".layers.")[1].split(".")[0] for name in load_file(
            adapter.folder / "adapter_model.safetensors")}
        assert layers == {str(number) for number in range(24, 30)}  # the lowest 24 of 30 are frozen


@pytest.mark.slow
def test_the_generator_learns_and_writes_with_the_commonest_tokens_and_those_of_gold(study, lm, tiny, tmp_path):

    settings = tiny(tmp_path, **{"teacher.vocabulary": 2048, "teacher.epochs": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adapter = teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "generate")
        generator = teacher.with_adapter(lm, adapter)
    gold = {token for example in study.task.gold(study.budget)
            for part in teacher.training_text(study.task, example, "generate") for token in lm.encode(part)}
    assert max(gold) > 2048 and set(adapter.vocabulary.tolist()) == {*range(2048), *gold, lm.end}
    by_epoch = adapter.losses.groupby("epoch")["loss"].mean()
    assert by_epoch[2] < 0.95 * by_epoch[1]
    assert generator.model(torch.tensor([[1]])).logits.shape[-1] == len(adapter.vocabulary)
    prompts = [teacher.generation_prompt(study.task, label) for label in study.task.labels]
    assert all(decoding.decode(generator, prompts, 8, temperature=1.0, seed=1)[0])
    # What is kept is read back, and labels are still scored among all tokens.
    assert torch.equal(teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "generate").vocabulary,
                       adapter.vocabulary)
    assert teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "annotate").vocabulary is None


def test_a_finished_adapter_is_reused(study, lm, copied, monkeypatch):
    monkeypatch.setattr(teacher, "_train", lambda *_: pytest.fail("trained again"))
    for objective, adapter in study.adapters.items():
        again = teacher.fine_tune(lm, Context.of(study.task, study.settings, study.budget), objective)
        assert again.digest == adapter.digest and again.folder == adapter.folder
        # Nothing of this shapes the adapter.
        other = copied(**{"teacher.shots": 2, "teacher.test_examples": 15, "students.steps": 9, "budgets": [32, 64]})
        assert teacher.fine_tune(lm, Context.of(study.task, other, study.budget), objective).digest == adapter.digest


@pytest.mark.parametrize("change", [
    {"teacher.learning_rate": 1e-3}, {"teacher.epochs": 1}, {"teacher.lora_rank": 4}, {"seed": 3}])
def test_a_changed_setting_trains_again(study, lm, copied, monkeypatch, change):
    settings, trained = copied(**change), []
    monkeypatch.setattr(teacher, "_train", lambda *arguments: trained.append(arguments))
    teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "annotate")
    assert len(trained) == 1


@pytest.mark.parametrize("unread", [{"teacher.epochs_larger": 7}, {"teacher.epochs_generate": 7}])
def test_passes_of_other_budgets_or_objectives_train_no_adapter_again(study, lm, copied, unread):
    context = Context.of(study.task, copied(**unread), study.budget)
    assert teacher.fine_tune(lm, context, "annotate").seconds == study.adapters["annotate"].seconds


@pytest.mark.slow
def test_a_damaged_adapter_is_trained_again_and_is_the_same(study, lm, copied):
    settings = copied()
    folder = teacher.adapter_folder(Context.of(study.task, settings, study.budget), "annotate")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    again = teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "annotate")
    assert again.folder == folder and again.digest == study.adapters["annotate"].digest


def test_an_interrupted_training_leaves_no_adapter(study, lm, tiny, tmp_path, monkeypatch):
    settings, steps = tiny(tmp_path), []

    def interrupted(*_):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(fine_tuning, "warm_up_and_decay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "annotate")
    assert not list(tmp_path.rglob("*adapter*"))


@pytest.mark.slow
def test_two_processes_train_the_same_adapter_as_one_from_gold_alone(lm, tiny, tmp_path):
    """Nine examples in batches of four: the last batch has one, so the second process has none there."""
    changes = {"budgets": [9], "teacher.batch_size": 4, "teacher.epochs": 2, "teacher.lora_dropout": 0.0}
    one, two = tiny(tmp_path / "one", **changes), tiny(tmp_path / "two", **changes, **{"teacher.processes": 2})
    task = tasks.load("tweets", one)
    assert tasks.load("tweets", two).digest == task.digest
    alone = teacher.fine_tune(lm, Context.of(sealed(task, 9), one, 9), "annotate")  # gold alone is read
    together = teacher.fine_tune(lm, Context.of(task, two, 9), "annotate")
    assert read_json(alone.folder / "settings.json")["processes"] == 1
    assert read_json(together.folder / "settings.json")["processes"] == 2
    assert together.folder.is_relative_to(tmp_path / "two")
    assert len(alone.losses) == 6
    assert list(together.losses["loss"]) == pytest.approx(list(alone.losses["loss"]), rel=1e-3)

    def learned(adapter):  # B starts at zero, so all of it is what was learned
        weights = load_file(adapter.folder / "adapter_model.safetensors")
        return torch.cat([value.flatten() for name, value in sorted(weights.items()) if "lora_B" in name])

    first, second = learned(alone), learned(together)
    assert first.norm() > 0 and (first - second).norm() < 0.01 * first.norm()

    three = tiny(tmp_path / "three", **changes)
    script = ("import sys\nfrom accelerate import notebook_launcher\nfrom synthtune import teacher\n"
              "from synthtune.settings import Settings\n"
              "given = 'tweets', 9, 'annotate', Settings.model_validate_json(sys.argv[1])\n"
              "notebook_launcher(teacher.train, given, num_processes=2)")
    done = subprocess.run([sys.executable, "-c", script, three.model_dump_json()], capture_output=True, text=True,
                          env=environment(three.threads))
    assert done.returncode == 0, done.stderr
    launched = teacher.fine_tune(lm, Context.of(task, three, 9), "annotate")  # what they have left
    assert read_json(launched.folder / "settings.json")["processes"] == 2 and launched.digest == together.digest


@pytest.mark.slow
def test_what_a_process_raises_is_raised(study, lm, copied):
    settings = copied(**{"teacher.processes": 2, "teacher.model": "no-such-model"})
    with pytest.raises(AssetError, match="^No asset is called 'no-such-model'"):
        teacher.fine_tune(lm, Context.of(study.task, settings, study.budget), "annotate")


def test_more_processes_than_gpus_are_refused(lm, tiny, tmp_path, monkeypatch):
    settings = tiny(tmp_path, **{"teacher.processes": 4})
    task = tasks.load("tweets", settings)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="teacher.processes: 4, but this machine has 2 GPUs.*set teacher.processes=2"):
        teacher.fine_tune(lm, Context.of(task, settings, settings.budgets[0]), "annotate")


def test_merging_changes_nothing_but_the_time(study, lm):
    import copy

    ids = torch.tensor([lm.encode(teacher.prompt(study.task, study.task.test[0].text))])
    with torch.inference_mode():
        unmerged = PeftModel.from_pretrained(copy.deepcopy(lm.model), study.adapters["annotate"].folder).eval()(ids)
        merged, before = study.annotator.model(ids), lm.model(ids)
    torch.testing.assert_close(merged.logits, unmerged.logits, atol=2e-3, rtol=1e-3)
    assert (merged.logits - before.logits).abs().max() > 0.5
    assert not any("lora" in name for name, _ in study.annotator.model.named_parameters())
    assert study.annotator.digest == study.adapters["annotate"].digest != study.generator.digest != lm.digest


def test_what_the_teacher_reads_and_writes(tiny, tmp_path):
    settings = tiny(tmp_path)
    tweets, webnlg = tasks.load("tweets", settings), tasks.load("webnlg", settings)
    example = tasks.Example("1", "so good", "positive")
    assert teacher.training_text(tweets, example, "annotate") == ("Tweet: so good\nSentiment:", " positive")
    assert teacher.training_text(tweets, example, "generate") == ("Sentiment: positive\nTweet:", " so good")
    fact = tasks.Example("1", "a | is | b", "A is b.", ("A is b.", "B it is."))
    assert teacher.training_text(webnlg, fact, "annotate") == ("Facts: a | is | b\nText:", " A is b.")
    assert teacher.training_text(webnlg, fact, "generate") == ("Facts:", " a | is | b\nText: A is b.")
    assert teacher.few_shot_prefix(tweets, [example]) == (
        "Say whether the tweet is positive or negative.\n\nTweet: so good\nSentiment: positive\n\n")


def test_a_long_text_is_cut_and_not_what_asks_for_the_output(study, lm, tiny, tmp_path):
    long = tasks.Example("1", "word " * 300, "positive")
    context = Context.of(study.task, tiny(tmp_path, **{"teacher.max_tokens": 64}), study.budget)
    ids, learned = teacher._encoded(lm, context, long, "annotate")
    wanted = [token for token in learned.tolist() if token != fine_tuning.IGNORED]
    assert len(ids) == len(learned) <= 64 and lm.tokenizer.decode(wanted) == " positive"
    assert lm.tokenizer.decode(ids).endswith("word word\nSentiment: positive")
    ids, learned = teacher._encoded(lm, context, replace(long, text="yes", target="word " * 99), "generate")
    assert len(ids) <= 64
    cut = teacher._cut_prompt(lm, study.task, long.text, 64)
    assert cut.startswith("Tweet: word") and cut.endswith("\nSentiment:") and len(lm.encode(cut)) <= 66
    assert teacher._cut_prompt(lm, study.task, "short", 64) == "Tweet: short\nSentiment:"


@pytest.mark.slow
def test_prompts_are_turns_of_a_chat_on_demand(study, lm, tiny, tmp_path):
    changes = {"teacher.prompts": "chat", "teacher.max_tokens": 80, "teacher.epochs": 2}
    context = Context.of(study.task, tiny(tmp_path, **changes), study.budget)
    ids, learned = teacher._encoded(lm, context, tasks.Example("1", "word " * 300, "positive"), "annotate")
    read, text = lm.tokenizer.decode(ids).split("<|im_start|>user\n")[1].split("<|im_end|>\n<|im_start|>assistant\n")
    assert read.startswith("Tweet: word") and read.endswith("word\nSentiment:") and text == " positive"
    assert len(ids) == len(learned) <= 82
    adapter = teacher.fine_tune(lm, context, "annotate")
    assert adapter.losses["loss"].iloc[-1] < adapter.losses["loss"].iloc[0]
    texts, instruction = ["so good", "never again"], "Say what it is.\n\n"
    _, _, scores = teacher.answers(lm, context, texts, instruction)
    wanted = scoring.score_labels(lm, [lm.turn(instruction + teacher.prompt(study.task, each)) for each in texts], study.task.labels)
    torch.testing.assert_close(scores, wanted.log_softmax(-1), atol=1e-3 if lm.format == "float32" else 0.1, rtol=0)
    lm.tokenizer.chat_template, kept = None, lm.tokenizer.chat_template
    try:
        with pytest.raises(SettingsError, match="teacher.prompts: the tokenizer of smollm2"):
            teacher.answers(lm, context, texts)
    finally:
        lm.tokenizer.chat_template = kept


def test_the_row_of_a_teacher(study, tmp_path):
    settings, task = study.settings, study.task
    row = teacher.evaluate(study.annotator, Context.of(task, settings, study.budget))
    shown = task.test[:20]
    predicted, logs, scores = teacher.answers(study.annotator, Context.of(task, settings), [e.text for e in shown])
    right = [float(guess == e.target) for guess, e in zip(predicted, shown, strict=True)]
    assert list(row["per_example"]) == right and row["accuracy"] == pytest.approx(100 * sum(right) / 20)
    assert set(predicted) <= set(task.labels) and math.isnan(row["bleu"])
    assert logs == pytest.approx(scores.max(-1).values.tolist())
    assert row["system"] == "fine-tuned teacher" and row["model_digest"] == study.adapters["annotate"].digest


def test_the_rows_of_the_prompted_model(study, lm):
    rows = teacher.prompted(lm, Context.of(study.task, study.settings, study.budget))
    assert [row["system"] for row in rows] == ["prompted, 0-shot", "prompted, 5-shot"]
    assert all(len(row["per_example"]) == 10 and 0 <= row["accuracy"] <= 100 for row in rows)
    assert teacher.prompted(lm, Context.of(study.task, study.settings, study.settings.budgets[1])) == []  # said once is enough
    table = teacher.save(rows, Context.of(study.task, study.settings, study.budget))
    pd.testing.assert_frame_equal(pd.read_parquet(study.folder / "teacher.parquet"), table, check_dtype=False)
    assert {"task", "task_type", "budget", "system", "model", "accuracy", "macro_f1", "bleu", "chrf", "rouge_l", "per_example",
            "seconds", "parameters", "number_format", "device", "data_digest", "model_digest", "settings_digest", "settings"
            } == set(table.columns)


def test_a_budget_over_the_pool_is_refused(study, lm):
    with pytest.raises(SettingsError, match="budget: 161 labelled examples"):
        teacher.fine_tune(lm, Context.of(study.task, study.settings, 161), "annotate")
    with pytest.raises(SettingsError, match="budget: '32'"):
        annotate.annotate(lm, Context.of(study.task, study.settings, "32"))
