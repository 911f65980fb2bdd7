"""The teacher: a large language model fine-tuned on the gold examples of one task, and how well it then does.

Method of Kaddour & Liu 2023, section 3 (fine-tune, then annotate or generate), with LoRA (Hu et al. 2022) in place of
full fine-tuning.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import random
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from synthtune.errors import SettingsError, StageError
from synthtune.files import atomic_path, digest, read_json, write_json
from synthtune.models import language_model, layers, placement
from synthtune.models.language_model import LanguageModel
from synthtune.number_format import device, device_name
from synthtune.progress import progress
from synthtune.scale import workers
from synthtune.scale.model_cost import LOGITS_AT_ONCE
from synthtune.settings import HOW, Settings, TeacherSettings
from synthtune.settings import load as load_settings
from synthtune.tasks import Example, Task, seed_for
from synthtune.tasks import load as load_task

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

Direction = Literal["annotate", "generate"]
"""`annotate` is P(Y|X); `generate` is P(X,Y): the label and then the text, or the input and then the output."""

# peft asks models for an attribute by the name that transformers is about to drop; nothing here depends on the answer.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

# peft, accelerate and PyTorch's distributed training are imported where they are used: students need none of them, and
# together they take seconds.
IGNORED = -100
NO_MATTER = HOW | {"shots", "test_examples", "prompted_examples"}
"""Settings of the teacher that do not change what it learns."""
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "trained.safetensors"}
"""File of what was trained, by `teacher.method`."""
SYSTEM = "fine-tuned teacher"


def prompt(task: Task, text: str) -> str:
    """The text after which the output is expected: the input's name and text, and the output's name."""
    return f"{task.wording.input}: {text}\n{task.wording.output}:"


def ended(task: Task, output: str) -> str:
    """An output as the teacher writes it: a set of labels ends with a full stop, so that none is the beginning of another."""
    return f"{output}." if task.separator else output


def generation_prompt(task: Task, label: str | None) -> str:
    """The text after which a whole new pair is expected; for classification it fixes the label."""
    return f"{task.wording.output}: {label}\n{task.wording.input}:" if label else f"{task.wording.input}:"


def few_shot_prefix(task: Task, shots: list[Example]) -> str:
    """The instruction and solved examples, as put before each prompt of a model that is not fine-tuned."""
    solved = [f"{prompt(task, shot.text)} {ended(task, shot.target)}" for shot in shots]
    return "\n\n".join([task.wording.instruction, *solved]) + "\n\n"


def training_text(task: Task, example: Example, direction: Direction) -> tuple[str, str]:
    """What the teacher reads and what it learns to write after it."""
    if direction == "annotate":
        return prompt(task, example.text), f" {ended(task, example.target)}"
    if task.kind == "classification":
        return generation_prompt(task, example.target), f" {example.text}"
    return generation_prompt(task, None), f" {example.text}\n{task.wording.output}: {example.target}"


@dataclass
class Adapter:
    """What fine-tuning made of a model, on disk: a LoRA adapter, or the weights that full fine-tuning changed.

    Attributes
    ----------
    folder : Path
        peft's files or `trained.safetensors`, `settings.json` and `losses.csv`.
    digest : str
        SHA-256 of the weights.
    losses : DataFrame
        Columns epoch, step, loss: mean loss a target token, in nats, before each optimizer step.
    seconds : float
        Time to train.
    vocabulary : LongTensor or None
        The tokens that the output layer was trained with, ascending; None if all.
    """

    folder: Path
    digest: str
    losses: pd.DataFrame
    seconds: float
    vocabulary: torch.Tensor | None


def adapter_folder(settings: Settings, task: str, budget: int, direction: Direction) -> Path:
    """Where an adapter is kept."""
    return settings.folder_of(task, budget) / f"teacher-{direction}"


def fine_tune(lm: LanguageModel, task: Task, budget: int, direction: Direction, settings: Settings) -> Adapter:
    """Fine-tune the teacher on the gold examples of a budget, or take the adapter this run already has.

    Parameters
    ----------
    lm : LanguageModel
        The pretrained model; it is left as it is.
    task : Task
    budget : int
        Number of gold examples.
    direction : "annotate" or "generate"
    settings : Settings
        `settings.teacher.processes` above 1 trains in that many processes, each with the whole model or, with
        `settings.teacher.sharding`, with its share of each layer, and in the number format that `lm` is in.

    Raises
    ------
    StageError
        If a training process fails.
    """
    settings = settings.check(task.name, budget)
    folder = adapter_folder(settings, task.name, budget, direction)
    kept = _kept(folder, _made_from(lm, task, budget, direction, settings))
    if kept:
        return kept
    processes = workers.number_of(settings.teacher.processes)
    if processes == 1 and settings.teacher.sharding == "replicated":
        _train(lm, task, budget, direction, settings, folder)
    else:
        _launch(task.name, budget, direction, settings.model_copy(update={"number_format": lm.format}), processes)
    return _kept(folder, _made_from(lm, task, budget, direction, settings))


def _made_from(lm: LanguageModel, task: Task, budget: int, direction: Direction, settings: Settings) -> dict:
    return {"model_digest": lm.digest, "number_format": lm.format, "data_digest": task.digest, "budget": budget,
            "direction": direction,
            "teacher": settings.teacher.model_dump(mode="json", exclude=NO_MATTER, exclude_none=True),
            "seed": settings.seed, "threads": settings.threads, "smallest_budget": settings.budgets[0]}


def _kept(folder: Path, made_from: dict) -> Adapter | None:
    record = folder / "settings.json"
    if not record.exists():
        return None
    stored = read_json(record)
    weights = folder / WEIGHTS[stored["made_from"]["teacher"].get("method", "lora")]
    if stored["made_from"] != made_from or not weights.exists() or digest(weights) != stored["digest"]:
        return None
    vocabulary = _tokens(stored["vocabulary"]) if stored["vocabulary"] else None
    return Adapter(folder, stored["digest"], pd.read_csv(folder / "losses.csv"), stored["seconds"], vocabulary)


class _TargetLoss(nn.Module):
    """Summed cross-entropy of the target tokens, from token ids or from the hidden states below the trained layers.

    The logits of all target tokens are computed together and kept for the backward pass; with `at_once`, they are
    computed for that many tokens at a time, and again in the backward pass.
    """

    def __init__(self, upper: nn.Module, at_once: int | None = None) -> None:
        super().__init__()
        self.upper, self.at_once = upper, at_once

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """inputs: (batch, length) ids or (batch, length, hidden) states; targets: (batch, length), IGNORED where
        nothing is to be learned."""
        read = {"input_ids" if inputs.dim() == 2 else "inputs_embeds": inputs}
        hidden = self.upper.get_decoder()(**read, use_cache=False).last_hidden_state[:, :-1]
        targets = targets[:, 1:]
        wanted = targets != IGNORED
        # The vocabulary is the widest matrix of the model: multiply it only where a token is to be predicted.
        hidden, targets = hidden[wanted], targets[wanted]
        if self.at_once is None:
            return self._summed(hidden, targets)
        return sum(checkpoint(self._summed, *part, use_reentrant=False, preserve_rng_state=False)  # nothing here is random
                   for part in zip(hidden.split(self.at_once), targets.split(self.at_once), strict=True))

    def _summed(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """hidden: (tokens, hidden); targets: (tokens)."""
        return functional.cross_entropy(layers.logits(self.upper, hidden).float(), targets, reduction="sum")


def _vocabulary(lm: LanguageModel, rows: list[tuple[list[int], torch.Tensor]], commonest: int) -> dict:
    """The tokens that the generating teacher writes: the commonest ones, all of gold's, and the end.

    Byte-pair encoding numbers tokens in the order of its merges (Sennrich et al. 2016), which is that of their
    frequency in what the tokenizer was trained on: the commonest are the first. Words that need others are spelled in
    pieces.
    """
    used = {token for ids, _ in rows for token in ids} | {lm.end}
    return {"commonest": commonest, "besides": sorted(token for token in used if token >= commonest)}


def _tokens(written: dict) -> torch.Tensor:
    return torch.cat([torch.arange(written["commonest"]), torch.tensor(written["besides"], dtype=torch.long)])


def _places(targets: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
    """Targets as rows of an output layer that knows `vocabulary` only."""
    return torch.where(targets == IGNORED, targets, torch.searchsorted(vocabulary, targets.clamp(min=0)))


def _train(lm: LanguageModel, task: Task, budget: int, direction: Direction, settings: Settings, folder: Path) -> None:
    """Train in this process, which may be one of several; the first one writes the adapter.

    What is trained is float32, its gradients and moments too, since updates are smaller than the steps of bfloat16. The
    rest, and what is computed, is in the format of `lm`: with LoRA, peft computes the adapters alone in float32; without,
    copies of the weights in that format are made as they are needed.
    """
    from accelerate import Accelerator

    from synthtune.scale import sharding

    chosen = settings.teacher
    start, made_from = time.perf_counter(), _made_from(lm, task, budget, direction, settings)
    accelerator = Accelerator(cpu=device() == "cpu")
    placement.rest_all()
    seed = seed_for(settings, task.name, budget, direction)
    torch.manual_seed(seed)
    rows = [_encoded(lm, task, example, direction, chosen.max_tokens) for example in task.gold(budget)]
    written = None
    if direction == "generate" and chosen.vocabulary and chosen.vocabulary < lm.model.config.vocab_size:
        written = _vocabulary(lm, rows, chosen.vocabulary)
        lm = language_model.writing_only(lm, _tokens(written))
        rows = [(ids, _places(targets, lm.vocabulary)) for ids, targets in rows]
    sharded = chosen.sharding == "sharded"
    model = lm.model if sharded else copy.deepcopy(lm.model).to(accelerator.device)
    if accelerator.device.type == "cpu" and model.dtype == torch.bfloat16:
        # On processors the backward pass of PyTorch's fused attention takes five times as long in bfloat16 as that of its
        # parts. It is not faster in float32 either, but there it needs less memory.
        model.set_attn_implementation("eager")
    path = layers.stack(model)
    blocks = model.get_submodule(path) if path else nn.ModuleList()
    first = min(chosen.frozen_layers, len(blocks) - 1) if path else 0
    tuned = _trainable(model, chosen, first)
    if chosen.activations == "checkpointed":
        model.activation_checkpointing_enable({"use_reentrant": False})
    parts, computing = None, contextlib.nullcontext()
    if not sharded and chosen.method == "full" and lm.model.dtype != torch.float32:
        computing = torch.autocast(accelerator.device.type, lm.model.dtype)
    if not (sharded or (chosen.method == "full" and not first)):
        with computing:
            parts = layers.parts(model, first, torch.tensor([rows[0][0]], device=accelerator.device))
    if parts and parts.apart:
        upper, inputs = parts.upper(model), _frozen_states(parts.lower(model), [ids for ids, _ in rows], lm.end, accelerator.device)
    else:
        upper, inputs = model, [torch.tensor(ids) for ids, _ in rows]
    at_once = LOGITS_AT_ONCE if chosen.activations == "checkpointed" else None
    module = _TargetLoss(upper, at_once).train()
    if sharded:
        sharding.shard(module, blocks, accelerator.device, lm.model.dtype if chosen.method == "full" else None)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=chosen.learning_rate,
                                  weight_decay=0.0)
    held = sharding.share(module)
    prepared = module if sharded else accelerator.prepare(module)
    kept = sharding.Checkpoints(folder.with_name(f"{folder.name}-training"), made_from, accelerator.is_main_process)
    rng = random.Random(seed)
    plan = [(epoch, batch) for epoch in range(settings.epochs(budget))
            for batch in shuffled_by_length([len(ids) for ids, _ in rows], chosen.batch_size, rng)]
    resumed, losses = kept.resume(module, optimizer) if chosen.checkpoint_steps else (0, [])
    accelerator.wait_for_everyone()
    for step, (epoch, batch) in enumerate(progress(plan[resumed:], desc=f"fine-tune to {direction}",
                                                         unit="step"), resumed):
        # Dropout differs by step and process, and is the same after a resumption.
        torch.manual_seed(seed + step * accelerator.num_processes + accelerator.process_index)
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * warm_up_and_decay(step, len(plan))
        total = sum(int((rows[index][1][1:] != IGNORED).sum()) for index in batch)
        # Every process takes its share of the same batch; with none left it takes one example at weight zero, since
        # all must join the exchange of gradients.
        mine = batch[accelerator.process_index:: accelerator.num_processes]
        weight = 1.0 if mine else 0.0
        mine = mine or batch[:1]
        pad = nn.utils.rnn.pad_sequence
        with sharding.in_step():
            with computing:
                loss = prepared(pad([inputs[index] for index in mine], batch_first=True).to(accelerator.device),
                                pad([rows[index][1] for index in mine], batch_first=True, padding_value=IGNORED
                                    ).to(accelerator.device)) * weight / total
            # Gradients are averaged over processes; the loss is already a share of the whole batch's mean.
            accelerator.backward(loss * accelerator.num_processes)
            optimizer.step()
            optimizer.zero_grad()
            losses.append((epoch + 1, step + 1, float(accelerator.reduce(loss.detach(), "sum"))))
        if chosen.checkpoint_steps and (step + 1) % chosen.checkpoint_steps == 0 and step + 1 < len(plan):
            kept.save(module, optimizer, step + 1, losses)
    weights = sharding.trained_weights(tuned)
    if accelerator.is_main_process:
        _write(folder, chosen.method, tuned, weights, losses, {
            "made_from": made_from, "vocabulary": written, "processes": accelerator.num_processes, "held": held,
            "resumed_at_step": resumed, "seconds": round(time.perf_counter() - start, 1)})
    kept.remove()
    accelerator.wait_for_everyone()


def _write(folder: Path, method: str, tuned: nn.Module, weights: dict[str, torch.Tensor], losses: list, record: dict) -> None:
    """Keep what was trained, whole or not at all."""
    with atomic_path(folder) as temporary:
        if method == "lora":
            tuned.save_pretrained(temporary, state_dict=weights, safe_serialization=True)
        else:
            temporary.mkdir()
            # Tied weights share memory, which the file format does not know.
            save_file({name: value.clone() for name, value in weights.items()}, temporary / WEIGHTS["full"])
        pd.DataFrame(losses, columns=["epoch", "step", "loss"]).to_csv(temporary / "losses.csv", index=False)
        write_json(temporary / "settings.json", {**record, "digest": digest(temporary / WEIGHTS[method])})


def _trainable(model: nn.Module, chosen: TeacherSettings, first: int) -> nn.Module:
    """Leave to be trained only what `teacher.method` says, from layer `first` on, in float32; the module whose weights are
    kept."""
    path = layers.stack(model)
    blocks = model.get_submodule(path) if path else nn.ModuleList()
    if chosen.method == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(
            r=chosen.lora_rank, lora_alpha=chosen.lora_alpha, lora_dropout=chosen.lora_dropout, task_type="CAUSAL_LM",
            target_modules=linear_names(model) or "all-linear",
            layers_to_transform=list(range(first, len(blocks))) or None))
    model.requires_grad_(not first)
    blocks[first:].requires_grad_(True)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear maps inside the decoder's layers: what LoRA is put on."""
    path = layers.stack(model)
    inside = model.get_submodule(path).named_modules() if path else []
    found = {name.rsplit(".", 1)[-1] for name, module in inside if isinstance(module, (nn.Linear, Conv1D))}
    # peft refuses the maps whose weights the fast kernels of state-space models read by themselves.
    alone = model.config.model_type in ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
    return sorted(found - {"out_proj"} if alone else found)


