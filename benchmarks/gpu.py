"""What one GPU does with the paper's models in their true shapes, beside the planner's prediction and the chip's limit.

    benchmarks/gpu                # on a GPU, within ten minutes: gpu.md and gpu.csv
    benchmarks/gpu --toy --out D  # the same steps with tiny shapes, on any machine, to see that they work

GPT-NeoX-20B as the teacher: LoRA training with activations kept and checkpointed, scoring labels, sampling with our
`write`, with transformers' continuous batching and with its plain `generate`. RoBERTa-large and BART-large as students.
Weights are random: speed and memory do not depend on what they are, and nothing is downloaded. What runs out of memory or
time, or fails, is a row that says so; the others are still measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from synthtune import assets, language_model, model_cost, planner, settings, teacher
from synthtune.files import atomic_path
from synthtune.language_model import LanguageModel

GIB = 2**30
SECONDS = 540
"""When nothing new is begun: a command may take ten minutes where GPUs are lent."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    layers: int | None  # None is the model's own shape
    hidden: int
    length: int
    batch: int
    steps: int
    prompts: int
    new_tokens: int
    labels: int


TRUE = Size(None, 0, 128, 16, 8, 128, 128, 77)
TOY = Size(2, 64, 32, 4, 2, 8, 8, 5)


@dataclass(frozen=True)
class Row:
    """One measurement; rates are per second."""

    what: str
    how: str
    rate: float | None = None
    unit: str = "tokens/s"
    predicted_rate: float | None = None
    limit_rate: float | None = None
    share_of_peak: float | None = None
    peak_gib: float | None = None
    predicted_gib: float | None = None
    note: str = ""


