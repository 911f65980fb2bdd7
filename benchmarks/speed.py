"""How fast the package's own code is beside what one would otherwise write, as ratios from one run.

    python benchmarks/speed.py            # every comparison, some five minutes on two slow cores
    python benchmarks/speed.py --quick    # the same at toy size, in a minute; prints only

Both sides of a comparison run in turn (A B A B …) on the same prompts, batch sizes, model and threads, so
that what else the machine does falls on both; the ratio is the median over pairs. Each comparison also checks
that the two sides agree where they should; the exit status is 1 where they do not. All texts are of the
package's own corpora.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from synthtune import assets, language_model, student, tasks, teacher
from synthtune import settings as settings_module
from synthtune.files import atomic_path
from synthtune.language_model import LanguageModel
from synthtune.settings import Settings
from synthtune.tasks import Task
from synthtune.tasks.reuters import TOPICS

LABELS = sorted(TOPICS.values())
"""Eight label texts of one to three tokens."""

NEW_TOKENS = 32
GENERATION_BATCH = 24
SHOTS = 5
EPOCHS = 3
BUDGET = 125
"""Gold examples of the students: the smallest budget of the default reproduction."""


@dataclass(frozen=True)
class Effort:
    """How much of everything; after two pairs none is begun that would end past `seconds`."""

    seconds: float
    pairs: int
    written: int
    scored: int
    tuned_on: int
    lora_examples: int
    student_steps: int


FULL = Effort(seconds=36, pairs=5, written=24, scored=16, tuned_on=32, lora_examples=8, student_steps=20)
QUICK = Effort(seconds=0, pairs=1, written=6, scored=4, tuned_on=8, lora_examples=4, student_steps=10)


@dataclass(frozen=True)
class Row:
    """One comparison: median rates in `unit`, the median ratio of a pair, and whether the outputs agree."""

    comparison: str
    ours: str
    alternative: str
    unit: str
    ours_rate: float
    alternative_rate: float
    ratio: float
    pairs: int
    agree: bool
    agreement: str


@dataclass(frozen=True)
class Bench:
    """What the comparisons share: models in float32, the corpora, settings with a run folder of their own."""

    effort: Effort
    settings: Settings
    lm: LanguageModel
    tuned: LanguageModel
    adapter: teacher.Adapter
    facts: Task
    dialogues: Task

    @staticmethod
    def make(effort: Effort, folder: Path) -> Bench:
        """Load the teacher and fine-tune it shortly, so that it writes texts which end by themselves."""
        settings = settings_module.load(
            "laptop",
            {
                "budgets": [effort.tuned_on],
                "teacher.epochs": EPOCHS,
                # As for all tasks, but for the layers that the facts need.
                "per_task.webnlg.teacher.epochs": EPOCHS,
                "per_task.webnlg.teacher.batch_size": 8,
                "per_task.webnlg.teacher.learning_rate": 5e-4,
                "per_task.webnlg.teacher.max_tokens": 256,
                "students.gold_steps": effort.student_steps,
            },
            run_dir=folder,
        )
        facts, dialogues = tasks.load("webnlg", settings), tasks.load("sgd", settings)
        lm = language_model.load(settings.teacher.model, torch.float32)
        adapter = teacher.fine_tune(lm, facts, effort.tuned_on, "annotate", settings)
        return Bench(effort, settings, lm, teacher.with_adapter(lm, adapter), adapter, facts, dialogues)

    def compare(
        self,
        comparison: str,
        unit: str,
        ours: tuple[str, Callable[[], Any]],
        alternative: tuple[str, Callable[[], Any]],
        work: Callable[[Any], float],
        check: Callable[[Any, Any], tuple[bool, str]],
    ) -> Row:
        """Time both sides in turn: `work` counts what an output holds, `check` compares the first outputs."""
        rates: tuple[list[float], list[float]] = ([], [])
        first: list[Any] = []
        start = time.perf_counter()
        for pair in range(1, self.effort.pairs + 1):
            for side, (_, action) in enumerate((ours, alternative)):
                begun = time.perf_counter()
                output = action()
                rates[side].append(work(output) / (time.perf_counter() - begun))
                first += [output] if pair == 1 else []
            if pair > 1 and (time.perf_counter() - start) * (pair + 1) / pair > self.effort.seconds:
                break
        agree, words = check(*first)
        return Row(
            comparison,
            ours[0],
            alternative[0],
            f"{unit}/s",
            median(rates[0]),
            median(rates[1]),
            median(a / b for a, b in zip(*rates, strict=True)),
            pair,
            agree,
            words,
        )

    def written_prompts(self) -> list[str]:
        """Inputs of the NLG task, as the annotating teacher reads them; none of them was gold."""
        inputs = self.facts.unlabelled(self.effort.tuned_on)[: self.effort.written]
        return [teacher.prompt(self.facts, item.text) for item in inputs]

    def scored_prompts(self) -> list[str]:
        """Sentences of the corpus, put as news items to label."""
        return [f"News: {example.target}\nTopic:" for example in self.facts.dev[: self.effort.scored]]

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens of texts: what is left of the tokens computed when padding after the end is not counted."""
        return sum(len(self.lm.encode(text)) for text in texts)


