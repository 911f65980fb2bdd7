"""How fast the package is beside what one would write with transformers, in both number formats, from one run.

    python benchmarks/speed.py            # everything, half an hour on one slow core; writes speed.md and speed.csv
    python benchmarks/speed.py --quick    # the same steps at toy size, in a minute; prints only

Both sides of a comparison run in turn (A B A B …) on the same texts, batches and model, on one thread. The ratio is the median
over pairs, so what else the machine does falls on both. The exit status is 1 where two sides disagree that should not.

The limit of decoding and scoring is the time of their matrix products alone: each linear layer, with its own weights, on random
input of as many rows as in each forward pass. It is measured in the same turns.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import math
import multiprocessing
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the processor is measured; benchmarks/gpu.py measures GPUs

import pandas as pd
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from synthtune import experiment, number_format, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.context import Context
from synthtune.files import atomic_path
from synthtune.models import assets, decoding, fine_tuning, language_model, scoring, students
from synthtune.models.language_model import LanguageModel
from synthtune.number_format import NumberFormat
from synthtune.settings import Settings
from synthtune.tasks import Example, Task
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertLMHeadModel,
    DynamicCache,
    EncoderDecoderModel,
    PreTrainedModel,
)

INTENTS = [f"{thing} {event}" for thing in ("card", "cash", "transfer", "top up", "exchange", "refund", "pin")
           for event in ("not working", "still pending", "arrived late", "fee charged", "wrong amount", "declined", "limit",
                         "cancelled by mistake", "not recognised", "lost or stolen", "change needed")]
"""77 label texts of two to six tokens, as many as BANKING77 has."""
ALLOWED = {"float32": 1e-3, "bfloat16": 1.0}
"""Nats by which the two sides' scores of a label may differ: bfloat16 has three decimal digits."""
MODULES = ("torch", "transformers", *[f"synthtune.{stage}" for stage in (
    "settings", "tasks", "teacher", "annotate", "generate", "student", "analysis.figures", "run.reproduce", "custom")])


FULL = SimpleNamespace(
    seconds=90, pairs=5, new_tokens=40, decoded=64, sampled=96, scored=32, scored_many=8, intents=77, scored_shots=16, shots=5,
    tuned_on=32, epochs=3, lora_examples=16, gold=125, student_steps=30, layers=8, repetitions=7, modules=MODULES, imports=3)
"""How much of everything; after two pairs none is begun that would end past `seconds`. `gold` is the smallest budget of the
default reproduction."""
QUICK = SimpleNamespace(
    seconds=0, pairs=1, new_tokens=4, decoded=3, sampled=3, scored=2, scored_many=1, intents=3, scored_shots=1, shots=1,
    tuned_on=4, epochs=1, lora_examples=2, gold=8, student_steps=2, layers=2, repetitions=1, modules=MODULES[-2:], imports=1)


class Products:
    """The matrix products of a model's forward passes, without anything else."""

    def __init__(self, model: PreTrainedModel):
        self.head = model.get_output_embeddings()
        self.linear = [part for part in model.get_decoder().modules() if isinstance(part, nn.Linear)]
        self.passes: list[tuple[int, int]] = []
        self.inputs: dict[tuple[int, int], torch.Tensor] = {}

    def record(self, _model: PreTrainedModel, given: tuple[torch.Tensor, ...], output: Any) -> None:
        """Note how many rows a forward pass had and how many logits it gave; a forward hook."""
        rows, kept = given[0].numel(), output.logits.shape[:-1].numel()
        self.passes.append((rows, kept))
        for count, part in [(rows, part) for part in self.linear] + [(kept, self.head)]:
            if (count, part.in_features) not in self.inputs:
                self.inputs[count, part.in_features] = torch.randn(count, part.in_features).to(part.weight.dtype)

    @torch.inference_mode()
    def multiply(self) -> None:
        """Compute them again, in the same order."""
        for rows, kept in self.passes:
            for part in self.linear:
                functional.linear(self.inputs[rows, part.in_features], part.weight, part.bias)
            functional.linear(self.inputs[kept, self.head.in_features], self.head.weight, self.head.bias)