class Bench:
    """A device, the sizes of what is run on it, and the rows measured so far."""

    def __init__(self, size: Size, out: Path):
        self.size, self.out, self.rows, self.start = size, out, [], time.monotonic()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.plan = settings.load("paper").plan
        self.chip = planner.device(self.plan.model_copy(update={"gpu": self._name()}))
        self.bytes = torch.finfo(self.dtype).bits // 8

    def _name(self) -> str:
        if self.device.type == "cpu":
            return "cpu"
        said, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / GIB
        fits = [name for name in planner.DEVICES if name.rpartition(" ")[0] in said]
        if not fits:
            sys.exit(f"{said} is not in planner.DEVICES: add its data sheet's numbers there.")
        return min(fits, key=lambda name: abs(planner.DEVICES[name].memory - memory))

    def measure(self, what: str, how: str, run: Callable[[], Row], unit: str = "tokens/s") -> None:
        """Run one case; write all rows so far, so that what ends early leaves what it measured."""
        print(f"{time.monotonic() - self.start:4.0f} s  {what}, {how}", flush=True)
        if time.monotonic() - self.start > SECONDS:
            row = Row(what, how, unit=unit, note="not measured: time was up")
        else:
            self._clear()
            try:
                row = run()
            except torch.OutOfMemoryError:
                row = Row(what, how, unit=unit, note="does not fit in memory")
            except Exception as error:  # one engine that fails must not cost the other rows
                row = Row(what, how, unit=unit, note=f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
            self._clear()
        self.rows.append(replace(row, what=what, how=how))
        self.write()

    def _clear(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def timed(self, action: Callable[[], object]) -> float:
        """Seconds of one call, everything on the device done."""
        self.wait()
        start = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float | None:
        """GiB at most since the case began."""
        return torch.cuda.max_memory_allocated() / GIB if self.device.type == "cuda" else None

    def write(self) -> None:
        """The table so far, as CSV and Markdown."""
        table = pd.DataFrame([vars(row) for row in self.rows])
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else "processor, toy shapes"
        header = ["what", "how", "measured", "planned", "limit of the chip", "share of its peak", "GiB at most",
                  "GiB planned", ""]
        lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        for row in self.rows:
            cells = [row.what, row.how, _shown(row.rate, row.unit), _shown(row.predicted_rate, row.unit),
                     _shown(row.limit_rate, row.unit), "" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
                     _shown(row.peak_gib), _shown(row.predicted_gib), row.note]
            lines.append(f"| {' | '.join(cells)} |")
        said = (f"# What one GPU does with the paper's models\n\n`benchmarks/gpu` on: {where}; {self.dtype} weights, random; "
                f"torch {torch.__version__}. Planned: `synthtune.planner` with the shares of the peak that the profile "
                "`paper` assumes. The chip's limit: its data sheet's FLOP/s, or for sampling its memory bandwidth, spent "
                "on nothing else.\n\n")
        self.out.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.out / "gpu.csv") as temporary:
            table.to_csv(temporary, index=False)
        with atomic_path(self.out / "gpu.md") as temporary:
            temporary.write_text(said + "\n".join(lines) + "\n", "utf-8")


def _shown(number: float | None, unit: str = "") -> str:
    return "" if number is None else f"{number:,.3g} {unit}".strip() if number < 1000 else f"{number:,.0f} {unit}".strip()


def config_of(name: str, size: Size, **more) -> AutoConfig:
    """The declared shape of a model, or a tiny one of the same architecture."""
    sizes = dict(assets.models()[name].architecture)
    kind = sizes.pop("model_type")
    if size.layers is not None:
        small = {"num_hidden_layers": size.layers, "encoder_layers": size.layers, "decoder_layers": size.layers,
                 "hidden_size": size.hidden, "d_model": size.hidden, "intermediate_size": 2 * size.hidden,
                 "encoder_ffn_dim": 2 * size.hidden, "decoder_ffn_dim": 2 * size.hidden, "num_attention_heads": 4,
                 "encoder_attention_heads": 4, "decoder_attention_heads": 4}
        sizes |= {key: value for key, value in small.items() if key in sizes}
    return AutoConfig.for_model(kind, **sizes, **more)


class Endless(LanguageModel):
    """Ends at one token of tens of thousands, so that every text goes to its full length, as with the other engines."""

    @property
    def end(self) -> int:
        return self.model.config.vocab_size - 1


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte: the sampler wants to turn tokens into texts, and no vocabulary is at hand offline."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    engine = Tokenizer(models.BPE({letter: number for number, letter in enumerate([*letters, "<end>"])}, []))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=engine, eos_token="<end>", pad_token="<end>")


def the_teacher(bench: Bench) -> None:
    """Rows of GPT-NeoX-20B's shape."""
    size, device = bench.size, bench.device
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config_of("gpt-neox-20b", size), dtype=bench.dtype).eval()
    shape = model_cost.architecture(model)
    lm = LanguageModel(model, byte_tokenizer(), "gpt-neox-20b", "random")
    tokens = torch.randint(0, 256, (size.batch, size.length), device=device)
    forward = shape.decoder.forward(tokens.numel(), size.length) + 2 * shape.head * tokens.numel()

    def scored() -> Row:
        prompts = ["x" * (size.length - 8)] * size.prompts
        labels = [chr(97 + number % 26) * (1 + number // 26) for number in range(size.labels)]
        language_model.score_labels(lm, prompts[: size.batch], labels, batch_size=size.batch)
        seconds = bench.timed(lambda: language_model.score_labels(lm, prompts, labels, batch_size=size.batch))
        read = size.prompts * (size.length + sum(map(len, labels)))
        flops = shape.decoder.forward(read, size.length)
        return Row("", "", read / seconds, "tokens/s", bench.plan.prefill_mfu * bench.chip.tflops * 1e12 * read / flops,
                   bench.chip.tflops * 1e12 * read / flops, flops / seconds / bench.chip.tflops / 1e12, bench.peak())

    bench.measure("teacher, scoring labels", f"{size.prompts} prompts, {size.labels} labels side by side", scored)

    new = size.prompts * size.new_tokens
    prompts = ["some text: "] * size.prompts
    weights = shape.parameters * bench.bytes
    limit = new / (size.new_tokens * weights / (bench.chip.bandwidth * 1e9))
    chosen = GenerationConfig(do_sample=True, top_p=0.95, top_k=0, max_new_tokens=size.new_tokens,
                              min_new_tokens=size.new_tokens, eos_token_id=lm.end, pad_token_id=lm.end)
    ids = [lm.encode(prompt) for prompt in prompts]

    def ours() -> Row:
        endless = Endless(model, lm.tokenizer, lm.name, lm.digest)
        seconds = bench.timed(lambda: language_model.write(endless, prompts, size.new_tokens, batch_size=size.prompts,
                                                           temperature=1.0, top_p=0.95))
        return Row("", "", new / seconds, "tokens/s", bench.plan.bandwidth_share * limit, limit, None, bench.peak())

    def batched() -> Row:
        seconds = bench.timed(lambda: model.generate_batch(inputs=ids, generation_config=chosen, progress_bar=False))
        return Row("", "", new / seconds, "tokens/s", bench.plan.bandwidth_share * limit, limit, None, bench.peak())

    def plain() -> Row:
        side = torch.tensor(ids, device=device)
        with torch.inference_mode():
            seconds = bench.timed(lambda: model.generate(side, attention_mask=torch.ones_like(side),
                                                         generation_config=chosen))
        return Row("", "", new / seconds, "tokens/s", bench.plan.bandwidth_share * limit, limit, None, bench.peak())

    for how, run in (("our write", ours), ("continuous batching", batched), ("plain generate", plain)):
        bench.measure("teacher, sampling", f"{how}, {size.prompts} texts of {size.new_tokens} tokens", run)

    chosen_settings = settings.load("paper").teacher
    teacher._trainable(model, chosen_settings, 0)
    module = teacher._TargetLoss(model).to(device).train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    rank, layers = chosen_settings.lora_rank, shape.decoder.layers
    adapters = 2 * layers * shape.decoder.adapter(rank) * tokens.numel()
    flops = model_cost.training_flops(shape.decoder.forward(tokens.numel(), size.length),
                                      layers * shape.decoder.attention(tokens.numel(), size.length),
                                      2 * shape.head * tokens.numel(), adapters, lora=True)
    trained = layers * shape.decoder.adapter(rank)
    for way in ("kept", "checkpointed"):
        if way == "checkpointed":
            model.activation_checkpointing_enable({"use_reentrant": False})
        again = forward + adapters if way == "checkpointed" else 0
        memory = model_cost.trained_memory(shape.parameters, trained, 2 * layers * shape.decoder.maps, bench.bytes)
        kept = model_cost.activation_bytes(shape.decoder, layers, tokens.numel(), bench.bytes, rank, shape.norms,
                                           way == "checkpointed")
        planned = (memory.total + kept + 12 * shape.vocabulary * tokens.numel()) / GIB

        def train(planned: float = planned, again: float = again) -> Row:
            seconds = steps(bench, module, optimizer, lambda: module(tokens, tokens) / tokens.numel())
            rate = tokens.numel() / seconds
            return Row("", "", rate, "tokens/s", bench.plan.mfu * bench.chip.tflops * 1e12 / (flops + again) * tokens.numel(),
                       bench.chip.tflops * 1e12 / flops * tokens.numel(), flops / seconds / bench.chip.tflops / 1e12,
                       bench.peak(), planned)

        bench.measure("teacher, LoRA training", f"activations {way}, {size.batch} × {size.length} tokens", train)


def steps(bench: Bench, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> float:
    """Seconds of an optimizer step: the median after two to warm up."""

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    return statistics.median(bench.timed(step) for _ in range(bench.size.steps))


def a_student(bench: Bench, name: str) -> None:
    """Full fine-tuning of a student's shape, in float32 as `synthtune.student` does."""
    size, device = bench.size, bench.device
    kind = AutoModelForSeq2SeqLM if name == "bart-large" else AutoModelForSequenceClassification
    with torch.device(device):
        model = kind.from_config(config_of(name, size)).train()
    shape = model_cost.architecture(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(5, 200, (size.batch, size.length), device=device)
    parts = [stack.forward(ids.numel(), size.length, ids.numel() if stack is shape.decoder else 0)
             for stack in (shape.encoder, shape.decoder) if stack]
    writes = name == "bart-large"
    flops = model_cost.training_flops(sum(parts), 0, 2 * shape.head * (ids.numel() if writes else size.batch))

    def train() -> Row:
        def loss() -> torch.Tensor:
            if writes:
                return functional.cross_entropy(model(input_ids=ids, decoder_input_ids=ids).logits.flatten(0, 1),
                                                ids.flatten())
            return functional.cross_entropy(model(input_ids=ids).logits, torch.zeros(size.batch, dtype=torch.long,
                                                                                     device=device))

        seconds = steps(bench, model, optimizer, loss)
        return Row("", "", size.batch / seconds, "examples/s",
                   bench.plan.student_mfu * bench.chip.tflops * 1e12 / flops * size.batch,
                   bench.chip.tflops * 1e12 / flops * size.batch, flops / seconds / bench.chip.tflops / 1e12, bench.peak())

    bench.measure(f"student, {name}", f"training, {size.batch} × {size.length} tokens", train, "examples/s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="tiny shapes, on any machine")
    parser.add_argument("--out", type=Path, default=HERE, help="where gpu.md and gpu.csv go")
    chosen = parser.parse_args()
    if not (chosen.toy or torch.cuda.is_available()):
        sys.exit("There is no GPU here: try the steps with --toy --out DIR, which measures nothing of interest.")
    bench = Bench(TOY if chosen.toy else TRUE, chosen.out)
    for name in ("roberta-large", "bart-large"):
        a_student(bench, name)
    the_teacher(bench)
    print((chosen.out / "gpu.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
