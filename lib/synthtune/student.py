"""The student: a small model trained on gold and synthetic examples, one run of it for each cell of the study."""

from __future__ import annotations

import abc
import contextlib
import copy
import json
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.encoder_decoder.modeling_encoder_decoder import shift_tokens_right
from transformers.utils import logging as transformers_logging

from synthtune import number_format
from synthtune.analysis.metrics import joined_labels, label_sets
from synthtune.analysis.results import ANNOTATED, BOTH, FULL, GENERATED, GOLD, HARD
from synthtune.errors import AssetError, SettingsError, StageError
from synthtune.files import atomic_path, digest
from synthtune.models import assets, layers
from synthtune.models.language_model import by_length, tokenizer_of
from synthtune.progress import progress
from synthtune.scale import workers
from synthtune.settings import Settings
from synthtune.tasks import Task
from synthtune.tasks.example import log_probability
from synthtune.teacher import IGNORED, shuffled_by_length, warm_up_and_decay

ROUTES = {"annotate": "annotated", "generate": "generated"}
"""The routes to synthetic examples, by the objective of the teacher that each takes."""
NEVER = -1e4
"""Logit of a word piece that a writer has never written: its probability is zero."""
NEARLY = 0.9
"""Share of an amount that is as good as the amount."""
PLAIN = {"min_length": 0, "no_repeat_ngram_size": 0}
"""How a pretrained writer writes; the published settings of BART are those of summaries: beams, and no three words twice."""
MARKS = "αβγδεζηθικλμ"
"""Placeholders of values: word pieces of their own in BERT's vocabulary, and in few texts."""
OF_CLASSIFIERS = {"pooling", "class_weight"}
"""Settings that a seq2seq student does not read."""
NOT_OF_A_CELL = {"seeds", "seeds_larger", "seeds_full", "sweep", "processes"}
"""Settings of the students that say which cells there are and how they are run, not what one of them is."""


@dataclass(frozen=True)
class Cell:
    """One student run: task × budget × condition × amount × seed."""

    budget: int
    condition: str
    amount: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """A student, which of its tokenizer's word pieces it writes (all, in their order, if None), and from which probability on it
    says each of several labels (the likeliest set of those that are there, if None)."""

    model: PreTrainedModel
    pieces: list[int] | None = None
    thresholds: torch.Tensor | None = None


@dataclass(frozen=True)
class Row:
    """One training example of a student: text, output and, where a classifier learns from it, the distribution over labels."""

    text: str
    output: str
    soft: tuple[float, ...] | None = None


def cells(task: Task, settings: Settings) -> list[Cell]:
    """The cells of a task, in the order in which they are run.

    Each route with all that it gave, at every budget and seed; half of each, as many as the smaller route gave; the ceiling;
    and, at the smallest budget, what figures 5 and 6 and the claims compare there besides: annotated examples at smaller
    amounts (NLG), as many as the smaller route gave, and these with hard labels (classification). A route that gave nothing
    is no condition; one that gave nearly as little as the other is cut to as many.

    Raises
    ------
    StageError
        If the annotated or generated examples of a budget have not been made.
    """
    settings = settings.check(task.name)
    there = {}
    for budget in settings.budgets:
        folder = settings.folder_of(task.name, budget)
        there[budget] = {made: len(synthetic(folder / f"{made}.parquet")) for made in routes(budget, settings)}
    return cells_given(there, len(task.pool), task.kind, settings)


def cells_given(there: dict[int, dict[str, int]], pool: int, kind: str, settings: Settings) -> list[Cell]:
    """The cells of a task of which so many examples are there: by budget, and then by route."""
    chosen, found = settings.students, []
    smallest = settings.budgets[0]
    for budget in settings.budgets:
        seeds = chosen.seeds if budget == smallest else chosen.seeds_larger
        most = {route: there[budget].get(route, 0) for route in ROUTES.values()}
        equal = min(most.values())
        if equal >= NEARLY * max(most.values()):
            most = dict.fromkeys(most, equal)
        wanted = [(GOLD, 0), (ANNOTATED, most["annotated"]), (GENERATED, most["generated"]), (BOTH, equal)]
        if budget == smallest:
            wanted.append((ANNOTATED, equal))
            # A prompted model's labels are hard in any case.
            if kind == "classification" and chosen.synthetic_labels == "soft" and settings.annotate.source != "endpoint":
                wanted.append((HARD, equal))
        found += [Cell(budget, condition, amount, seed) for seed in seeds for condition, amount in wanted
                  if amount or condition == GOLD]
    found += [Cell(pool, FULL, 0, seed) for seed in chosen.seeds_full]
    if kind == "nlg":
        most = there[smallest]["annotated"]
        found += [Cell(smallest, ANNOTATED, min(amount, most), seed)
                  for seed in chosen.seeds_larger for amount in chosen.sweep if most]
    return list(dict.fromkeys(found))