def measured(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """What an action returns, its seconds, and the GiB by which the process grew at most meanwhile (Linux only)."""
    status, before = Path("/proc/self/status"), math.nan
    if status.exists():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed and not given back would hide growth
        Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
        before = int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1])
    begun = time.perf_counter()
    output = action()
    seconds = time.perf_counter() - begun
    peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) if status.exists() else math.nan
    return output, seconds, (peak - before) / 2**20


class Bench:
    """The comparisons in one number format: models, tasks, and a run folder of their own."""

    def __init__(self, effort: SimpleNamespace, chosen: NumberFormat, loaded: dict[str, Task], folder: Path):
        """Load the teacher and fine-tune it shortly, so that it writes texts which end by themselves."""
        self.effort, self.format, self.rows = effort, chosen, []
        steps = effort.student_steps
        changes = {"number_format": chosen, "budgets": [effort.tuned_on], "students.steps": steps,
                   "per_task.webnlg.students.steps": steps, "per_task.webnlg.teacher.epochs": effort.epochs}
        self.settings = settings_module.load("laptop", changes, run_dir=folder)
        self.tasks, self.facts, self.films = loaded, loaded["webnlg"], loaded["film_reviews"]
        name = self.settings.teacher.model
        self.lm = language_model.load(name, chosen)
        adapter = teacher.fine_tune(self.lm, Context.of(self.facts, self.settings, effort.tuned_on), "annotate")
        self.tuned = teacher.with_adapter(self.lm, adapter)
        # What a user has: the same weights, and nothing of this package.
        self.plain = AutoModelForCausalLM.from_pretrained(assets.model_path(name), dtype=number_format.dtype(chosen)).eval()
        self.plain_tuned = PeftModel.from_pretrained(copy.deepcopy(self.plain), adapter.folder).merge_and_unload().eval()

    def compare(self, what: str, unit: str, ours: Callable[[], Any], alternative: Callable[[], Any],
                work: Callable[[Any], float], check: Callable[[Any, Any], tuple[bool, str]], limited: bool = False) -> None:
        """Time both sides in turn: `work` counts what an output holds, `check` compares the first outputs.

        If `limited`, `ours` computes with the tuned teacher, and its matrix products take a turn too.
        """
        products = Products(self.tuned.model)
        rates: tuple[list[float], list[float]] = ([], [])
        peaks: tuple[list[float], list[float]] = ([], [])
        first, shares, start = [], [], time.perf_counter()
        for pair in range(1, self.effort.pairs + 1):
            hook = self.tuned.model.register_forward_hook(products.record) if limited and pair == 1 else None
            for side, action in enumerate((ours, alternative)):
                output, seconds, peak = measured(action)
                rates[side].append(work(output) / seconds)
                peaks[side].append(peak)
                first += [output] if pair == 1 else []
                if not side:
                    our_seconds = seconds
                    if hook:
                        hook.remove()
            if limited:
                shares.append(measured(products.multiply)[1] / our_seconds)
            if pair > 1 and (time.perf_counter() - start) * (pair + 1) / pair > self.effort.seconds:
                break
        agree, words = check(*first)
        row = {"what": what, "format": self.format, "unit": f"{unit}/s", "synthtune": median(rates[0]),
               "transformers": median(rates[1]), "ratio": median(a / b for a, b in zip(*rates, strict=True)),
               "share_of_limit": median(shares) if limited else math.nan, "synthtune_gib": max(peaks[0]),
               "transformers_gib": max(peaks[1]), "pairs": pair, "agree": agree, "agreement": words}
        print(f"{time.perf_counter() - start:4.0f} s  {self.format}, {what}: {row['ratio']:.2f} times transformers", flush=True)
        self.rows.append(row)

    def run(self) -> list[dict[str, Any]]:
        """All comparisons."""
        self.decode("greedy decoding", self.effort.decoded, {"do_sample": False}, {})
        # transformers also cuts to 50 tokens unless told not to, which is another distribution.
        self.decode("nucleus sampling", self.effort.sampled,
                    {"do_sample": True, "top_p": 0.95, "top_k": 0, "temperature": 1.0},
                    {"temperature": 1.0, "top_p": 0.95, "seed": 1})
        news = self.tasks["reuters_r8"]
        self.score(self.films, self.effort.scored, self.films.labels)
        self.score(news, self.effort.scored, news.labels)
        self.score(news, self.effort.scored_many, INTENTS[: self.effort.intents])
        shots = teacher.few_shot_prefix(self.films, self.films.pool[: self.effort.shots])
        self.score(self.films, self.effort.scored_shots, self.films.labels, shots)
        self.lora()
        self.classifier()
        self.seq2seq()
        return self.rows

    def decode(self, what: str, count: int, how: dict[str, Any], ours: dict[str, Any]) -> None:
        """Write a text for each prompt of one batch; tokens after the end of a text do not count."""
        prompts = [teacher.prompt(self.facts, item.text) for item in self.facts.unlabelled(self.effort.tuned_on)[:count]]
        rows, end = [self.lm.encode(prompt) for prompt in prompts], self.lm.end

        def plain() -> list[str]:
            torch.manual_seed(1)
            ids, mask = language_model.padded(rows, end, left=True)
            written = self.plain_tuned.generate(input_ids=ids, attention_mask=mask, max_new_tokens=self.effort.new_tokens,
                                                eos_token_id=end, pad_token_id=end, **how)
            texts = self.lm.tokenizer.batch_decode(written[:, ids.shape[1]:], skip_special_tokens=True)
            return [text.strip() for text in texts]

        def likelihood(texts: list[str]) -> torch.Tensor:
            said = [f" {text}" for text in texts[:32]]
            lengths = torch.tensor([len(self.lm.encode(text)) for text in said])
            return plain_scores(self.plain_tuned, self.lm, prompts[:32], said) / lengths

        def check(first: list[str], second: list[str]) -> tuple[bool, str]:
            a, b = likelihood(first), likelihood(second)
            apart = ((a.mean() - b.mean()).abs() / (a.var() / len(a) + b.var() / len(b)).sqrt()).item()
            same = sum(one == other for one, other in zip(first, second, strict=True))
            words = f"mean log P a token {a.mean():.2f} and {b.mean():.2f}"
            if how["do_sample"]:
                return apart < 3, f"{words}, {apart:.1f} standard errors apart"
            # Batches of other sizes round differently, and in bfloat16 that changes which of two close tokens is likelier.
            exact = same == len(first) or self.format == "bfloat16"
            return exact and apart < 3, f"{same} of {len(first)} texts equal, {words}"

        def write() -> list[str]:
            return decoding.decode(self.tuned, prompts, self.effort.new_tokens, batch_size=count, **ours)[0]

        self.compare(f"{what}, batch of {count}", "tokens", write, plain,
                     lambda texts: sum(len(self.lm.encode(text)) for text in texts), check, limited=True)

    def score(self, task: Task, count: int, labels: Sequence[str], prefix: str = "") -> None:
        """Log-probabilities of all labels after each prompt of one batch; plain: a padded forward pass for each label."""
        prompts = [teacher.prompt(task, example.text) for example in task.dev[:count]]

        def plain() -> torch.Tensor:
            given = [prefix + prompt for prompt in prompts]
            return torch.stack([plain_scores(self.plain_tuned, self.lm, given, [f" {label}"] * len(given)) for label in labels],
                               1)

        def check(first: torch.Tensor, second: torch.Tensor) -> tuple[bool, str]:
            apart, same = (first - second).abs().max().item(), int((first.argmax(1) == second.argmax(1)).sum())
            return apart <= ALLOWED[self.format], f"{same} of {len(first)} labels equal, scores at most {apart:.0e} nats apart"

        what = f"scoring {len(labels)} labels{f' after {self.effort.shots} shots' if prefix else ''}, batch of {count}"
        self.compare(what, "texts",
                     lambda: scoring.score_labels(self.tuned, prompts, labels, prefix, count), plain, len, check,
                     limited=True)

    def lora(self) -> None:
        """Fine-tune the teacher, lower layers read once; plain: peft on all layers, whole forward passes."""
        examples, chosen = self.effort.lora_examples, self.settings.check("webnlg").teacher

        def ours() -> list[float]:
            with tempfile.TemporaryDirectory() as folder:
                settings = self.settings.model_copy(update={"budgets": [examples], "run_dir": Path(folder)})
                return list(teacher.fine_tune(self.lm, Context.of(self.facts, settings, examples), "annotate").losses["loss"])

        def plain() -> list[float]:
            torch.manual_seed(1)
            model = get_peft_model(copy.deepcopy(self.plain), LoraConfig(
                r=chosen.lora_rank, lora_alpha=chosen.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")).train()
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=chosen.learning_rate)
            rows = []
            for example in self.facts.gold(examples):
                before, after = teacher.training_text(self.facts, example, "annotate")
                read, learned = self.lm.encode(before), [*self.lm.encode(after), self.lm.end]
                rows.append((read + learned, [fine_tuning.IGNORED] * len(read) + learned))
            rng, losses = random.Random(tasks.seed_for(self.settings, "webnlg", examples, "annotate")), []
            for _ in range(self.effort.epochs):  # in the same batches, or the first loss could not be compared
                for batch in fine_tuning.shuffled_by_length([len(ids) for ids, _ in rows], chosen.batch_size, rng):
                    ids, mask = language_model.padded([rows[index][0] for index in batch], self.lm.end, left=False)
                    targets, _ = language_model.padded([rows[index][1] for index in batch], fine_tuning.IGNORED, left=False)
                    loss = model(input_ids=ids, attention_mask=mask, labels=targets, use_cache=False).loss
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    losses.append(loss.item())
            return losses

        def check(first: list[float], second: list[float]) -> tuple[bool, str]:
            same = len(first) == len(second) and abs(first[0] - second[0]) <= ALLOWED[self.format] / 10
            return same, f"loss before the first step {first[0]:.4f} and {second[0]:.4f}"

        self.compare("LoRA fine-tuning", "examples", ours, plain, lambda _: examples * self.effort.epochs, check)

    def classifier(self) -> None:
        """Train a student to tell two corpora's texts apart; plain: all of MiniLM, in float32.

        Weights differ by design; answers on a task this easy must not.
        """
        def labelled(split: str, number: int) -> tuple[Example, ...]:
            pairs = zip(getattr(self.facts, split), getattr(self.tasks["sgd"], split), strict=False)
            return tuple(Example("", example.target, label) for pair in pairs
                         for example, label in zip(pair, ("facts", "dialogue"), strict=True))[:number]

        task = Task("corpora", "Corpora", "classification", ("dialogue", "facts"), self.facts.template,
                    labelled("pool", self.effort.gold), (), labelled("dev", 32), {}, "")

        def plain() -> list[str]:
            torch.manual_seed(1)
            path, texts = assets.model_path(self.settings.students.model), [example.text for example in task.test]
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2, dtype=torch.float32)

            def logits(texts: Sequence[str]) -> torch.Tensor:
                return model(**encoded(tokenizer, texts, self.settings.students.max_tokens)).logits

            def loss(batch: list[Example]) -> torch.Tensor:
                return functional.cross_entropy(logits([example.text for example in batch]), torch.tensor(
                    [task.labels.index(example.target) for example in batch]))

            plain_fit(model, task.pool, self.settings, loss)
            with torch.inference_mode():
                return [task.labels[best] for best in logits(texts).argmax(-1).tolist()]

        def check(first: list[str], second: list[str]) -> tuple[bool, str]:
            same = sum(a == b for a, b in zip(first, second, strict=True))
            # A handful of steps, as --quick takes, teaches nothing.
            return same >= 0.9 * len(first) or self.effort == QUICK, f"{same} of {len(first)} answers equal"

        self.train_student("classifier", task, self.settings, lambda bench, trained: bench.predict(
            trained, [example.text for example in task.test])[0], plain, check)

    def seq2seq(self) -> None:
        """Train a writing student; plain: the same layers with their whole vocabulary, the encoder trained too, in float32."""
        task, settings = self.facts, self.settings.check("webnlg")
        chosen = settings.students
        path = assets.model_path(chosen.model)
        tokenizer = AutoTokenizer.from_pretrained(path)

        def loss(model: EncoderDecoderModel, batch: Sequence[Example]) -> torch.Tensor:
            wanted = encoded(tokenizer, [example.target for example in batch], chosen.max_new_tokens)["input_ids"][:, 1:]
            start = torch.full((len(batch), 1), tokenizer.cls_token_id)
            logits = model(**encoded(tokenizer, [example.text for example in batch], chosen.max_tokens),
                           decoder_input_ids=torch.cat([start, wanted[:, :-1]], 1)).logits
            return functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=tokenizer.pad_token_id)

        def training_loss(model: EncoderDecoderModel) -> float:  # ours never writes word pieces that it has not seen
            with torch.inference_mode():
                return loss(model, task.gold(self.effort.gold)[:32]).item()

        def plain() -> EncoderDecoderModel:
            torch.manual_seed(1)
            model = EncoderDecoderModel(
                encoder=AutoModel.from_pretrained(path, num_hidden_layers=chosen.encoder_layers, dtype=torch.float32),
                decoder=BertLMHeadModel.from_pretrained(path, num_hidden_layers=chosen.decoder_layers, dtype=torch.float32,
                                                        is_decoder=True, add_cross_attention=True))
            plain_fit(model, task.gold(self.effort.gold), settings, lambda batch: loss(model, batch))
            return model

        def check(first: tuple[students.StudentTrainer, students.Trained], second: EncoderDecoderModel) -> tuple[bool, str]:
            bench, trained = first
            losses = training_loss(bench.whole(trained)), training_loss(second)
            return losses[0] < losses[1] + 0.3, f"loss on the training texts {losses[0]:.2f} and {losses[1]:.2f}"

        self.train_student("seq2seq", task, settings, lambda *both: both, plain, check)

    def train_student(self, what: str, task: Task, settings: Settings, used: Callable[[students.StudentTrainer, students.Trained], Any],
                      plain: Callable[[], Any], check: Callable[[Any, Any], tuple[bool, str]]) -> None:
        """What student.run_cells does for one cell, without its folder of results."""
        rows = [experiment.Row(example.text, example.target) for example in task.pool[: self.effort.gold]]
        settings = settings.model_copy(update={"budgets": [self.effort.gold]})

        def ours() -> Any:
            bench = student.trainer(Context(task, settings.budgets[0], settings))
            bench.read([row.text for row in rows])
            return used(bench, bench.train(rows, experiment.Cell(self.effort.gold, "gold", 0, 1)))

        self.compare(f"student training, {what}", "examples", ours, plain,
                     lambda _: settings.students.batch_size * self.effort.student_steps, check)