def warm_up_and_decay(step: int, steps: int, warm_up: float = 0.1) -> float:
    """Factor of the learning rate: up in a line over the first tenth of the steps, then down in a line to zero."""
    first = max(1, math.ceil(steps * warm_up))
    return (step + 1) / first if step < first else (steps - step) / max(1, steps - first + 1)


def shuffled_by_length(lengths: list[int], size: int, rng: random.Random, jitter: float = 6.0) -> list[list[int]]:
    """Batches of examples of about the same length, in random order, other ones each time.

    Sorting by length plus a random number of up to `jitter` tokens keeps padding low and mixes neighbours.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index] + rng.uniform(0, jitter))
    batches = [order[start: start + size] for start in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def _encoded(lm: LanguageModel, task: Task, example: Example, direction: Direction,
             longest: int) -> tuple[list[int], torch.Tensor]:
    """Token ids of prompt and target, and the targets alone; the prompt is cut first if both are too long."""
    before, after = training_text(task, example, direction)
    read, learned = lm.encode(before), lm.encode(after)
    if direction == "generate" or task.kind == "nlg":
        learned.append(lm.end)
    learned = learned[:longest - 2]
    room = longest - len(learned)
    if len(read) > room:
        # The end of a prompt names the output that is wanted; what goes is the end of the input before it.
        ending = lm.encode(f"\n{task.wording.output}:") if direction == "annotate" else []
        read = read[: room - len(ending)] + ending
    ids = read + learned
    return ids, torch.tensor([IGNORED] * len(read) + learned)


@torch.no_grad()
def _frozen_states(lower: layers.Lower, rows: list[list[int]], end: int, device: torch.device) -> list[torch.Tensor]:
    """Output of the frozen layers for each row, shape (length, hidden): computed once, read every epoch."""
    states: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for batch in language_model.by_length(rows, 16):
        ids, _ = language_model.padded([rows[index] for index in batch], end, left=False)
        # Padding on the right is never seen by a token before it, so no mask is needed.
        hidden = lower(input_ids=ids.to(device), use_cache=False)
        for number, index in enumerate(batch):
            states[index] = hidden[number, : len(rows[index])].clone()
    return states


def _launch(task: str, budget: int, direction: Direction, settings: Settings, processes: int) -> None:
    """Train in several processes of this machine.

    They are started by torchrun, whose environment accelerate reads. Its launcher for notebooks forks the process that it is
    called in, so it refuses one that has used a GPU.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise SettingsError(f"teacher.processes: {processes}, but this machine has {gpus} GPUs, and each process needs one: set "
                            f"teacher.processes={gpus}, or null for as many as there are.")
    job = {"task": task, "budget": budget, "direction": direction, "settings": settings.model_dump(mode="json")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
               str(processes), "-m", "synthtune.teacher", "--job", json.dumps(job)]
    placement.rest_all()
    done = subprocess.run(command, env=workers.environment(settings), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        said = workers.reason(done.stderr, done.returncode)
        raise StageError(f"Fine-tuning {task} in {processes} processes failed: {said} "
                         "Correct that, or set teacher.processes=1, and run again; finished work is kept.")


def with_adapter(lm: LanguageModel, adapter: Adapter, copied: bool = True) -> LanguageModel:
    """The model with what was trained in its weights: as fast as the model without it.

    Parameters
    ----------
    lm : LanguageModel
    adapter : Adapter
    copied : bool
        Leave `lm` as it is. Without a copy half the memory is needed, and `lm` is not to be used any more.
    """
    placement.rest(lm.model)  # a GPU may not hold it twice
    if adapter.vocabulary is not None:
        lm = language_model.writing_only(lm, adapter.vocabulary)
    model, changed = copy.deepcopy(lm.model) if copied else lm.model, adapter.folder / WEIGHTS["full"]
    if not copied:
        # A product's last digits depend on where in memory the weights begin: where a copy's do, not as in the file they are
        # mapped from.
        for weight in model.parameters():
            weight.data = weight.data.clone()
    if changed.exists():
        model.load_state_dict(load_file(changed), strict=False)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter.folder).merge_and_unload().eval()
    return LanguageModel(model, lm.tokenizer, lm.name, adapter.digest, lm.vocabulary)


