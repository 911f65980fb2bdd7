"""What trains a student and lets it answer, whatever its architecture; see `classifier` and `seq2seq`."""

import abc
import contextlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from synthtune import number_format
from synthtune.context import Context
from synthtune.experiment import Cell, Row, steps
from synthtune.models import assets
from synthtune.models.fine_tuning import shuffled_by_length, warm_up_and_decay
from synthtune.models.language_model import by_length, tokenizer_of
from synthtune.progress import progress

# Placeholders of values: word pieces of their own in BERT's vocabulary, and in few texts.
MARKS = "αβγδεζηθικλμ"


@dataclass(frozen=True)
class Trained:
    """A student, which of its tokenizer's word pieces it generates (all, in their order, if None), and from which probability on it
    says each of several labels (the likeliest set of those that are there, if None)."""

    model: PreTrainedModel
    pieces: list[int] | None = None
    thresholds: torch.Tensor | None = None


class StudentTrainer(abc.ABC):
    """What all cells of a task share: the pretrained student, its tokenizer, and the frozen layers' outputs.

    Frozen layers give the same hidden states for a text in every epoch of every cell, so each text is read by them
    once. The states wait in the machine's memory: those of all texts may be more than a GPU holds.

    Weights, gradients, the optimizer's moments and losses are float32, whatever the pretrained student is kept in:
    some are published in float16, in which small updates are lost and large ones are not numbers. In bfloat16 only the
    products of matrices are computed, where `settings.format` says so.
    """

    # The frozen layers: token ids in, hidden states out. None if texts are read whole each time.
    lower: Callable[..., torch.Tensor] | None = None

    def __init__(self, context: Context) -> None:
        transformers_logging.set_verbosity_error()
        self.context, self.task, self.settings, self.chosen = context, context.task, context.settings, context.settings.students
        self.path = assets.model_path(self.chosen.model)
        self.tokenizer = tokenizer_of(self.chosen.model)
        self.device = torch.device(number_format.device())
        self.states: dict[str, torch.Tensor] = {}

    def computing(self, training: bool = False) -> contextlib.AbstractContextManager:
        """Where students read, learn and write: matrices are multiplied in the settings' number format."""
        return number_format.computing(self.settings.format, self.device, training)

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
        those of long ones, and students would learn to stop early.
        """
        chosen = self.chosen
        number = steps(self.context, cell, rows)
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

    def parameters(self, trained: Trained) -> int:
        """Weights of a student, those of its frozen layers and embeddings included."""
        return trained.model.num_parameters()

    def head(self, module: nn.Module) -> nn.Module:
        """What of a student starts from random weights: nothing, if a type of task does not say otherwise."""
        return nn.Module()

    @abc.abstractmethod
    def train(self, rows: list[Row], cell: Cell) -> Trained:
        """Train a student on rows."""

    @abc.abstractmethod
    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        """A student's outputs for texts; and, if asked for, how likely it finds them.

        Returns
        -------
        outputs : list of str
        log_probabilities : Tensor of shape (texts, labels), or (texts,) and the mean over word pieces for text, or None
        """

    @abc.abstractmethod
    def whole(self, trained: Trained) -> PreTrainedModel:
        """A student as one model in transformers' own form, the layers that were not trained put back."""


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