def plain_generate(lm: LanguageModel, prompts: Sequence[str], **how: Any) -> list[str]:
    """Continue prompts in the order given, padded, with transformers' `generate`."""
    texts = []
    for start in range(0, len(prompts), GENERATION_BATCH):
        rows = [lm.encode(prompt) for prompt in prompts[start : start + GENERATION_BATCH]]
        ids, mask = language_model.padded(rows, lm.end, left=True)
        written = lm.model.generate(
            input_ids=ids.to(lm.device),
            attention_mask=mask.to(lm.device),
            max_new_tokens=NEW_TOKENS,
            eos_token_id=lm.end,
            pad_token_id=lm.end,
            **how,
        )
        texts += lm.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


@torch.inference_mode()
def plain_scores(lm: LanguageModel, prompts: Sequence[str], continuations: Sequence[str]) -> torch.Tensor:
    """Log-probability of a continuation of each prompt, from one padded forward pass; shape (prompts,)."""
    read, learned = [lm.encode(text) for text in prompts], [lm.encode(text) for text in continuations]
    ids, mask = language_model.padded([a + b for a, b in zip(read, learned, strict=True)], lm.end, left=False)
    output = lm.model(input_ids=ids.to(lm.device), attention_mask=mask.to(lm.device), use_cache=False)
    logs = output.logits.float().log_softmax(-1).cpu()
    return torch.stack(
        [
            logs[number, torch.arange(len(a) - 1, len(a) + len(b) - 1), b].sum()
            for number, (a, b) in enumerate(zip(read, learned, strict=True))
        ]
    )


def within(tolerance: float) -> Callable[[torch.Tensor, torch.Tensor], tuple[bool, str]]:
    """A check that scores differ by no more than `tolerance` nats."""

    def check(ours: torch.Tensor, alternative: torch.Tensor) -> tuple[bool, str]:
        apart = (ours - alternative).abs().max().item()
        return apart <= tolerance, f"scores at most {apart:.1e} nats apart ({tolerance:g} allowed)"

    return check


def nucleus_sampling(bench: Bench) -> Row:
    """Sampling texts; two samplers agree if the model finds their texts equally likely."""
    prompts = bench.written_prompts()

    def likelihood(texts: list[str]) -> torch.Tensor:
        values = []
        for start in range(0, len(texts), GENERATION_BATCH):
            part = [f" {text}" for text in texts[start : start + GENERATION_BATCH]]
            lengths = torch.tensor([len(bench.tuned.encode(text)) for text in part])
            values.append(
                plain_scores(bench.tuned, prompts[start : start + GENERATION_BATCH], part) / lengths
            )
        return torch.cat(values)

    def check(ours: list[str], alternative: list[str]) -> tuple[bool, str]:
        a, b = likelihood(ours), likelihood(alternative)
        apart = ((a.mean() - b.mean()).abs() / (a.var() / len(a) + b.var() / len(b)).sqrt()).item()
        return (
            apart < 3,
            f"mean log P a token {a.mean():.2f} and {b.mean():.2f}, {apart:.1f} standard errors apart",
        )

    def plain() -> list[str]:
        torch.manual_seed(1)
        # transformers also cuts to 50 tokens unless told not to, which is another distribution.
        return plain_generate(bench.tuned, prompts, do_sample=True, top_p=0.95, top_k=0, temperature=1.0)

    return bench.compare(
        "nucleus sampling, top_p 0.95",
        "useful tokens",
        (
            "finished rows leave; 2,048 candidates",
            lambda: language_model.write(
                bench.tuned,
                prompts,
                NEW_TOKENS,
                batch_size=GENERATION_BATCH,
                temperature=1.0,
                top_p=0.95,
                seed=1,
            )[0],
        ),
        ("transformers generate(do_sample=True)", plain),
        bench.tokens,
        check,
    )