@torch.inference_mode()
def plain_scores(model: PreTrainedModel, lm: LanguageModel, prompts: Sequence[str], continuations: Sequence[str]) -> torch.Tensor:
    """Log-probability of a continuation of each prompt, from one padded forward pass; shape (prompts,)."""
    read, learned = [lm.encode(text) for text in prompts], [lm.encode(text) for text in continuations]
    ids, mask = language_model.padded([a + b for a, b in zip(read, learned, strict=True)], lm.end, left=False)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    sums = []
    for row, before, after in zip(logits, read, learned, strict=True):
        logs = row[len(before) - 1: len(before) + len(after) - 1].float().log_softmax(-1)
        sums.append(logs.gather(1, torch.tensor(after)[:, None]).sum())
    return torch.stack(sums)


def encoded(tokenizer: Any, texts: Sequence[str], longest: int) -> dict[str, torch.Tensor]:
    """Texts as a student reads them."""
    return tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")


def plain_fit(model: PreTrainedModel, pool: Sequence[Example], settings: Settings,
              loss: Callable[[list[Example]], torch.Tensor]) -> None:
    """A training loop as one would write it: all weights, random batches; the model is in evaluation mode afterwards."""
    chosen, rng, waiting = settings.students, random.Random(1), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.learning_rate, weight_decay=0.01, fused=True)
    model.train()
    for step in range(chosen.steps):
        waiting = waiting or rng.sample(list(pool), len(pool))
        batch, waiting = waiting[: chosen.batch_size], waiting[chosen.batch_size:]
        optimizer.param_groups[0]["lr"] = chosen.learning_rate * fine_tuning.warm_up_and_decay(step, chosen.steps)
        loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def in_own_process(function: Callable[..., Any], *given: Any) -> Any:
    """Call a function where neither memory nor PyTorch's state is shared; on Linux a fork need not import everything again."""
    with multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn").Pool(1) as pool:
        return pool.apply(function, given)