def base(settings: Settings) -> LanguageModel | None:
    """The model that is fine-tuned; None where an endpoint does all that teachers do."""
    if settings.annotate.source == settings.generate.source == "endpoint":
        return None
    return language_model.load(settings.teacher.model, settings.format)


def ready(lm: LanguageModel | None, task: Task, budget: int, direction: Direction,
          settings: Settings) -> LanguageModel | Prompted:
    """The teacher that annotates or generates: fine-tuned on the gold examples of a budget, or prompted with a few of them.

    Parameters
    ----------
    lm : LanguageModel or None
        What `base` gives.
    task, budget, direction, settings
        As for `fine_tune`; `settings.annotate.source` and `settings.generate.source` say which it is.
    """
    settings = settings.check(task.name, budget)
    if getattr(settings, direction).source != "endpoint":
        return with_adapter(lm, fine_tune(lm, task, budget, direction, settings))
    from synthtune.models.endpoint import Prompted  # its client library takes a second to import, and few ask

    return Prompted(task, budget, settings)


def answers(lm: LanguageModel | Prompted, task: Task, texts: list[str], settings: Settings, prefix: str = "",
            description: str = "answer") -> tuple[list[str], list[float], torch.Tensor | None]:
    """The model's output for each input text: the likeliest label, or the text it writes greedily.

    A prompted model's log-probabilities are not known; see `endpoint.Prompted.answers`.

    Returns
    -------
    outputs : list of str
    log_probabilities : list of float
        Of each output given its input. For classification it is normalised over the labels.
    label_log_probabilities : Tensor of shape (texts, labels), or None for NLG
    """
    if not isinstance(lm, LanguageModel):
        return lm.answers(texts)
    cut = [_cut_prompt(lm, task, text, settings.teacher.max_tokens) for text in texts]
    if task.kind == "classification":
        scores = language_model.score_labels(lm, cut, [ended(task, label) for label in task.labels], prefix, settings.annotate.batch_size,
                                             description).log_softmax(-1)
        best = scores.argmax(-1).tolist()
        return [task.labels[index] for index in best], scores.max(-1).values.tolist(), scores
    written, sums, _ = language_model.write(
        lm, cut, settings.annotate.max_new_tokens, prefix, settings.generate.batch_size, stop="\n",
        engine=settings.generate.engine, description=description)
    return written, sums, None