def greedy_annotation(bench: Bench) -> Row:
    """Annotating NLG inputs: the texts must be equal."""
    prompts = bench.written_prompts()

    def check(ours: list[str], alternative: list[str]) -> tuple[bool, str]:
        same = sum(a == b for a, b in zip(ours, alternative, strict=True))
        return same == len(ours), f"{same} of {len(ours)} texts equal"

    return bench.compare(
        "greedy annotation",
        "useful tokens",
        (
            "finished rows leave the batch",
            lambda: language_model.write(bench.tuned, prompts, NEW_TOKENS, batch_size=GENERATION_BATCH)[0],
        ),
        ("transformers generate, padded", lambda: plain_generate(bench.tuned, prompts, do_sample=False)),
        bench.tokens,
        check,
    )


def label_scoring(bench: Bench) -> Row:
    """Log-probabilities of eight labels after each prompt."""
    prompts = bench.scored_prompts()
    return bench.compare(
        f"scoring {len(LABELS)} labels",
        "texts",
        (
            "labels side by side, prompt read once",
            lambda: language_model.score_labels(bench.lm, prompts, LABELS),
        ),
        (
            "one padded forward pass a label",
            lambda: torch.stack(
                [plain_scores(bench.lm, prompts, [f" {label}"] * len(prompts)) for label in LABELS], 1
            ),
        ),
        len,
        within(1e-3),
    )


def few_shot_prefix(bench: Bench) -> Row:
    """Few-shot scoring, the instruction and examples read once or with each prompt."""
    shots = zip(bench.facts.gold(SHOTS), cycle(LABELS))
    prefix = (
        "\n\n".join(
            [
                f"Name the topic of the news item: {', '.join(LABELS)}.",
                *(f"News: {shot.target}\nTopic: {label}" for shot, label in shots),
            ]
        )
        + "\n\n"
    )
    prompts = bench.scored_prompts()
    return bench.compare(
        f"scoring after {SHOTS} shots",
        "texts",
        ("prefix read once", lambda: language_model.score_labels(bench.lm, prompts, LABELS, prefix)),
        (
            "prefix read with each prompt",
            lambda: language_model.score_labels(bench.lm, [prefix + prompt for prompt in prompts], LABELS),
        ),
        len,
        within(1e-3),
    )


def lora_training(bench: Bench) -> Row:
    """Fine-tuning the teacher; before the first update both sides must have the same loss."""
    examples = bench.effort.lora_examples

    def ours() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            settings = bench.settings.model_copy(update={"budgets": [examples], "run_dir": Path(folder)})
            return list(
                teacher.fine_tune(bench.lm, bench.facts, examples, "annotate", settings).losses["loss"]
            )

    def check(first: list[float], second: list[float]) -> tuple[bool, str]:
        same = len(first) == len(second) and abs(first[0] - second[0]) <= 1e-3
        return same, f"loss of the first batch {first[0]:.4f} and {second[0]:.4f}"

    row = bench.compare(
        "LoRA fine-tuning",
        "examples",
        ("upper half; lower layers' states read once", ours),
        ("peft on all layers, full forward pass", lambda: plain_lora(bench, examples)),
        lambda _: examples * EPOCHS,
        check,
    )
    each = " and ".join(f"{examples / rate:.1f} s" for rate in (row.ours_rate, row.alternative_rate))
    return Row(
        **{**asdict(row), "agreement": f"{row.agreement}; each of {EPOCHS} epochs of {examples} examples took {each}"}
    )


