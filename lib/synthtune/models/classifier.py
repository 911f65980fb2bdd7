"""Students for classification: encoders or decoders with a classification head."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from synthtune.context import Context
from synthtune.errors import SettingsError
from synthtune.experiment import Cell, Row
from synthtune.metrics import joined_labels, label_sets
from synthtune.models import assets, layers
from synthtune.models.language_model import by_length
from synthtune.models.students import StudentTrainer, Trained

# Parts of the gold rows that are answered in turn where `students.thresholds` is folds.
FOLDS = 3


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


class Classifier(StudentTrainer):
    """A pretrained encoder, or decoder, with a classification head; its lowest layers frozen where they can be told.

    Where the model can be divided at a layer, the frozen ones read each text once; where it cannot, each time.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        task = self.task
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
        model = self._trained(rows, cell)
        if self.sets is None or not (self.task.dev or self.chosen.thresholds):
            return Trained(model)
        if self.chosen.thresholds:
            gold = {example.text for example in self.context.at(cell.budget).gold}
            known = [row for row in rows if row.text in gold]
            held = [known[fold::FOLDS] for fold in range(FOLDS)]
            answered = [(self._trained([row for row in rows if row not in apart], cell), apart) for apart in held]
        else:
            answered = [(model, [Row(example.text, example.target) for example in self.task.dev])]
        logits = torch.cat([self.logits_of_all(each, [row.text for row in apart]) for each, apart in answered])
        truth = label_sets([row.output for _, apart in answered for row in apart], self.task.classes, self.task.separator)
        return Trained(model, thresholds=thresholds(logits.sigmoid(), torch.tensor(truth, dtype=torch.bool)))

    def _trained(self, rows: list[Row], cell: Cell) -> PreTrainedModel:
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
            wanted = torch.tensor([row.soft or [float(label == row.output) for label in labels] for row in batch], device=self.device)
            logits = self.logits(model, [row.text for row in batch])
            if self.sets is None:
                each = functional.cross_entropy(logits, wanted, weight, reduction="none")
            else:
                marginal = wanted @ self.sets.to(self.device)
                each = functional.binary_cross_entropy_with_logits(logits, marginal, reduction="none").mean(1)
            return each, torch.ones_like(each)

        self.fit(model, rows, cell, loss)
        return model

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
            predicted = said(logits, trained.thresholds, self.task.classes, self.task.separator)
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
        if trained.thresholds is not None:
            model.config.thresholds = trained.thresholds.tolist()
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


def said(logits: torch.Tensor, thresholds: torch.Tensor, classes: Sequence[str], separator: str) -> list[str]:
    """The labels of each text, logits of shape (texts, classes), that reach their threshold, (classes,); one at least."""
    chosen = (logits.sigmoid() >= thresholds).scatter(1, logits.argmax(-1, keepdim=True), True)
    return [joined_labels(np.array(classes)[row], separator) for row in chosen.numpy()]


def thresholds(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """For each class the probability from which on it is said: the best F1 on texts of which the truth is known (Yang 2001).

    Of equal ones it is the one nearest to a half. Both tensors are of shape (texts, classes).
    """
    tried = torch.tensor(sorted([number / 20 for number in range(1, 20)], key=lambda value: abs(value - 0.5)))
    said = probabilities >= tried[:, None, None]
    f1 = 2 * (said & truth).sum(1) / (said.sum(1) + truth.sum(0)).clamp(min=1)
    return tried[f1.argmax(0)]