def _cut_prompt(lm: LanguageModel, task: Task, text: str, longest: int) -> str:
    """The prompt of a text, the text cut so that the prompt has at most `longest` tokens."""
    whole = prompt(task, text)
    extra = len(lm.encode(whole)) - longest
    if extra <= 0:
        return whole
    kept = lm.encode(text)[:-extra]
    return prompt(task, lm.tokenizer.decode(kept))


def evaluate(lm: LanguageModel, task: Task, budget: int, settings: Settings, system: str = SYSTEM,
             prefix: str = "") -> dict:
    """One row of `teacher.parquet`: how well a model does on the test set."""
    settings = settings.check(task.name, budget)
    chosen = settings.teacher
    examples = list(task.test[: chosen.test_examples if system == SYSTEM else chosen.prompted_examples])
    start = time.perf_counter()
    predicted, _, _ = answers(lm, task, [example.text for example in examples], settings, prefix, f"test, {system}")
    return _row(task, budget, system, settings, task.score(examples, predicted), time.perf_counter() - start,
                lm.name, lm.digest, sum(weight.numel() for weight in lm.model.parameters()))


def prompted(lm: LanguageModel, task: Task, budget: int, settings: Settings) -> list[dict]:
    """Rows for the model before fine-tuning, prompted with no and with a few gold examples (and for an endpoint).

    They do not depend on the budget beyond the examples shown, so they are measured at the smallest one only.
    """
    settings = settings.check(task.name, budget)
    if budget != settings.budgets[0]:
        return []
    from synthtune.models import endpoint  # its client library takes a second to import, and few ask

    shots = endpoint.draw_shots(task.gold(budget), settings.teacher.shots, seed_for(settings, task.name, "shots"),
                                task.labels)
    rows = [evaluate(lm, task, budget, settings, "prompted, 0-shot", few_shot_prefix(task, []))]
    if shots:
        rows.append(evaluate(lm, task, budget, settings, f"prompted, {len(shots)}-shot", few_shot_prefix(task, shots)))
    return rows + _endpoint_rows(task, budget, settings)