def plain_lora(bench: Bench, examples: int) -> list[float]:
    """Train LoRA on every linear map of every layer, on the same batches; the loss before each step."""
    chosen = bench.settings.teacher
    seed = tasks.seed_for(bench.settings, bench.facts.name, examples, "annotate")
    model = get_peft_model(
        copy.deepcopy(bench.lm.model),
        LoraConfig(
            r=chosen.lora_rank,
            lora_alpha=chosen.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    ).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=chosen.learning_rate)
    rows = []
    for example in bench.facts.gold(examples):
        before, after = teacher.training_text(bench.facts, example, "annotate")
        read, learned = bench.lm.encode(before), [*bench.lm.encode(after), bench.lm.end]
        rows.append((read + learned, [teacher.IGNORED] * len(read) + learned))
    rng, losses = random.Random(seed), []
    for _ in range(EPOCHS):
        for batch in teacher.shuffled_by_length([len(ids) for ids, _ in rows], chosen.batch_size, rng):
            ids, mask = language_model.padded([rows[index][0] for index in batch], bench.lm.end, left=False)
            targets, _ = language_model.padded(
                [rows[index][1] for index in batch], teacher.IGNORED, left=False
            )
            device = bench.lm.device
            loss = model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                labels=targets.to(device),
                use_cache=False,
            ).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def merged_adapter(bench: Bench) -> Row:
    """Scoring with the adapter's update added to the weights, or beside them."""
    prompts = bench.scored_prompts()
    beside = PeftModel.from_pretrained(copy.deepcopy(bench.lm.model), bench.adapter.folder).eval()
    unmerged = LanguageModel(beside, bench.lm.tokenizer, bench.lm.name, bench.adapter.digest)
    return bench.compare(
        "scoring with an adapter",
        "texts",
        ("adapter merged", lambda: language_model.score_labels(bench.tuned, prompts, LABELS)),
        ("adapter unmerged", lambda: language_model.score_labels(unmerged, prompts, LABELS)),
        len,
        within(1e-3),
    )


def student_training(bench: Bench) -> Row:
    """Training a student to tell the two corpora's texts apart, and its answers on held-out ones.

    Weights differ by design, answers on a task this easy must not.
    """

    def labelled(split: str, number: int) -> list[tasks.Example]:
        pairs = zip(getattr(bench.facts, split), getattr(bench.dialogues, split), strict=False)
        return [
            tasks.Example("", example.target, label)
            for pair in pairs
            for example, label in zip(pair, ("facts", "dialogue"), strict=True)
        ][:number]

    train, test = labelled("pool", BUDGET), labelled("dev", 32)
    task = Task(
        "corpora",
        "Corpora",
        "classification",
        ("dialogue", "facts"),
        bench.facts.wording,
        tuple(train),
        (),
        tuple(test),
        {},
        "",
    )
    rows = [student.Row(example.text, example.target) for example in train]
    chosen = bench.settings.students

    def ours() -> list[str]:
        # What student.run_cells does for a cell, without its folder of results.
        students = student.Bench.of(task, bench.settings)
        students.read([row.text for row in rows] + [example.text for example in test])
        trained = students.train(rows, student.Cell(BUDGET, "gold", 0, 1))
        return students.predict(trained, [example.text for example in test])[0]

    def check(first: list[str], second: list[str]) -> tuple[bool, str]:
        same = sum(a == b for a, b in zip(first, second, strict=True))
        right = sum(a == example.target for a, example in zip(first, test, strict=True))
        return same >= 0.9 * len(test), f"{same} of {len(test)} answers equal, {right} of ours right"

    return bench.compare(
        "student fine-tuning",
        "examples",
        (f"{chosen.frozen_layers} lower layers read once", ours),
        ("all of MiniLM trained", lambda: plain_student(task, bench.settings)),
        lambda _: chosen.batch_size * bench.effort.student_steps,
        check,
    )


