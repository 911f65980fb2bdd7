"""Students for text generation: encoder–decoder models."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.encoder_decoder.modeling_encoder_decoder import shift_tokens_right

from synthtune.context import Context
from synthtune.experiment import Cell, Row
from synthtune.models import assets
from synthtune.models.fine_tuning import IGNORED
from synthtune.models.language_model import by_length
from synthtune.models.students import StudentTrainer, Trained, put_back

NEVER = -1e4
"""Logit of a word piece that a student has never generated: its probability is zero."""
PLAIN = {"min_length": 0, "no_repeat_ngram_size": 0}
"""How a pretrained model decodes; the published settings of BART are those of summaries: beams, and no three words twice."""


class Seq2Seq(StudentTrainer):
    """What encoder–decoders have in common."""

    def word_losses(self, logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss for `fit`, from logits (batch, length, vocabulary) and word pieces (batch, length)."""
        each = functional.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none",
                                        label_smoothing=self.chosen.label_smoothing)
        return each.sum(1), (wanted != IGNORED).sum(1)

    def decoded(self, model: PreTrainedModel, texts: Sequence[str], read: Callable[[list[str]], dict[str, Any]], size: int,
                scored: bool, **options: Any) -> tuple[list[list[int]], torch.Tensor | None]:
        """Greedy decoding: ids for each text, and the mean log-probability of those up to its end."""
        rows, sure = [[]] * len(texts), torch.zeros(len(texts)) if scored else None
        for batch in by_length([self.states[text] for text in texts], size):
            given = read([texts[index] for index in batch])
            with self.computing():
                out = model.generate(**given, do_sample=False, num_beams=1, max_new_tokens=self.chosen.max_new_tokens,
                                     return_dict_in_generate=True, output_scores=scored, **options)
            for index, row in zip(batch, out.sequences.tolist(), strict=True):
                rows[index] = row
            if scored:
                sure[batch] = mean_log_probability(out.sequences, out.scores, model.generation_config.eos_token_id).cpu()
        return rows, sure


class WarmStarted(Seq2Seq):
    """A warm-started encoder–decoder (Rothe et al. 2020): both halves from MiniLM's lowest layers.

    The encoder is frozen; the decoder keeps only the word pieces that occur in the pool's inputs and the cell's own
    outputs, and learns to attend to the encoder from nothing.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
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

        rows, sure = self.decoded(trained.model, texts, read, 100, scored)
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
            else:  # a row for each word piece; those that were never generated stay out of reach
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


class Pretrained(Seq2Seq):
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

        rows, sure = self.decoded(trained.model, texts, read, 32, scored, **PLAIN)
        return [put_back(self.tokenizer.decode(row, skip_special_tokens=True).strip(), values)
                for row, values in zip(rows, marks, strict=True)], sure

    def whole(self, trained: Trained) -> PreTrainedModel:
        model = copy.deepcopy(trained.model).cpu().eval()
        model.generation_config.update(do_sample=False, num_beams=1, early_stopping=False, max_length=None,
                                       max_new_tokens=self.chosen.max_new_tokens, **PLAIN)
        return model


def mean_log_probability(sequences: torch.Tensor, scores: Sequence[torch.Tensor], end: int) -> torch.Tensor:
    """Mean log-probability of the word pieces of each text, the end included.

    Parameters
    ----------
    sequences : LongTensor of shape (texts, 1 + steps)
        What `generate` gave after a start.
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
