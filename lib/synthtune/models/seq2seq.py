"""Students for text generation: encoder–decoder models."""

import abc
import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoModelForSeq2SeqLM, BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from synthtune.context import Context
from synthtune.experiment import Cell, Row
from synthtune.models import assets
from synthtune.models.fine_tuning import IGNORED
from synthtune.models.language_model import by_length
from synthtune.models.students import StudentTrainer, Trained, put_back

# Logit of a word piece that a student has never generated: its probability is zero.
NEVER = -1e4
# How a pretrained model decodes; the published settings of BART are those of summaries: beams, and no three words twice.
PLAIN = {"min_length": 0, "no_repeat_ngram_size": 0}


class Seq2Seq(StudentTrainer):
    """What encoder–decoders have in common."""

    # Texts that are answered side by side.
    answered = 32
    # How they are decoded, besides greedily.
    decoding: Mapping[str, int] = {}

    @abc.abstractmethod
    def begun(self, rows: list[Row]) -> tuple[Trained, list[list[int]]]:
        """A student before its training, and the word pieces that it is to generate for each row."""

    def given(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the model reads of a batch of texts: what the frozen encoder made of them, or, if there is none, their token ids."""
        states, mask = self.batch(texts)
        return {"attention_mask": mask, **({"encoder_outputs": BaseModelOutput(states)} if self.lower else {"input_ids": states})}

    def logits(self, model: PreTrainedModel, texts: Sequence[str], read: torch.Tensor) -> torch.Tensor:
        """Logits, (batch, length, vocabulary), after each word piece of outputs as the decoder reads them, (batch, length)."""
        return model(**self.given(texts), decoder_input_ids=read).logits

    def train(self, rows: list[Row], cell: Cell) -> Trained:
        rows = self.marked_rows(rows)
        self.read_marked([row.text for row in rows])
        torch.manual_seed(cell.seed)
        trained, outputs = self.begun(rows)
        model = trained.model
        targets = {row.output: torch.tensor(output, device=self.device) for row, output in zip(rows, outputs, strict=True)}

        def loss(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
            wanted = pad_sequence([targets[row.output] for row in batch], batch_first=True, padding_value=IGNORED)
            # Given `labels`, a model would shift them itself and compute a loss that nobody reads.
            read = model.prepare_decoder_input_ids_from_labels(wanted)
            logits = self.logits(model, [row.text for row in batch], read)
            each = functional.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
            return each.sum(1), (wanted != IGNORED).sum(1)

        self.fit(model, rows, cell, loss)
        return trained

    def predict(self, trained: Trained, texts: Sequence[str], scored: bool = False) -> tuple[list[str], torch.Tensor | None]:
        found, model = [self.marked(text) for text in texts], trained.model
        texts = [text for text, _ in found]
        self.read_marked(texts)
        outputs, sure = [""] * len(texts), torch.zeros(len(texts)) if scored else None
        for batch in by_length([self.states[text] for text in texts], self.answered):
            given = self.given([texts[index] for index in batch])
            with self.computing():
                out = model.generate(**given, do_sample=False, num_beams=1, max_new_tokens=self.chosen.max_new_tokens,
                                     return_dict_in_generate=True, output_scores=scored, **self.decoding)
            for index, row in zip(batch, out.sequences.tolist(), strict=True):
                outputs[index] = put_back(self.text(trained, row), found[index][1])
            if scored:
                sure[batch] = mean_log_probability(out.sequences, out.scores, model.generation_config.eos_token_id).cpu()
        return outputs, sure

    def text(self, trained: Trained, row: list[int]) -> str:
        """The text of what a student generated."""
        return self.tokenizer.decode(row, skip_special_tokens=True).strip()


class WarmStarted(Seq2Seq):
    """A warm-started encoder–decoder (Rothe et al. 2020): both halves from MiniLM's lowest layers.

    The encoder is frozen; the decoder keeps only the word pieces that occur in the pool's inputs and the cell's own
    outputs. `students.cross_attention` says with which weights it begins to attend to the encoder.
    """

    answered = 100

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pretrained = AutoModel.from_pretrained(self.path, add_pooling_layer=False, dtype=torch.float32).eval()
        self.frozen = copy.deepcopy(self.pretrained).to(self.device)
        self.frozen.encoder.layer = self.frozen.encoder.layer[: self.chosen.encoder_layers]

    def lower(self, **read: torch.Tensor) -> torch.Tensor:
        return self.frozen(**read).last_hidden_state

    def begun(self, rows: list[Row]) -> tuple[Trained, list[list[int]]]:
        outputs = self.tokenizer([row.output for row in rows], truncation=True, max_length=self.chosen.max_new_tokens)["input_ids"]
        inputs = self.tokenizer([self.marked(example.text)[0] for example in self.task.pool])["input_ids"]
        pieces = sorted({piece for row in inputs + outputs for piece in row} | set(self.tokenizer.all_special_ids))
        place = {piece: number for number, piece in enumerate(pieces)}
        return Trained(self._model(pieces, place).to(self.device), pieces), [[place[piece] for piece in row[1:]] for row in outputs]

    def logits(self, model: PreTrainedModel, texts: Sequence[str], read: torch.Tensor) -> torch.Tensor:
        mask = (read != model.config.pad_token_id).long()
        return model(**self.given(texts), decoder_input_ids=read, decoder_attention_mask=mask).logits

    def text(self, trained: Trained, row: list[int]) -> str:
        return joined(super().text(trained, [trained.pieces[number] for number in row]))

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
        whole.config.decoder_start_token_id, whole.config.pad_token_id = self.tokenizer.cls_token_id, self.tokenizer.pad_token_id
        return whole.eval()

    def _model(self, pieces: list[int], place: dict[int, int]) -> EncoderDecoderModel:
        tokenizer = self.tokenizer
        dropout = {} if (rate := self.chosen.dropout) is None else {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        config = BertConfig(**{**self.pretrained.config.to_dict(), "vocab_size": len(pieces), "is_decoder": True,
                               "add_cross_attention": True, "num_hidden_layers": self.chosen.decoder_layers,
                               "pad_token_id": place[tokenizer.pad_token_id], "tie_word_embeddings": True, **dropout})
        decoder = BertLMHeadModel(config)
        weights = self.pretrained.state_dict()
        weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][pieces]
        decoder.bert.load_state_dict(weights, strict=False)
        if self.chosen.cross_attention:
            highest = self.pretrained.encoder.layer[-self.chosen.decoder_layers:]
            for layer, source in zip(decoder.bert.encoder.layer, highest, strict=False):
                layer.crossattention.load_state_dict(source.attention.state_dict())
        encoder = BertModel(BertConfig(**{**self.pretrained.config.to_dict(), "num_hidden_layers": 0}), add_pooling_layer=False)
        model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
        for settings in (model.config, model.generation_config):
            settings.decoder_start_token_id = place[tokenizer.cls_token_id]
            settings.eos_token_id = place[tokenizer.sep_token_id]
            settings.pad_token_id = place[tokenizer.pad_token_id]
        return model


class Pretrained(Seq2Seq):
    """An encoder–decoder that was pretrained as one (BART, T5), fine-tuned whole."""

    decoding = PLAIN

    def begun(self, rows: list[Row]) -> tuple[Trained, list[list[int]]]:
        with assets.loading(self.chosen.model, "seq2seq model"):
            model = AutoModelForSeq2SeqLM.from_pretrained(self.path, use_safetensors=True, dtype=torch.float32).to(self.device)
        most, end = self.chosen.max_new_tokens, self.tokenizer.eos_token_id
        outputs = self.tokenizer(text_target=[row.output for row in rows], truncation=True, max_length=most)["input_ids"]
        # Not every tokenizer ends a text by itself.
        outputs = [output if end in output[-2:] else [*output[: most - 1], end] for output in outputs]
        # mBART's decoder starts with the language, which is the last token of a target.
        start = model.prepare_decoder_input_ids_from_labels(torch.tensor([outputs[0]]))[0, 0].item()
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = start
        return Trained(model), outputs

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