def routes(budget: int, settings: Settings) -> list[str]:
    """The routes that give synthetic examples at a budget."""
    return [ROUTES[objective] for objective in settings.objectives(budget)]


def training_rows(task: Task, cell: Cell, settings: Settings) -> tuple[list[Row], dict[str, int]]:
    """The examples a cell trains on, and how many of each kind.

    Raises
    ------
    StageError
        If the annotated or generated examples it needs have not been made.
    """
    if cell.condition == FULL:
        rows = [Row(example.text, example.target) for example in task.pool]
        return rows, {"n_gold": len(rows), "n_annotated": 0, "n_generated": 0}
    gold = [Row(example.text, example.target) for example in task.gold(cell.budget)]
    folder = settings.folder_of(task.name, cell.budget)
    soft = task.labels if settings.students.synthetic_labels == "soft" and cell.condition != HARD else ()
    # The annotator has no say in pairs that keep the label they were sampled with.
    labels = (soft, () if settings.generate.labels == "raw" else soft)
    annotated, generated = [
        synthetic_rows(synthetic(folder / f"{route}.parquet").head(number), of, settings) if number else []
        for route, number, of in zip(ROUTES.values(), shares(cell).values(), labels, strict=True)]
    return gold + annotated + generated, {"n_gold": len(gold), "n_annotated": len(annotated),
                                          "n_generated": len(generated)}


def shares(cell: Cell) -> dict[str, int]:
    """How many examples of each route a cell trains on, the first that were kept."""
    half = cell.amount // 2
    annotated, generated = {ANNOTATED: (cell.amount, 0), HARD: (cell.amount, 0), GENERATED: (0, cell.amount),
                            BOTH: (cell.amount - half, half)}.get(cell.condition, (0, 0))
    return {"annotated": annotated, "generated": generated}


def synthetic(path: Path) -> pd.DataFrame:
    """Synthetic pairs a student can be trained on: what is kept of the table that annotation or generation wrote."""
    if not path.exists():
        raise StageError(f"{path} is missing: run 0{2 if 'annotated' in path.name else 3} for this budget first.")
    table = pd.read_parquet(path)
    return table[table["dropped"] == ""]


def synthetic_rows(kept: pd.DataFrame, labels: Sequence[str], settings: Settings) -> list[Row]:
    """Synthetic pairs as training examples, with soft labels if the labels are given.

    A soft label is the annotating teacher's distribution over the labels, softmax(log P / temperature) (Hinton et al. 2015).
    """
    soft: Sequence[Any] = [None] * len(kept)
    if labels:
        logs = torch.tensor(kept[[*map(log_probability, labels)]].to_numpy(float)) / settings.students.temperature
        soft = [tuple(row) for row in logs.softmax(-1).tolist()]
    return [Row(*row) for row in zip(kept["text"], kept["output"], soft, strict=True)]


def run_cells(task: Task, settings: Settings, wanted: Sequence[Cell] | None = None) -> pd.DataFrame:
    """Run every cell of a task that has not been run, and write `results.parquet`.

    Each cell is kept as soon as it is done, under `<task>/cells`, named by the digest of all it depends on: an
    interrupted run loses at most the cell in flight, and a changed setting or example runs again what it changes.

    Parameters
    ----------
    task : Task
    settings : Settings
    wanted : sequence of Cell, optional
        At least one of them; all of `cells` if not given.

    Returns
    -------
    DataFrame
        One row per cell, in the order of `cells` or `wanted`.
    """
    settings = settings.check(task.name)
    plan = _plan(task, settings, cells(task, settings) if wanted is None else wanted)
    processes = workers.number_of(settings.students.processes)
    if processes > 1 and wanted is None and not all(planned.kept.exists() for planned in plan):
        workers.share("students", task.name, settings.budgets[0], settings, processes)
    _run(task, settings, plan, plan)
    table = pd.concat([pd.read_parquet(planned.kept) for planned in plan], ignore_index=True)
    with atomic_path(settings.folder / task.name / "results.parquet") as temporary:
        table.to_parquet(temporary)
    return table


def run_share(task: Task, settings: Settings, rank: int, processes: int) -> None:
    """Run one process's share of a task's cells."""
    settings = settings.check(task.name)
    plan = _plan(task, settings, cells(task, settings))
    _run(task, settings, plan, plan[rank::processes])


@dataclass(frozen=True)
class _Planned:
    """A cell, what it trains on, what its result depends on, and where that is kept."""

    cell: Cell
    rows: list[Row]
    counts: dict[str, int]
    made_from: dict
    kept: Path


def _plan(task: Task, settings: Settings, wanted: Sequence[Cell]) -> list[_Planned]:
    plan = []
    for cell in wanted:
        rows, counts = training_rows(task, cell, settings)
        made_from = depends_on(task, cell, rows, settings)
        kept = settings.folder / task.name / "cells" / f"{digest(made_from)[:24]}.parquet"
        plan.append(_Planned(cell, rows, counts, made_from, kept))
    return plan