def comparisons(effort: SimpleNamespace, chosen: NumberFormat, loaded: dict[str, Task]) -> list[dict[str, Any]]:
    """All comparisons in a format: what a process of its own does."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    gc.freeze()  # `measured` collects garbage often, and modules are none
    with tempfile.TemporaryDirectory() as folder:
        return Bench(effort, chosen, loaded, Path(folder)).run()


# The choice of the format.

WORK = {"scoring": (32, 60, 0, 64), "decoding": (64, 1, 100, 64), "training": (4, 80, 0, 160)}
"""Texts side by side, tokens of each, tokens before them in the cache, and rows of the output layer."""
NOISE = 0.05
"""By how much the format that is chosen may be the slower one."""
PATIENCE = 6
"""Seconds after which an operation is not timed again."""


def levels() -> Iterator[tuple[str, dict[str, str]]]:
    """The sets of instructions that this processor has or can do without, and the environment that leaves only those."""
    yield "as it is", {}
    if torch.cpu._is_amx_tile_supported():
        yield "no AMX", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    if torch.cpu._is_avx512_bf16_supported():
        yield "no bfloat16 instructions", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        yield "AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def teacher_operations(model: PreTrainedModel, work: str) -> dict[str, Callable[[], None]]:
    """The three kinds of operations of the teacher, with frozen weights as for LoRA.

    Several layers' distinct weights are multiplied in turn, so that they are read from memory as those of a whole model.
    """
    texts, length, past, kept = WORK[work]
    config, dtype, training = model.config, model.dtype, work == "training"
    attention = "eager" if training and dtype == torch.bfloat16 else "sdpa"  # as in models/fine_tuning.py
    model.set_attn_implementation(attention)
    decoder, width = model.get_decoder(), config.hidden_size // config.num_attention_heads
    states = torch.randn(texts, length, config.hidden_size).to(dtype).requires_grad_(training)
    last = torch.randn(kept, config.hidden_size).to(dtype).requires_grad_(training)
    rotary, cache = decoder.rotary_emb(states, torch.arange(past, past + length)[None]), None
    if past:
        cache = DynamicCache()
        for number in range(config.num_hidden_layers):
            cache.update(*torch.randn(2, texts, config.num_key_value_heads, past, width).to(dtype), number)

    def attend() -> torch.Tensor:
        seen = length + (cache.get_seq_length() if cache else 0)
        mask = torch.zeros(texts, 1, length, seen, dtype=dtype) if not training or attention == "eager" else None
        hidden = states
        for layer in decoder.layers:
            hidden = hidden + layer.self_attn(hidden, position_embeddings=rotary, attention_mask=mask, past_key_values=cache)[0]
        return hidden

    def transform() -> torch.Tensor:
        hidden = states
        for layer in decoder.layers:
            hidden = hidden + layer.mlp(hidden)
        return hidden

    def run(forward: Callable[[], torch.Tensor]) -> None:
        with nullcontext() if training else torch.inference_mode():
            output = forward()
            if training:
                output.float().sum().backward()

    return {"output layer": lambda: run(lambda: model.get_output_embeddings()(last)), "MLP": lambda: run(transform),
            "attention": lambda: run(attend)}


def student_operations(chosen: NumberFormat) -> dict[str, Callable[[], None]]:
    """The same for training a student: float32 weights, of which only the products may be computed in bfloat16."""
    config = AutoConfig.from_pretrained(assets.model_path(settings_module.StudentSettings().model))
    narrow, wide = config.hidden_size, config.intermediate_size
    model = nn.Sequential(*[part for _ in range(config.num_hidden_layers)
                            for part in (nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, narrow))])
    states = torch.randn(8, 32, narrow, requires_grad=True)

    def run() -> None:
        with number_format.computing(chosen, states.device, training=True):  # as in students.StudentTrainer.fit
            model(states).sum().backward()

    return {"MLP": run}


def operations(effort: SimpleNamespace) -> dict[str, Any]:
    """Seconds of each operation in float32 and in bfloat16, and the format that is chosen: in a process at some level."""
    torch.set_num_threads(1)
    found = {"chosen": number_format.of_machine(), "capability": torch.backends.cpu.get_cpu_capability(), "seconds": {}}
    path = assets.model_path(settings_module.TeacherSettings().model)
    config = AutoConfig.from_pretrained(path, num_hidden_layers=effort.layers)
    models = {chosen: AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=number_format.dtype(chosen)).eval()
              .requires_grad_(False) for chosen in ("float32", "bfloat16")}
    for work in (*WORK, "student training"):
        pair = [teacher_operations(model, work) if work in WORK else student_operations(chosen)
                for chosen, model in models.items()]
        for name in pair[0]:
            seconds: tuple[list[float], list[float]] = ([], [])
            start = time.perf_counter()
            while len(seconds[0]) <= effort.repetitions and not (seconds[0] and time.perf_counter() - start > PATIENCE):
                for side, each in enumerate(pair):
                    begun = time.perf_counter()
                    each[name]()
                    seconds[side].append(time.perf_counter() - begun)
            # The first time prepares kernels; emulated, it may be the only one.
            found["seconds"][f"{work}, {name}"] = [median(each[1:] or each) for each in seconds]
    whole = AutoConfig.from_pretrained(path).num_hidden_layers
    for work in WORK:
        each = [found["seconds"][f"{work}, {name}"] for name in ("MLP", "attention", "output layer")]
        found["seconds"][f"{work}, all"] = [(mlp + attention) * whole / effort.layers + output
                                            for mlp, attention, output in zip(*each, strict=True)]
    return found


def verdict(found: dict[str, Any]) -> str:
    """Whether the format that is chosen at a level is the faster one there: "" if so."""
    times = {name: a / b for name, (a, b) in found["seconds"].items() if name.endswith(", all") or name.startswith("student")}
    if found["chosen"] == "bfloat16":
        wrong = {name: times[name] for name in times if times[name] < 1 - NOISE}
    else:
        wrong = {name: times[name] for name in times if times[name] > 1.3}
    return "; ".join(f"{name}: bfloat16 is {ratio:.2f} times as fast" for name, ratio in wrong.items())


def choice(effort: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """`operations` at every level, each in a process whose environment sets it."""
    found = {}
    for level, changes in levels():
        if changes:
            done = subprocess.run([sys.executable, __file__, "--operations"], env={**os.environ, **changes}, check=True,
                                  stdout=subprocess.PIPE, text=True)
            found[level] = json.loads(done.stdout.splitlines()[-1])
        else:
            found[level] = in_own_process(operations, effort)
        wrong = verdict(found[level])
        print(f"format, {level}: {found[level]['chosen']} is chosen{' and is WRONG: ' + wrong if wrong else ''}", flush=True)
        if effort == QUICK:
            break
    return found


def import_seconds(module: str, times: int) -> float:
    """Processor time of importing a module in a fresh process; median."""
    code = f"import time; begun = time.process_time(); import {module}; print(time.process_time() - begun)"
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "lib")}
    return median(float(subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE,
                                       text=True).stdout) for _ in range(times))


# What is written.

def machine() -> str:
    """Processor, instructions, versions and date, in one sentence."""
    has = [name for name, there in (("AMX", torch.cpu._is_amx_tile_supported()),
                                    ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported())) if there]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
                "Python": platform.python_version()}
    return (f"{', '.join([number_format.device_name(), *has])}, one thread of {os.cpu_count()} cores; "
            f"{', '.join(map(' '.join, versions.items()))}; {date.today()}")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers are aligned to the right."""
    lines = [head, ["--:" if re.match(r"[\d*–]", str(cell)) and not " " in str(cell) else "---" for cell in rows[0]], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def text(rows: list[dict[str, Any]], formats: Sequence[str], imports: dict[str, float], found: dict[str, dict[str, Any]],
         seconds: float) -> str:
    """What was measured, as a page."""
    def cells(row: dict[str, Any]) -> list[str]:
        share = "–" if math.isnan(row["share_of_limit"]) else f"{row['share_of_limit']:.0%}"
        return [f"{row['synthtune']:.3g}", f"{row['transformers']:.3g}", f"**{row['ratio']:.2f}**", share,
                f"{'' if row['agree'] else '**NO** '}{row['agreement']}"]

    by = {(row["what"], row["format"]): row for row in rows}
    whats = list(dict.fromkeys(row["what"] for row in rows))
    head = ["what", "unit", *[f"{column}{chosen}" for chosen in formats for column in (
        "synthtune, ", "transformers, ", "ratio, ", "of the limit, ", "agreement, ")]]
    main_table = table(head, [[what, by[what, formats[0]]["unit"], *[cell for chosen in formats for cell in cells(
        by[what, chosen])]] for what in whats])
    memory = "; ".join(f"{row['synthtune_gib']:.2f} GiB in {row['format']}, with transformers {row['transformers_gib']:.2f}"
                       for row in rows if row["what"] == whats[0])
    names = list(dict.fromkeys(name for each in found.values() for name in each["seconds"]))
    choices = table(["level", "chosen", *names], [[level, each["chosen"], *[f"{a / b:.2f}" for a, b in (
        each["seconds"][name] for name in names)]] for level, each in found.items()])
    wrong = [f"**WRONG at the level \"{level}\"**: {each['chosen']} is chosen, but {verdict(each)}."
             for level, each in found.items() if verdict(each)] or ["The choice is right at every level."]
    other = "" if "bfloat16" in formats else (
        "\n\nThis processor has no instructions for bfloat16, so only float32 was measured: see the choice of the format below.")
    return (
        f"# Speed\n\nMeasured by `python benchmarks/speed.py` in {seconds / 60:.0f} minutes on {machine()}.{other}\n\n"
        "Both sides of a row ran in turn on the same texts, batches and model, the fine-tuned and merged teacher. Rates are "
        "medians; ratio is the median over pairs of synthtune's rate over that of what one would write with transformers: above "
        "1 synthtune is faster. Of the limit: the time of the same matrix products alone as a share of synthtune's.\n\n"
        f"{main_table}\n\n"
        "In place of synthtune's function: decoding and sampling, `generate` on one padded batch; scoring, one padded forward "
        "pass for each label; LoRA, peft on all layers with whole forward passes; students, a PyTorch loop in float32 that "
        f"trains all layers.\n\nMemory: decoding after {whats[0].rpartition(' ')[2]} prompts takes at most so much more than "
        f"the model itself: {memory}.\n\n## Imports\n\nSeconds of processor time in a fresh process.\n\n"
        f"{table(['import', 'seconds'], [[name, f'{value:.2f}'] for name, value in imports.items()])}\n\n"
        "## The choice of the format\n\n"
        "Time in float32 over time in bfloat16: above 1 bfloat16 is faster. The levels are the instructions that PyTorch, oneDNN "
        "and MKL are allowed; \"all\" is a whole model. Weights of several layers take turns, so that they come from memory.\n\n"
        f"{choices}\n\n{' '.join(wrong)}\n")


def main() -> int:
    """Run everything; the exit status is 1 if any two sides disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="toy size, one pair each; writes no files")
    parser.add_argument("--operations", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    effort, start = QUICK if given.quick else FULL, time.perf_counter()
    if given.operations:
        print(json.dumps(operations(effort)))
        return 0
    formats: list[NumberFormat] = ["float32", "bfloat16"] if number_format.of_machine() == "bfloat16" else ["float32"]
    laptop = settings_module.load("laptop")
    loaded = {name: tasks.load(name, laptop.check(name)) for name in ("webnlg", "sgd", "film_reviews", "reuters_r8")}
    imports = {module: import_seconds(module, effort.imports) for module in effort.modules}
    rows = [row for chosen in formats for row in in_own_process(comparisons, effort, chosen, loaded)]
    found = choice(effort)
    page = text(rows, formats, imports, found, time.perf_counter() - start)
    print(f"\n{page}")
    if not given.quick:
        with atomic_path(HERE / "speed.md") as temporary:
            temporary.write_text(page, "utf-8")
        flat = [{"part": "comparison", **row} for row in rows]
        flat += [{"part": "import", "what": name, "seconds": value} for name, value in imports.items()]
        flat += [{"part": "operation", "what": f"{level}: {name}", "format": chosen, "seconds": value}
                 for level, each in found.items() for name, both in each["seconds"].items()
                 for chosen, value in zip(("float32", "bfloat16"), both, strict=True)]
        with atomic_path(HERE / "speed.csv") as temporary:
            pd.DataFrame(flat).assign(machine=machine()).to_csv(temporary, index=False, float_format="%.5g")
    return 0 if all(row["agree"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