def _endpoint_rows(task: Task, budget: int, settings: Settings) -> list[dict]:
    server = settings.endpoint
    if server is None:
        return []
    from synthtune.models.endpoint import Prompted

    examples, rows = list(task.test[: server.max_test_examples]), []
    for count in server.shots:
        start = time.perf_counter()
        predicted, _, _ = Prompted(task, budget, settings, count).answers([example.text for example in examples])
        rows.append(_row(task, budget, f"{server.name}, {count}-shot", settings, task.score(examples, predicted),
                         time.perf_counter() - start, server.model, ""))
    return rows


def _row(task: Task, budget: int, system: str, settings: Settings, scores: dict, seconds: float, model: str,
         model_digest: str, parameters: float = math.nan) -> dict:
    empty = dict.fromkeys(("accuracy", "macro_f1", "bleu", "chrf", "rouge_l"), math.nan)
    return {"task": task.name, "kind": task.kind, "budget": budget, "system": system, "model": model,
            "number_format": settings.format if model_digest else "", "device": device_name() if model_digest else "", **empty, **scores,
            "seconds": round(seconds, 2), "parameters": parameters, "data_digest": task.digest, "model_digest": model_digest,
            "settings_digest": settings.stage_digest("teacher", task.name, budget),
            "settings": json.dumps(settings.for_stage("teacher", task.name), sort_keys=True)}