def plain_student(task: Task, settings: Settings) -> list[str]:
    """Fine-tune the whole encoder in random batches, and answer the test texts."""
    chosen = settings.students
    path = assets.model_path(chosen.model)
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(task.labels)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.learning_rate, weight_decay=0.01, fused=True)

    def logits(examples: Sequence[tasks.Example]) -> torch.Tensor:
        return model(
            **tokenizer(
                [example.text for example in examples],
                padding=True,
                truncation=True,
                max_length=chosen.max_tokens,
                return_tensors="pt",
            )
        ).logits

    rng, waiting = random.Random(1), []
    for step in range(chosen.gold_steps):
        waiting = waiting or rng.sample(task.pool, len(task.pool))
        batch, waiting = waiting[: chosen.batch_size], waiting[chosen.batch_size :]
        optimizer.param_groups[0]["lr"] = chosen.learning_rate * teacher.warm_up_and_decay(
            step, chosen.gold_steps
        )
        targets = torch.tensor([task.labels.index(example.target) for example in batch])
        functional.cross_entropy(logits(batch), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.inference_mode():
        return [task.labels[best] for best in logits(task.test).argmax(-1).tolist()]


def number_format(bench: Bench) -> Row:
    """float32 or bfloat16, whichever the package picks on this machine, beside the other."""
    fastest = language_model.fastest_dtype()
    other = torch.float32 if fastest == torch.bfloat16 else torch.bfloat16
    prompts = bench.scored_prompts()[:2]  # emulated bfloat16 may be a hundred times slower

    def side(dtype: torch.dtype) -> tuple[str, Callable[[], torch.Tensor]]:
        lm = LanguageModel(
            copy.deepcopy(bench.lm.model).to(dtype), bench.lm.tokenizer, bench.lm.name, bench.lm.digest
        )
        return str(dtype).removeprefix("torch."), lambda: language_model.score_labels(lm, prompts, LABELS)

    return bench.compare("number format", "texts", side(fastest), side(other), len, within(1.0))


COMPARISONS = (
    nucleus_sampling,
    greedy_annotation,
    label_scoring,
    few_shot_prefix,
    lora_training,
    merged_adapter,
    student_training,
    number_format,
)


def machine() -> str:
    """Processor, cores, threads used and versions, in one sentence."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text("utf-8").splitlines() if listed.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    device = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads{device}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, "
        f"peft {peft.__version__}, Python {platform.python_version()}"
    )


def table(rows: Sequence[Row]) -> str:
    """The comparisons as a Markdown table."""
    lines = [
        "| what | synthtune | instead of | unit | synthtune | instead | ratio | pairs | agree |",
        "|---|---|---|---|--:|--:|--:|--:|---|",
    ]
    lines += [
        f"| {row.comparison} | {row.ours} | {row.alternative} | {row.unit} | {row.ours_rate:.3g} | "
        f"{row.alternative_rate:.3g} | **{row.ratio:.2f}** | {row.pairs} | "
        f"{'yes' if row.agree else '**NO**'}: {row.agreement} |"
        for row in rows
    ]
    return "\n".join(lines)


def save(rows: Sequence[Row], seconds: float) -> None:
    """Write `speed.csv` and `speed.md` beside this file."""
    with atomic_path(HERE / "speed.csv") as temporary:
        pd.DataFrame([asdict(row) for row in rows]).assign(machine=machine()).to_csv(
            temporary, index=False, float_format="%.5g"
        )
    with atomic_path(HERE / "speed.md") as temporary:
        temporary.write_text(
            f"# Speed\n\nMeasured by `python benchmarks/speed.py` in {seconds / 60:.1f} minutes on "
            f"{machine()}.\n\nBoth sides of a row ran in turn on the same texts, batch sizes, model (float32 "
            "but in the last row) and threads. Rates are medians; ratio is the median over pairs of "
            "synthtune's rate over the other's: above 1 synthtune is faster.\n\n"
            f"{table(rows)}\n",
            "utf-8",
        )


def main() -> int:
    """Run all comparisons; the exit status is 1 if any two sides disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="toy size, one pair each; writes no files")
    quick = parser.parse_args().quick
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    start, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench.make(QUICK if quick else FULL, Path(folder))
        print(f"ready after {time.perf_counter() - start:.0f} s: {machine()}", flush=True)
        for comparison in COMPARISONS:
            rows.append(comparison(bench))
            row = rows[-1]
            print(
                f"{time.perf_counter() - start:4.0f} s  {row.comparison}: {row.ratio:.2f} times "
                f"{row.alternative}",
                flush=True,
            )
    print(f"\n{table(rows)}")
    if not quick:
        save(rows, time.perf_counter() - start)
    return 0 if all(row.agree for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
