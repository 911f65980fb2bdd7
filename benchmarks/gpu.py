"""What one GPU does with the paper's models in their true shapes, beside the planner's prediction and the chip's limit.

    benchmarks/gpu                # on a GPU, within ten minutes: gpu.md and gpu.csv
    benchmarks/gpu --toy --out D  # the same steps with tiny shapes, on any machine, to see that they work

GPT-NeoX-20B as the teacher: LoRA training with activations kept and checkpointed, scoring labels, sampling with the
engines of `synthtune.models.decoding.decode` (vLLM if it is installed) and with transformers' plain `generate`. RoBERTa-large
and BART-large as students. Weights are random: speed and memory do not depend on what they are, and nothing is downloaded.
What runs out of memory or time, or fails, is a row that says so, with what was planned; the others are still measured.

The share of the peak is the model FLOPs utilisation (MFU): FLOPs that the result needs, over time and the chip's peak. Layers
that are computed again because activations are checkpointed do not count. With N weights, full training needs 6·N FLOPs a
token: 2·N in the forward pass, 2·N for gradients of activations, 2·N for gradients of weights. LoRA needs the first two
of all linear maps and the third of its adapters alone: about 4·N, two thirds. That is what counts here; an MFU that counts 6·N
for LoRA is half as large again at the same speed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.util
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
from synthtune import settings
from synthtune.files import atomic_path
from synthtune.models import assets, decoding, fine_tuning, scoring, vllm_engine
from synthtune.models.language_model import LanguageModel
from synthtune.scale import devices, model_cost, stage_cost
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

GIB = 2**30
SECONDS = 540
"""When all is to be done: a command may take ten minutes where GPUs are lent."""
CASE_SECONDS = 60
"""What a case may take, and one with vLLM, which reads the model from a disk and compiles it: later ones are not begun."""
VLLM_SECONDS = 240


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
TOY = Size(2, 128, 32, 4, 2, 8, 8, 5)


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
        chosen = settings.load("paper", {"plan.gpu": self._name()})
        self.plan, self.chip = chosen.plan, devices.device(chosen)
        self.bytes = torch.finfo(self.dtype).bits // 8

    def _name(self) -> str:
        if self.device.type == "cpu":
            return "cpu"
        said, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / GIB
        fits = [name for name in devices.DEVICES if name.rpartition(" ")[0] in said]
        if not fits:
            sys.exit(f"{said} is not in lib/synthtune/scale/devices.yaml: add its data sheet's numbers there.")
        return min(fits, key=lambda name: abs(devices.DEVICES[name].memory - memory))

    def measure(self, row: Row, run: Callable[[], tuple[float, float | None]], seconds: float = CASE_SECONDS) -> None:
        """Run one case, which gives its rate and its share of the chip's peak, and which makes the model if none is there.

        All rows so far are written, so that what ends early leaves what it measured.
        """
        print(f"{time.monotonic() - self.start:4.0f} s  {row.what}, {row.how}", flush=True)
        if time.monotonic() - self.start + seconds > SECONDS:
            row = replace(row, note="not measured: time was up")
        else:
            self._clear()
            try:
                rate, share = run()
                row = replace(row, rate=rate, share_of_peak=share, peak_gib=self.peak())
            except torch.OutOfMemoryError:
                row = replace(row, note="does not fit in memory")
            except Exception as error:  # one engine that fails must not cost the other rows
                said = (str(error).strip().splitlines() or [""])[0][:120]
                row = replace(row, note=f"failed: {type(error).__name__}: {said}")
            self._clear()
        self.rows.append(row)
        self.write()

    def _clear(self) -> None:
        gc.collect()  # what a case that failed has left
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
                f"torch {torch.__version__}. Planned: `synthtune.scale.planner` with the shares of the peak that the profile "
                "`paper` assumes. The chip's limit: its data sheet's FLOP/s, or for sampling its memory bandwidth, spent "
                "on nothing else. Share of its peak: FLOPs that the result needs, without those computed again for checkpointed "
                "activations; for LoRA, which needs no gradients of frozen weights, that is 4·N a token and not the 6·N of "
                "full training, for N weights.\n\n")
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


def sizes_of(kind: type, config: AutoConfig) -> model_cost.Architecture:
    """Of a model that is not made: what the plan needs, whether it fits here or not."""
    with torch.device("meta"):
        return model_cost.architecture(kind.from_config(config))


def the_teacher(bench: Bench) -> None:
    """Rows of GPT-NeoX-20B's shape."""
    size, device = bench.size, bench.device
    config = config_of("gpt-neox-20b", size)
    shape = sizes_of(AutoModelForCausalLM, config)
    chosen = settings.load("paper", {"generate.batch_size": size.prompts})
    peak = bench.chip.tflops * 1e12

    def planned() -> stage_cost.Inference:
        """A stage that does nothing yet. Of the task nothing is used: texts are as long as they are here."""
        stage = stage_cost.Inference("rte", chosen, bench.chip, stage_cost.Texts(1, 1, 1))
        stage.teacher, stage.size = shape, bench.bytes
        return stage

    @functools.cache
    def made() -> PreTrainedModel:
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=bench.dtype).eval()

    tokenizer = byte_tokenizer()

    def lm(kind: type[LanguageModel] = LanguageModel) -> LanguageModel:
        return kind(made(), tokenizer, "gpt-neox-20b", "random")

    labels = [chr(97 + number % 26) * (1 + number // 26) for number in range(size.labels)]
    # The last token of a label is not read, and the space before it is.
    asked, tail = "x" * (size.length - 8), sum(map(len, labels))
    read = size.prompts * (len(asked) + tail)
    flops = shape.decoder.forward(read, len(asked) + tail) + 2 * shape.head * size.prompts * (tail + 1)
    reading = planned()
    reading.add(read, flops)
    reading.holds(stage_cost.Shape(1, size.batch, len(asked)), tail, tail + 1)

    def scored() -> tuple[float, float]:
        def score(prompts: int) -> None:
            scoring.score_labels(lm(), [asked] * prompts, labels, batch_size=size.batch)

        score(size.batch)
        seconds = bench.timed(lambda: score(size.prompts))
        return read / seconds, flops / seconds / peak

    bench.measure(Row("teacher, scoring labels", f"{size.prompts} prompts, {size.labels} labels side by side",
                      predicted_rate=read / reading.seconds(1), limit_rate=read * peak / flops,
                      predicted_gib=reading.memory(reading.shape).total / GIB), scored)

    begin, new = "some text: ", size.prompts * size.new_tokens
    planned_sampling = planned()
    planned_sampling.decode(size.prompts, len(begin), 0, size.new_tokens, shape.vocabulary)
    planned_sampling.holds(stage_cost.Shape(1, size.prompts, size.new_tokens), len(begin), 1, len(begin))
    limit = new / (size.new_tokens * shape.parameters * bench.bytes / (bench.chip.bandwidth * 1e9))

    def ours(engine: decoding.Engine, tokens: int) -> None:
        decoding.decode(lm(Endless), [begin] * size.prompts, tokens, batch_size=size.prompts, temperature=1.0, top_p=0.95,
                             engine=engine)

    def plain(tokens: int) -> None:
        end = lm(Endless).end
        side = torch.tensor([lm().encode(begin)] * size.prompts, device=device)
        how = GenerationConfig(do_sample=True, top_p=0.95, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens,
                               eos_token_id=end, pad_token_id=end)
        with torch.inference_mode():
            made().generate(side, attention_mask=torch.ones_like(side), generation_config=how)

    def sampled(write: Callable[[int], None]) -> tuple[float, None]:
        write(2)
        return new / bench.timed(lambda: write(size.new_tokens)), None

    def sampling(how: str, note: str = "") -> Row:
        return Row("teacher, sampling", f"{how}, {size.prompts} texts of {size.new_tokens} tokens",
                   predicted_rate=new / planned_sampling.seconds(1), limit_rate=limit,
                   predicted_gib=planned_sampling.memory(planned_sampling.shape).total / GIB, note=note)

    for how, write in (("our write, batches", functools.partial(ours, "batches")), ("plain generate", plain)):
        bench.measure(sampling(how), functools.partial(sampled, write))

    number = size.batch * size.length
    rank, layers = chosen.teacher.lora_rank, shape.decoder.layers
    forward, adapters = shape.decoder.forward(number, size.length), 2 * layers * shape.decoder.adapter(rank) * number
    flops = model_cost.training_flops(forward, layers * shape.decoder.attention(number, size.length), 2 * shape.head * number,
                                      adapters, lora=True)
    base = model_cost.trained_memory(shape.parameters, layers * shape.decoder.adapter(rank), 2 * layers * shape.decoder.maps,
                                     bench.bytes)

    @functools.cache
    def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
        fine_tuning.trainable(made(), chosen.teacher, 0)
        module = fine_tuning.TargetLoss(made()).to(device).train()
        return module, torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)

    for way in ("kept, adapters in float32", "kept", "checkpointed"):
        kept = model_cost.activation_bytes(shape.decoder, layers, number, bench.bytes, rank, shape.norms, way == "checkpointed")
        again, logits = 0, 12 * shape.vocabulary * number
        if way == "checkpointed":
            again = forward + adapters + 2 * shape.head * number
            logits = 12 * shape.vocabulary * min(number, model_cost.LOGITS_AT_ONCE) + bench.bytes * shape.decoder.hidden * number

        def train(way: str = way) -> tuple[float, float]:
            module, optimizer = learner()
            if way == "checkpointed":
                made().activation_checkpointing_enable({"use_reentrant": False})
                module.at_once = model_cost.LOGITS_AT_ONCE
            tokens = torch.randint(0, 256, (size.batch, size.length), device=device)
            with contextlib.ExitStack() as computing:
                if "float32" not in way:  # as the package does, and not peft, which copies inputs to float32, and results back
                    computing.enter_context(fine_tuning.multiplied_in(torch.bfloat16, made(), device))
                seconds = steps(bench, module, optimizer, lambda: module(tokens, tokens) / number)
            return number / seconds, flops / seconds / peak

        bench.measure(Row("teacher, LoRA training", f"activations {way}, {size.batch} × {size.length} tokens",
                          predicted_rate=bench.plan.mfu * peak / (flops + again) * number, limit_rate=peak / flops * number,
                          predicted_gib=(base.total + kept + logits) / GIB), train)

    def with_vllm() -> tuple[float, None]:
        learner.cache_clear()
        made.cache_clear()  # it has adapters now
        made().to("cpu")  # vLLM wants the whole GPU
        try:
            return sampled(functools.partial(ours, "vllm"))
        finally:
            vllm_engine.close()

    if importlib.util.find_spec("vllm"):
        bench.measure(sampling("our write, vLLM", "GiB at most: without vLLM's own processes"), with_vllm, VLLM_SECONDS)


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
    """Fine-tuning of a student's shape, computed as `synthtune.student` does: in bfloat16 on a GPU, weights in float32."""
    size, device, on_gpu = bench.size, bench.device, bench.device.type == "cuda"
    writes = name == "bart-large"
    kind, config = AutoModelForSeq2SeqLM if writes else AutoModelForSequenceClassification, config_of(name, size)
    shape, number = sizes_of(kind, config), size.batch * size.length
    peak, frozen = bench.chip.tflops * 1e12, 0 if writes else shape.below
    stacks = [stack for stack in (shape.encoder, shape.decoder) if stack]
    flops = model_cost.training_flops(sum(stack.forward(number, size.length, number if stack is shape.decoder else 0)
                                          for stack in stacks), 0, 2 * shape.head * (number if writes else size.batch))
    memory = model_cost.trained_memory(frozen, shape.parameters - frozen, shape.tensors, 4).total
    memory += sum(model_cost.activation_bytes(stack, stack.layers, number, bench.bytes, autocast=on_gpu) for stack in stacks)
    memory += 12 * shape.vocabulary * (number if writes else size.batch)

    def train() -> tuple[float, float]:
        with torch.device(device):
            model = kind.from_config(config).train()
        if not writes:
            model.base_model.embeddings.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
        ids = torch.randint(5, 200, (size.batch, size.length), device=device)
        wanted = ids.flatten() if writes else torch.zeros(size.batch, dtype=torch.long, device=device)

        def loss() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                logits = model(input_ids=ids, **({"decoder_input_ids": ids} if writes else {})).logits
                return functional.cross_entropy(logits.float().flatten(0, -2), wanted)

        seconds = steps(bench, model, optimizer, loss)
        return size.batch / seconds, flops / seconds / peak

    bench.measure(Row(f"student, {name}", f"training, {size.batch} × {size.length} tokens", unit="examples/s",
                      predicted_rate=bench.plan.student_mfu * peak / flops * size.batch,
                      limit_rate=peak / flops * size.batch, predicted_gib=memory / GIB), train)


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