def save(rows: list[dict], task: Task, budget: int, settings: Settings) -> pd.DataFrame:
    """Write `teacher.parquet` and return it."""
    table = pd.DataFrame(rows)
    with atomic_path(settings.folder_of(task.name, budget) / "teacher.parquet") as temporary:
        table.to_parquet(temporary)
    return table


def _job(arguments: list[str]) -> dict:
    """What a training process is to do: as `_launch` says it in JSON, or as a person does in a shell.

        accelerate launch --num_machines 2 … -m synthtune.teacher --profile paper --task rte --budget 125 --direction annotate
    """
    parser = argparse.ArgumentParser(prog="python -m synthtune.teacher", description="One of several processes that "
                                     "fine-tune a teacher together.")
    parser.add_argument("--job", type=json.loads, help="all of it, as JSON")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    parser.add_argument("--run-dir", default="", metavar="DIR", help="folder of the run, which all machines see")
    parser.add_argument("--data-root", default="", metavar="DIR")
    parser.add_argument("--task")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--direction", choices=get_args(Direction))
    given = parser.parse_args(arguments)
    if given.job:
        return {**given.job, "settings": Settings(**given.job["settings"])}
    missing = [name for name in ("task", "budget", "direction") if getattr(given, name) is None]
    if missing:
        parser.error(f"say --{missing[0]} as well")
    settings = load_settings(given.profile, given.overrides, given.run_dir, given.data_root)
    return {"task": given.task, "budget": given.budget, "direction": given.direction,
            "settings": settings.check(given.task, given.budget)}


