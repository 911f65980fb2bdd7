"""Fine-tuning a language model on prompts and targets, in one process or several.

LoRA (Hu et al. 2022), or all weights above the frozen layers. Layers below the first trained one give the same hidden states in
every epoch, so they read each example once.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from synthtune.files import atomic_path, digest, write_json
from synthtune.models import language_model, layers, placement
from synthtune.models.language_model import LanguageModel
from synthtune.number_format import device
from synthtune.progress import progress
from synthtune.scale.model_cost import LOGITS_AT_ONCE
from synthtune.settings import TeacherSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from synthtune.scale.sharding import Checkpoints

# peft asks models for an attribute by the name that transformers is about to drop; nothing here depends on the answer.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

# peft, accelerate and PyTorch's distributed training are imported where they are used: students need none of them, and
# together they take seconds.
# Target of a token that is not to be learned.
IGNORED = -100
# File of what was trained, by `teacher.method`.
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "trained.safetensors"}

# Token ids of prompt and target, and as many targets: `IGNORED` for the prompt's.
Row = tuple[list[int], torch.Tensor]


class TargetLoss(nn.Module):
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


def _vocabulary(lm: LanguageModel, rows: Sequence[Row], commonest: int) -> dict:
    """The tokens that the generating teacher writes: the commonest ones, all of gold's, and the end.

    Byte-pair encoding numbers tokens in the order of its merges (Sennrich et al. 2016), which is that of their
    frequency in what the tokenizer was trained on: the commonest are the first. Words that need others are spelled in
    pieces.
    """
    used = {token for ids, _ in rows for token in ids} | {lm.end}
    return {"commonest": commonest, "besides": sorted(token for token in used if token >= commonest)}


def tokens(written: dict) -> torch.Tensor:
    return torch.cat([torch.arange(written["commonest"]), torch.tensor(written["besides"], dtype=torch.long)])


@dataclass
class _Assembled:
    """A model made ready for training.

    Attributes
    ----------
    module : nn.Module
        Gives the summed loss of a batch; holds what is trained.
    tuned : nn.Module
        The module whose trained weights are kept.
    inputs : list of Tensor
        Of each example its token ids, (length,), or its hidden states below the trained layers, (length, hidden).
    computing : context manager
        In which the loss is computed.
    """

    module: nn.Module
    tuned: nn.Module
    inputs: list[torch.Tensor]
    computing: contextlib.AbstractContextManager


def train(lm: LanguageModel, rows: list[Row], chosen: TeacherSettings, epochs: int, seed: int, folder: Path,
          fingerprint: dict[str, Any], objective: str) -> None:
    """Train in this process, which may be one of several; the first one writes `folder`.

    What is trained is float32, its gradients and moments too, since updates are smaller than the steps of bfloat16. The
    rest, and what is computed, is in the format of `lm`: copies of the weights in that format are made as they are needed. On
    processors and in sharded training peft computes LoRA's adapters alone in float32.

    Parameters
    ----------
    lm : LanguageModel
        Left as it is, but for sharded training.
    rows : list of Row
    chosen : TeacherSettings
    epochs, seed : int
    folder : Path
        Gets the weights, `losses.csv` and `settings.json`; an interrupted training goes on from checkpoints beside it.
    fingerprint : dict
        All that the result depends on.
    objective : str
        "generate" trains, with `teacher.vocabulary`, an output layer that knows the commonest tokens only.
    """
    from accelerate import Accelerator

    from synthtune.scale import sharding

    start, accelerator = time.perf_counter(), Accelerator(cpu=device() == "cpu")
    placement.offload_all()
    torch.manual_seed(seed)
    vocabulary = None
    if objective == "generate" and chosen.vocabulary and chosen.vocabulary < lm.model.config.vocab_size:
        vocabulary = _vocabulary(lm, rows, chosen.vocabulary)
        lm = language_model.with_vocabulary(lm, tokens(vocabulary))
        # Targets are the rows of the output layer from here on.
        rows = [(ids, torch.where(targets == IGNORED, targets, torch.searchsorted(lm.vocabulary, targets.clamp(min=0))))
                for ids, targets in rows]
    ready = _assembled(lm, rows, chosen, accelerator)
    held = sharding.share(ready.module)
    checkpoints = sharding.Checkpoints(folder.with_name(f"{folder.name}-training"), fingerprint, accelerator)
    losses, resumed = _steps(ready, rows, chosen, epochs, seed, accelerator, checkpoints, objective)
    weights = sharding.trained_weights(ready.tuned)
    if accelerator.is_main_process:
        _write(folder, chosen.method, ready.tuned, weights, losses, {
            "made_from": fingerprint, "vocabulary": vocabulary, "processes": accelerator.num_processes, "held": held,
            "resumed_at_step": resumed, "seconds": round(time.perf_counter() - start, 1)})
    checkpoints.remove()
    accelerator.wait_for_everyone()


def _assembled(lm: LanguageModel, rows: Sequence[Row], chosen: TeacherSettings, accelerator: Accelerator) -> _Assembled:
    """Copy the model to its device, leave to be trained what the settings say, and read the examples by the frozen layers."""
    from synthtune.scale import sharding

    sharded, full, on = chosen.sharding == "sharded", chosen.method == "full", accelerator.device
    model = lm.model if sharded else copy.deepcopy(lm.model).to(on)
    if on.type == "cpu" and model.dtype == torch.bfloat16:
        # On processors the backward pass of PyTorch's fused attention takes five times as long in bfloat16 as that of its
        # parts. It is not faster in float32 either, but there it needs less memory.
        model.set_attn_implementation("eager")
    blocks = _blocks(model)
    first = min(chosen.frozen_layers, len(blocks) - 1) if len(blocks) else 0
    tuned = trainable(model, chosen, first)
    if chosen.activations == "checkpointed":
        model.activation_checkpointing_enable({"use_reentrant": False})
    parts, computing = None, contextlib.nullcontext()
    if not sharded and (full or on.type == "cuda") and lm.model.dtype != torch.float32:
        computing = multiplied_in(lm.model.dtype, tuned, on)
    if not (sharded or (full and not first)):
        with computing:
            parts = layers.parts(model, first, torch.tensor([rows[0][0]], device=on))
    if parts and parts.apart:
        upper, inputs = parts.upper(model), _frozen_states(parts.lower(model), [ids for ids, _ in rows], lm.end, on)
    else:
        upper, inputs = model, [torch.tensor(ids) for ids, _ in rows]
    module = TargetLoss(upper, LOGITS_AT_ONCE if chosen.activations == "checkpointed" else None).train()
    if sharded:
        sharding.shard(module, blocks, on, lm.model.dtype if full else None)
    return _Assembled(module, tuned, inputs, computing)


def _steps(ready: _Assembled, rows: Sequence[Row], chosen: TeacherSettings, epochs: int, seed: int, accelerator: Accelerator,
           checkpoints: Checkpoints, objective: str) -> tuple[list[tuple[int, int, float]], int]:
    """All optimizer steps that are left; (epoch, step, loss) of all of them, and at which step training was taken up."""
    from synthtune.scale import sharding

    module, pad = ready.module, nn.utils.rnn.pad_sequence
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=chosen.learning_rate, weight_decay=0.0)
    prepared = module if chosen.sharding == "sharded" else accelerator.prepare(module)
    rng = random.Random(seed)
    plan = [(epoch, batch) for epoch in range(epochs)
            for batch in shuffled_by_length([len(ids) for ids, _ in rows], chosen.batch_size, rng)]
    resumed, losses = checkpoints.resume(module, optimizer) if chosen.checkpoint_steps else (0, [])
    accelerator.wait_for_everyone()
    for step, (epoch, batch) in enumerate(progress(plan[resumed:], desc=f"fine-tune to {objective}", unit="step"), resumed):
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
        with sharding.in_step():
            with ready.computing:
                loss = prepared(pad([ready.inputs[index] for index in mine], batch_first=True).to(accelerator.device),
                                pad([rows[index][1] for index in mine], batch_first=True, padding_value=IGNORED
                                    ).to(accelerator.device)) * weight / total
            # Gradients are averaged over processes; the loss is already a share of the whole batch's mean.
            accelerator.backward(loss * accelerator.num_processes)
            optimizer.step()
            optimizer.zero_grad()
            losses.append((epoch + 1, step + 1, float(accelerator.reduce(loss.detach(), "sum"))))
        if chosen.checkpoint_steps and (step + 1) % chosen.checkpoint_steps == 0 and step + 1 < len(plan):
            checkpoints.save(module, optimizer, step + 1, losses)
    return losses, resumed


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


def _blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder's layers; none where they cannot be told."""
    path = layers.stack(model)
    return model.get_submodule(path) if path else nn.ModuleList()