def steps(task: Task, cell: Cell, rows: Sequence[Row], settings: Settings) -> int:
    """Optimizer steps of a cell: as many as its examples take by the settings.

    Gold alone takes as many as with all annotated examples of its budget: no gain is owed to longer training.
    """
    number, annotated = len(rows), settings.folder_of(task.name, cell.budget) / "annotated.parquet"
    if cell.condition == GOLD and annotated.exists():
        number += len(synthetic(annotated))
    return settings.steps(number)


def depends_on(task: Task, cell: Cell, rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """All that a cell's result depends on, as plain JSON: the same again, and it need not be run again."""
    unread = NOT_OF_A_CELL if task.kind == "classification" else NOT_OF_A_CELL | OF_CLASSIFIERS
    return {"cell": asdict(cell), "data": digest([asdict(row) for row in rows]), "task": task.digest,
            "settings": settings.students.model_dump(mode="json", exclude=unread, exclude_none=True),
            "steps": steps(task, cell, rows, settings), "threads": settings.threads, "number_format": settings.format,
            "model": assets.digest(settings.students.model)}


def _run(task: Task, settings: Settings, plan: list[_Planned], mine: list[_Planned]) -> None:
    """Run those of a plan's cells that have not been run and are `mine`."""
    bench, texts, once = None, [example.text for example in task.test], 0.0
    for planned in progress(mine, desc="students", unit="cell"):
        if planned.kept.exists():
            continue
        if bench is None:
            bench = Bench.of(task, settings)
            # Those of other cells too: in other batches a text's last digits differ, and a run that was interrupted, or
            # shared by several processes, is to end with the numbers of a whole one.
            bench.read([row.text for each in plan for row in each.rows])
            start = time.perf_counter()
            bench.read(texts)
            once = time.perf_counter() - start
        start = time.perf_counter()
        trained = bench.train(planned.rows, planned.cell)
        answering = time.perf_counter()
        predicted, _ = bench.predict(trained, texts)
        end = time.perf_counter()
        timed = {"train_seconds": round(end - start, 2), "answer_seconds": round(1000 * (once + end - answering) / len(texts), 2),
                 "parameters": bench.parameters(trained)}
        row = _result(task, planned.cell, planned.counts, settings, task.score(list(task.test), predicted), timed,
                      planned.made_from)
        with atomic_path(planned.kept) as temporary:
            pd.DataFrame([row]).to_parquet(temporary)


def _result(task: Task, cell: Cell, counts: dict[str, int], settings: Settings, scores: dict, timed: dict,
            made_from: dict) -> dict:
    empty = dict.fromkeys(("accuracy", "macro_f1", "bleu", "chrf", "rouge_l"), math.nan)
    return {"task": task.name, "kind": task.kind, **asdict(cell), **counts, **empty, **scores,
            **timed, "number_format": made_from["number_format"],
            "device": number_format.device_name(), "data_digest": made_from["data"], "model": settings.students.model,
            "model_digest": made_from["model"], "settings_digest": digest(made_from["settings"]),
            "settings": json.dumps(settings.for_stage("students", task.name), sort_keys=True)}


class Bench(abc.ABC):
    """What all cells of a task share: the pretrained student, its tokenizer, and the frozen layers' outputs.

    Frozen layers give the same hidden states for a text in every epoch of every cell, so each text is read by them
    once. The states wait in the machine's memory: those of all texts may be more than a GPU holds.

    Weights, gradients, the optimizer's moments and losses are float32, whatever the pretrained student is kept in:
    some are published in float16, in which small updates are lost and large ones are not numbers. In bfloat16 only the
    products of matrices are computed, where `settings.format` says so.
    """

    lower: Callable[..., torch.Tensor] | None = None
    """The frozen layers: token ids in, hidden states out. None if texts are read whole each time."""

    def __init__(self, task: Task, settings: Settings) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.task, self.settings, self.chosen = task, settings.resolved(), settings.students
        self.path = assets.model_path(self.chosen.model)
        self.tokenizer = tokenizer_of(self.chosen.model)
        self.device = torch.device(number_format.device())
        self.states: dict[str, torch.Tensor] = {}

    def computing(self, training: bool = False) -> contextlib.AbstractContextManager:
        """Where students read, learn and write: matrices are multiplied in the settings' number format."""
        return number_format.computing(self.settings.format, self.device, training)

    @staticmethod
    def of(task: Task, settings: Settings) -> Bench:
        if task.kind == "classification":
            return _Classifier(task, settings)
        config = AutoConfig.from_pretrained(assets.model_path(settings.students.model))
        if not config.is_encoder_decoder and config.model_type != "bert":
            raise AssetError(f"students.model: {settings.students.model} ({config.model_type}) does not write texts, and {task.name} "
                             "needs a student that does: name a seq2seq model (BART, T5, mBART, Pegasus) or a BERT encoder.")
        return (_PretrainedWriter if config.is_encoder_decoder else _Writer)(task, settings)

    def marked(self, text: str) -> tuple[str, dict[str, str]]:
        """A text as it is read, and the value of each placeholder in it; see `marked`."""
        values = self.task.values(text) if self.chosen.values == "copied" else []
        marks = dict(zip((mark for mark in MARKS if mark not in text.lower()), values, strict=False))
        return marked(text, marks), marks

    def marked_rows(self, rows: Sequence[Row]) -> list[Row]:
        """Training examples with placeholders for values, in inputs and in outputs."""
        found = []
        for row in rows:
            text, marks = self.marked(row.text)
            found.append(Row(text, marked(row.output, marks), row.soft))
        return found

    def read(self, texts: Sequence[str]) -> None:
        """Run the frozen layers on the texts that they have not read yet."""
        self.read_marked([self.marked(text)[0] for text in texts])

    def read_marked(self, texts: Sequence[str]) -> None:
        """The same for texts whose values are placeholders."""
        new = list(dict.fromkeys(text for text in texts if text not in self.states))
        rows = self.tokenizer(new, truncation=True, max_length=self.chosen.max_tokens)["input_ids"] if new else []
        if self.lower is None:
            self.states.update((text, torch.tensor(row)) for text, row in zip(new, rows, strict=True))
            return
        with torch.inference_mode(), self.computing():
            for batch in by_length(rows, 32):
                fed = self.tokenizer.pad({"input_ids": [rows[index] for index in batch]}, return_tensors="pt")
                hidden = self.lower(**{name: fed[name].to(self.device) for name in ("input_ids", "attention_mask")}).float().cpu()
                for number, index in enumerate(batch):
                    self.states[new[index]] = hidden[number, : len(rows[index])].clone()

    def batch(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of texts side by side, (batch, length, hidden), or, if no layer is read ahead of time, their token ids,
        (batch, length), and their mask, (batch, length)."""
        states = [self.states[text] for text in texts]
        mask = pad_sequence([torch.ones(len(state), dtype=torch.long) for state in states], batch_first=True)
        padding = 0 if self.lower else self.tokenizer.pad_token_id
        return pad_sequence(states, batch_first=True, padding_value=padding).to(self.device), mask.to(self.device)

    def fit(self, module: nn.Module, rows: list[Row], cell: Cell, loss) -> None:
        """AdamW with warm-up and linear decay, for as many steps as `steps` says.

        `loss` maps a batch of rows to the summed loss of each and to the number of its predictions, each of shape
        (batch,). Every prediction counts alike: were every text to, then the words of short texts would count more than
        those of long ones, and writers would learn to stop early.
        """
        chosen = self.chosen
        number = steps(self.task, cell, rows, self.settings)
        head = set(self.head(module).parameters()) if chosen.head_learning_rate else set()
        groups = [{"params": [p for p in module.parameters() if p.requires_grad and (p in head) == new], "peak": peak}
                  for new, peak in ((False, chosen.learning_rate), (True, chosen.head_learning_rate))]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01, fused=True)
        rng = random.Random(cell.seed)
        lengths = [len(self.states[row.text]) for row in rows]
        waiting: list[list[int]] = []
        module.train()
        for step in progress(range(number), desc=f"{cell.condition}, {cell.budget}, seed {cell.seed}", unit="step"):
            waiting = waiting or shuffled_by_length(lengths, chosen.batch_size, rng)
            batch = [rows[index] for index in waiting.pop()]
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warm_up_and_decay(step, number)
            with self.computing(training=True):  # the backward pass too: its products follow the same switch
                sums, numbers = loss(batch)
                (sums.sum() / numbers.sum()).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        module.eval()

    def encoder(self) -> PreTrainedModel:
        """The pretrained student without what it was pretrained to say."""
        return AutoModel.from_pretrained(self.path, add_pooling_layer=False, dtype=torch.float32).eval()

    def parameters(self, trained: Trained) -> int:
        """Weights of a student, those of its frozen layers and embeddings included."""
        return trained.model.num_parameters()

    def head(self, module: nn.Module) -> nn.Module:
        """What of a student starts from random weights: nothing, if a task's kind does not say otherwise."""
        return nn.Module()

    def word_losses(self, logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A writer's loss for `fit`, from logits (batch, length, vocabulary) and word pieces (batch, length)."""
        each = functional.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none",
                                        label_smoothing=self.chosen.label_smoothing)
        return each.sum(1), (wanted != IGNORED).sum(1)

    def written(self, model: PreTrainedModel, texts: Sequence[str], read: Callable[[list[str]], dict[str, Any]], size: int,
                scored: bool, **options: Any) -> tuple[list[list[int]], torch.Tensor | None]:
        """What a writer writes, greedily: ids for each text, and the mean log-probability of those up to its end."""
        rows, sure = [[]] * len(texts), torch.zeros(len(texts)) if scored else None
        for batch in by_length([self.states[text] for text in texts], size):
            given = read([texts[index] for index in batch])
            with self.computing():
                out = model.generate(**given, do_sample=False, num_beams=1, max_new_tokens=self.chosen.max_new_tokens,
                                     return_dict_in_generate=True, output_scores=scored, **options)
            for index, row in zip(batch, out.sequences.tolist(), strict=True):
                rows[index] = row
            if scored:
                sure[batch] = sureness(out.sequences, out.scores, model.generation_config.eos_token_id).cpu()
        return rows, sure

    @abc.abstractmethod
    def train(self, rows: list[Row], cell: Cell) -> Trained:
        """Train a student on rows."""

    @abc.abstractmethod
    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        """A student's outputs for texts; and, if asked for, how likely it finds them.

        Returns
        -------
        outputs : list of str
        log_probabilities : Tensor of shape (texts, labels), or (texts,) and the mean over word pieces for writers, or None
        """

    @abc.abstractmethod
    def whole(self, trained: Trained) -> PreTrainedModel:
        """A student as one model in transformers' own form, the layers that were not trained put back."""


def mean(hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any) -> torch.Tensor:
    """LayerNorm of the mean over all tokens, (batch, 1, hidden), of hidden states (batch, length, hidden)."""
    if attention_mask is None:  # no padding
        pooled = hidden.float().mean(1)
    else:
        mask = attention_mask[:, 0, 0]
        read = (mask if mask.dtype == torch.bool else mask == 0).float()[..., None]
        pooled = (hidden.float() * read).sum(1) / read.sum(1)
    return functional.layer_norm(pooled, pooled.shape[-1:])[:, None]


@torch.no_grad()
def averaging(layer: nn.Module) -> nn.Module:
    """Turn a transformer layer of BERT's kind into one that does what `mean` does, as the first token's state.

    So a student with mean pooling is saved in its architecture's own form. Queries and keys are zero: attention is uniform. The
    mean is scaled until the token's own state, which a layer adds to it, is lost in the normalisation. The feed-forward part
    adds nothing. Here the layer takes the short way, by `mean` itself.
    """
    for weight in layer.parameters():
        nn.init.zeros_(weight).requires_grad_(False)
    for product in (layer.attention.self.value, layer.attention.output.dense):
        nn.init.eye_(product.weight)
        product.weight.mul_(1e3)
    for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
        nn.init.ones_(norm.weight)
    layer.forward = mean
    return layer


class _Classifier(Bench):
    """A pretrained encoder, or decoder, with a classification head; its lowest layers frozen where they can be told.

    Where the model can be divided at a layer, the frozen ones read each text once; where it cannot, each time.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        self.sets = torch.tensor(label_sets(task.labels, task.classes, task.separator), dtype=torch.float32) if task.separator else None
        model = self._pretrained().to(self.device)
        self.size = model.num_parameters()
        tried = self.tokenizer.pad({"input_ids": self.tokenizer(["a text", "and a longer text"])["input_ids"]}, return_tensors="pt")
        self.parts = layers.parts(model, self.chosen.frozen_layers, tried["input_ids"].to(self.device),
                                  attention_mask=tried["attention_mask"].to(self.device))
        self.apart = self.parts is not None and self.parts.apart
        self.lower = self.parts.lower(model) if self.apart else None

    def head(self, module: nn.Module) -> nn.Module:
        return nn.ModuleList([child for child in module.children() if child is not module.base_model])

    def parameters(self, trained: Trained) -> int:
        return self.size

    def logits(self, model: PreTrainedModel, texts: Sequence[str]) -> torch.Tensor:
        """Logits of a batch of texts, (batch, classes)."""
        states, mask = self.batch(texts)
        return model(**{"inputs_embeds" if self.apart else "input_ids": states}, attention_mask=mask).logits.float()

    def train(self, rows: list[Row], cell: Cell) -> Trained:
        self.read([row.text for row in rows])
        torch.manual_seed(cell.seed)
        labels = list(self.task.labels)
        model = self._pretrained()
        if self.parts:
            model = self.parts.upper(model) if self.apart else model
            self.parts.freeze(model)
        model.to(self.device)
        weight = self.class_weight(rows)

        def loss(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
            wanted = torch.tensor([row.soft or [float(label == row.output) for label in labels] for row in batch],
                                  device=self.device)
            logits, smoothing = self.logits(model, [row.text for row in batch]), self.chosen.label_smoothing
            if self.sets is None:
                each = functional.cross_entropy(logits, wanted, weight, reduction="none", label_smoothing=smoothing)
            else:
                marginal = wanted @ self.sets.to(self.device) * (1 - smoothing) + smoothing / 2
                each = functional.binary_cross_entropy_with_logits(logits, marginal, reduction="none").mean(1)
            return each, torch.ones_like(each)

        self.fit(model, rows, cell, loss)
        if self.sets is None or not self.task.dev:
            return Trained(model)
        truth = label_sets([example.target for example in self.task.dev], self.task.classes, self.task.separator)
        said = self.logits_of_all(model, [example.text for example in self.task.dev]).sigmoid()
        return Trained(model, thresholds=thresholds(said, torch.tensor(truth, dtype=torch.bool)))

    def class_weight(self, rows: Sequence[Row]) -> torch.Tensor | None:
        """Weights of the labels in the loss, (labels,), as `students.class_weight` says; 1 for a label that no row has."""
        if self.chosen.class_weight is None:
            return None
        if self.sets is not None:
            raise SettingsError("students.class_weight: for tasks of one label a row; set it to null, thresholds are chosen by F1.")
        outputs = [row.output for row in rows]
        there = sorted(set(outputs))
        weights = compute_class_weight(self.chosen.class_weight, classes=np.array(there), y=outputs)
        found = dict(zip(there, weights, strict=True))
        return torch.tensor([found.get(label, 1.0) for label in self.task.labels], dtype=torch.float32, device=self.device)

    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        logits = self.logits_of_all(trained.model, texts)
        scores = logits.log_softmax(-1) if self.sets is None else set_scores(logits, self.sets)
        predicted = [self.task.labels[best] for best in scores.argmax(-1).tolist()]
        if trained.thresholds is not None:
            chosen = (logits.sigmoid() >= trained.thresholds).scatter(1, logits.argmax(-1, keepdim=True), True)
            predicted = [joined_labels(np.array(self.task.classes)[row], self.task.separator) for row in chosen.numpy()]
        return predicted, scores if scored else None

    def logits_of_all(self, model: PreTrainedModel, texts: Sequence[str]) -> torch.Tensor:
        """Logits of any number of texts, (texts, classes), batch by batch."""
        self.read(texts)
        logits = torch.empty(len(texts), len(self.task.classes))
        with torch.inference_mode(), self.computing():
            for batch in by_length([self.states[text] for text in texts], 64):
                logits[batch] = self.logits(model, [texts[index] for index in batch]).cpu()
        return logits

    def whole(self, trained: Trained) -> PreTrainedModel:
        model = self._pretrained()
        model.load_state_dict(trained.model.state_dict(), strict=False)  # all but the frozen layers, if these were apart
        model.config.id2label = dict(enumerate(self.task.classes))
        model.config.label2id = {label: number for number, label in enumerate(self.task.classes)}
        return model.eval()

    def _pretrained(self) -> PreTrainedModel:
        with assets.loading(self.chosen.model, "classifier"):
            model = AutoModelForSequenceClassification.from_pretrained(
                self.path, num_labels=len(self.task.classes), dtype=torch.float32, use_safetensors=True, ignore_mismatched_sizes=True,
                problem_type=None if self.sets is None else "multi_label_classification")
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        if self.chosen.pooling == "mean":
            self._pool_by_mean(model)
        return model.eval()

    def _pool_by_mean(self, model: PreTrainedModel) -> None:
        """Add a last layer that averages, and begin what reads it anew: it was pretrained, if at all, for the first token.

        A model whose layers are not BERT's (RoBERTa's and ELECTRA's are) pools as its architecture does.
        """
        try:
            stack = model.base_model.encoder.layer
            stack.append(averaging(copy.deepcopy(stack[-1])))
        except AttributeError:
            return
        model.config.num_hidden_layers = len(stack)
        pooler = getattr(model.base_model, "pooler", None)
        if pooler is not None:
            nn.init.normal_(pooler.dense.weight, std=model.config.initializer_range)
            nn.init.zeros_(pooler.dense.bias)


def set_scores(logits: torch.Tensor, sets: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of sets of labels, (texts, sets), as if labels were independent and there were no other sets.

    Parameters
    ----------
    logits : Tensor of shape (texts, classes)
    sets : Tensor of shape (sets, classes), 0 or 1
    """
    return (functional.logsigmoid(logits) @ sets.T + functional.logsigmoid(-logits) @ (1 - sets).T).log_softmax(-1)


def thresholds(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """For each class the probability from which on it is said: the best F1 on texts of which the truth is known (Yang 2001).

    Of equal ones it is the one nearest to a half. Both tensors are of shape (texts, classes).
    """
    tried = torch.tensor(sorted([number / 20 for number in range(1, 20)], key=lambda value: abs(value - 0.5)))
    said = probabilities >= tried[:, None, None]
    f1 = 2 * (said & truth).sum(1) / (said.sum(1) + truth.sum(0)).clamp(min=1)
    return tried[f1.argmax(0)]


class _Writer(Bench):
    """A warm-started encoder–decoder (Rothe et al. 2020): both halves from MiniLM's lowest layers.

    The encoder is frozen; the decoder keeps only the word pieces that occur in the pool's inputs and the cell's own
    outputs, and learns to attend to the encoder from nothing.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        self.pretrained = self.encoder()
        self.frozen = self.encoder().to(self.device)
        self.frozen.encoder.layer = self.frozen.encoder.layer[: self.chosen.encoder_layers]

    def lower(self, **read: torch.Tensor) -> torch.Tensor:
        return self.frozen(**read).last_hidden_state

    def train(self, rows: list[Row], cell: Cell) -> Trained:
        rows = self.marked_rows(rows)
        self.read_marked([row.text for row in rows])
        outputs = self.tokenizer([row.output for row in rows], truncation=True,
                                 max_length=self.chosen.max_new_tokens)["input_ids"]
        inputs = self.tokenizer([self.marked(example.text)[0] for example in self.task.pool])["input_ids"]
        pieces = sorted({piece for row in inputs + outputs for piece in row} | set(self.tokenizer.all_special_ids))
        place = {piece: number for number, piece in enumerate(pieces)}
        targets = {row.output: torch.tensor([place[piece] for piece in output[1:]], device=self.device)
                   for row, output in zip(rows, outputs, strict=True)}
        torch.manual_seed(cell.seed)
        model = self._model(pieces, place).to(self.device)

        def loss(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
            states, mask = self.batch([row.text for row in batch])
            wanted = pad_sequence([targets[row.output] for row in batch], batch_first=True, padding_value=IGNORED)
            # Given `labels`, the model would shift them itself, warn of it, and compute a loss that nobody reads.
            read = shift_tokens_right(wanted, model.config.pad_token_id, model.config.decoder_start_token_id)
            logits = model(encoder_outputs=BaseModelOutput(states), attention_mask=mask, decoder_input_ids=read,
                           decoder_attention_mask=(read != model.config.pad_token_id).long()).logits
            return self.word_losses(logits, wanted)

        self.fit(model.decoder, rows, cell, loss)
        return Trained(model, pieces)

    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        found = [self.marked(text) for text in texts]
        texts, marks = [text for text, _ in found], [values for _, values in found]
        self.read_marked(texts)

        def read(batch: list[str]) -> dict[str, Any]:
            states, mask = self.batch(batch)
            return {"encoder_outputs": BaseModelOutput(states), "attention_mask": mask}

        rows, sure = self.written(trained.model, texts, read, 100, scored)
        return [put_back(joined(self.tokenizer.decode([trained.pieces[number] for number in row], skip_special_tokens=True)), values)
                for row, values in zip(rows, marks, strict=True)], sure

    def parameters(self, trained: Trained) -> int:
        return self.frozen.num_parameters() + trained.model.decoder.num_parameters()

    def whole(self, trained: Trained) -> PreTrainedModel:
        everything = list(range(self.pretrained.config.vocab_size))
        model = self._model(everything, {piece: piece for piece in everything})
        learned = trained.model.decoder.state_dict()
        weights = model.decoder.state_dict()
        for name, value in learned.items():
            if value.shape == weights[name].shape:
                weights[name] = value
            else:  # a row for each word piece; those that were never written stay out of reach
                if value.dim() == 1:
                    weights[name] = torch.full_like(weights[name], NEVER)
                weights[name][trained.pieces] = value.cpu()
        model.decoder.load_state_dict(weights)
        encoder = AutoModel.from_pretrained(self.path, dtype=torch.float32)
        encoder.encoder.layer = encoder.encoder.layer[: self.chosen.encoder_layers]
        encoder.config.num_hidden_layers = len(encoder.encoder.layer)
        whole = EncoderDecoderModel(encoder=encoder, decoder=model.decoder)
        whole.generation_config = model.generation_config
        whole.generation_config.max_new_tokens = self.chosen.max_new_tokens
        whole.config.decoder_start_token_id, whole.config.pad_token_id = (
            self.tokenizer.cls_token_id, self.tokenizer.pad_token_id)
        return whole.eval()

    def _model(self, pieces: list[int], place: dict[int, int]) -> EncoderDecoderModel:
        tokenizer = self.tokenizer
        config = BertConfig(**{**self.pretrained.config.to_dict(), "vocab_size": len(pieces), "is_decoder": True,
                               "add_cross_attention": True, "num_hidden_layers": self.chosen.decoder_layers,
                               "pad_token_id": place[tokenizer.pad_token_id], "tie_word_embeddings": True})
        decoder = BertLMHeadModel(config)
        weights = self.pretrained.state_dict()
        weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][pieces]
        decoder.bert.load_state_dict(weights, strict=False)
        encoder = BertModel(BertConfig(**{**self.pretrained.config.to_dict(), "num_hidden_layers": 0}),
                            add_pooling_layer=False)
        model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
        for settings in (model.config, model.generation_config):
            settings.decoder_start_token_id = place[tokenizer.cls_token_id]
            settings.eos_token_id = place[tokenizer.sep_token_id]
            settings.pad_token_id = place[tokenizer.pad_token_id]
        return model


class _PretrainedWriter(Bench):
    """An encoder–decoder that was pretrained as one (BART, T5), fine-tuned whole."""

    def train(self, rows: list[Row], cell: Cell) -> Trained:
        rows = self.marked_rows(rows)
        self.read_marked([row.text for row in rows])
        torch.manual_seed(cell.seed)
        with assets.loading(self.chosen.model, "seq2seq model"):
            model = AutoModelForSeq2SeqLM.from_pretrained(self.path, use_safetensors=True, dtype=torch.float32).to(self.device)
        most, end = self.chosen.max_new_tokens, self.tokenizer.eos_token_id
        outputs = self.tokenizer(text_target=[row.output for row in rows], truncation=True, max_length=most)["input_ids"]
        # Not every tokenizer ends a text by itself.
        outputs = [output if end in output[-2:] else [*output[: most - 1], end] for output in outputs]
        targets = {row.output: torch.tensor(output, device=self.device)
                   for row, output in zip(rows, outputs, strict=True)}

        def loss(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
            ids, mask = self.batch([row.text for row in batch])
            wanted = pad_sequence([targets[row.output] for row in batch], batch_first=True, padding_value=IGNORED)
            read = model.prepare_decoder_input_ids_from_labels(wanted)
            return self.word_losses(model(input_ids=ids, attention_mask=mask, decoder_input_ids=read).logits, wanted)

        self.fit(model, rows, cell, loss)
        # mBART's decoder starts with the language, which is the last token of a target.
        start = model.prepare_decoder_input_ids_from_labels(torch.tensor([outputs[0]]))[0, 0].item()
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = start
        return Trained(model)

    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        found = [self.marked(text) for text in texts]
        texts, marks = [text for text, _ in found], [values for _, values in found]
        self.read_marked(texts)

        def read(batch: list[str]) -> dict[str, Any]:
            return dict(zip(("input_ids", "attention_mask"), self.batch(batch), strict=True))

        rows, sure = self.written(trained.model, texts, read, 32, scored, **PLAIN)
        return [put_back(self.tokenizer.decode(row, skip_special_tokens=True).strip(), values)
                for row, values in zip(rows, marks, strict=True)], sure

    def whole(self, trained: Trained) -> PreTrainedModel:
        model = copy.deepcopy(trained.model).cpu().eval()
        model.generation_config.update(do_sample=False, num_beams=1, early_stopping=False, max_length=None,
                                       max_new_tokens=self.chosen.max_new_tokens, **PLAIN)
        return model


def marked(text: str, marks: dict[str, str]) -> str:
    """A text with placeholders for values, longer values first (delexicalisation; Wen et al. 2015).

    Parameters
    ----------
    text : str
    marks : dict of str to str
        The value of each placeholder; its case does not matter.
    """
    if not marks:
        return text
    mark_of = {value.lower(): mark for mark, value in marks.items()}
    values = "|".join(re.escape(value) for value in sorted(marks.values(), key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{values})(?!\w)", lambda found: mark_of.get(found[0].lower(), found[0]), text, flags=re.IGNORECASE)


def put_back(text: str, marks: dict[str, str]) -> str:
    """A text with values in the place of their placeholders."""
    return "".join(marks.get(letter, letter) for letter in text)


def sureness(sequences: torch.Tensor, scores: Sequence[torch.Tensor], end: int) -> torch.Tensor:
    """Mean log-probability of the word pieces that were written, the end included.

    Parameters
    ----------
    sequences : LongTensor of shape (texts, 1 + steps)
        What `generate` wrote after a start.
    scores : sequence of Tensor of shape (texts, vocabulary)
        Logits of each step.
    end : int

    Returns
    -------
    Tensor of shape (texts,)
    """
    chosen = sequences[:, 1:]
    each = torch.stack([step.float().log_softmax(-1) for step in scores], 1).gather(2, chosen[..., None])[..., 0]
    # Padding follows the first end; a text that was cut off has neither.
    ended = (chosen == end).long().cumsum(1)
    wrote = (ended == 0) | ((ended == 1) & (chosen == end))
    return (each * wrote).sum(1) / wrote.sum(1)


def joined(text: str) -> str:
    """Undo the spaces that word pieces leave around punctuation: "well - known , too ." → "well-known, too."."""
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£€])\s+", r"\1", text)
    text = re.sub(r"(?<=\w)\s*([-–/’'])\s*(?=\w)", r"\1", text)
    return re.sub(r"(?<=\d)([.,:])\s+(?=\d)", r"\1", text)