def train(task: str, budget: int, direction: Direction, settings: Settings) -> None:
    """Fine-tune in each of the processes that accelerate has started; `fine_tune` then takes what they have left.

        notebook_launcher(teacher.train, ("rte", 125, "annotate", settings), num_processes=8)

    does in a notebook what `accelerate launch -m synthtune.teacher` does in a shell, of one machine or several. `fine_tune` needs
    neither: it starts the processes itself, also from a notebook that has used a GPU, which `notebook_launcher` refuses.

    Parameters
    ----------
    task : str
        Its name.
    budget, direction, settings
        As for `fine_tune`; the number of processes is the launcher's.
    """
    from accelerate import PartialState

    from synthtune.scale import sharding

    settings = settings.check(task, budget)
    torch.set_num_threads(settings.threads)
    # Makes this process's own GPU the current one, where there are any.
    state = PartialState(cpu=device() == "cpu", timeout=sharding.PATIENCE)
    shapes_only = settings.teacher.sharding == "sharded" and not state.is_main_process
    lm = language_model.load(settings.teacher.model, settings.format, shapes_only)
    _train(lm, load_task(task, settings), budget, direction, settings, adapter_folder(settings, task, budget, direction))


if __name__ == "__main__":
    workers.end_with_starter()
    train(**_job(sys.argv[1:]))