def trainable(model: nn.Module, chosen: TeacherSettings, first: int) -> nn.Module:
    """Leave to be trained only what `teacher.method` says, from layer `first` on, in float32; the module whose weights are
    kept."""
    blocks = _blocks(model)
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


def multiplied_in(dtype: torch.dtype, tuned: nn.Module, on: torch.device) -> torch.autocast:
    """Where float32 weights, those of adapters too, are multiplied in `dtype`.

    Else peft copies what an adapter reads to float32, and what it gives back: a fifth of an H200's time (`benchmarks/gpu`).
    """
    for part in tuned.modules():
        if hasattr(part, "cast_input_dtype_enabled"):
            part.cast_input_dtype_enabled = False
    return torch.autocast(on.type, dtype)


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear maps inside the decoder's layers: what LoRA is put on."""
    found = {name.rsplit(".", 1)[-1] for name, module in _blocks(model).named_modules() if isinstance(module, (nn.Linear, Conv1D))}
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


@torch.no_grad()
def _frozen_states(lower: Callable[..., torch.Tensor], rows: list[list[int]], end: int, device: torch.device) -> list[torch.Tensor]:
    """Output of the frozen layers for each row, shape (length, hidden): computed once, read every epoch."""
    states: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for batch in language_model.by_length(rows, 16):
        ids, _ = language_model.padded([rows[index] for index in batch], end, left=False)
        # Padding on the right is never seen by a token before it, so no mask is needed.
        hidden = lower(input_ids=ids.to(device), use_cache=False)
        for number, index in enumerate(batch):
            states[index] = hidden[number, : len(rows[index])].clone()
    return states
