"""The student to take away, in transformers' own form, and what it says of rows without labels."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from synthtune import experiment, student
from synthtune.custom import record
from synthtune.custom.rows import examples, pair_of
from synthtune.custom.study import Outcome, depends_on
from synthtune.errors import StageError
from synthtune.files import atomic_path, remove
from synthtune.metrics import classes_of, label_sets
from synthtune.models import classifier, seq2seq
from synthtune.models.language_model import by_length
from synthtune.progress import progress

# Texts that are read at once: bounds memory.
CHUNK = 2_000

# How many of the least certain rows are looked at for each that is proposed for labelling.
CANDIDATES = 10


def save(outcome: Outcome, folder: Path) -> Path:
    """Train the winner on all labelled rows, and write it as a folder that transformers loads by its path.

    A model that was made from the same rows and settings is kept.
    """
    part, cell = outcome.whole, outcome.cell
    rows, _ = experiment.training_rows(part, cell)
    stored, made_from = part.settings.folder / "model.json", depends_on(part, cell, rows)
    if record.unchanged(stored, made_from, folder):
        return folder
    trainer = student.trainer(part)
    trained = trainer.train(rows, cell)
    # Neither kind of student reads token types, and a writer's `generate` would hand them on to its decoder.
    tokenizer = AutoTokenizer.from_pretrained(trainer.path, model_max_length=part.settings.students.max_tokens,
                                              model_input_names=["input_ids", "attention_mask"])
    remove(stored)
    with atomic_path(folder) as temporary:
        trainer.whole(trained).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    record.note(stored, made_from, folder, [folder])
    return folder


class _Reader(nn.Module):
    """What reads texts as ONNX has it: a classifier, or the encoder of a seq2seq model. Token types are all the same."""

    def __init__(self, model: PreTrainedModel, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **_types(self.model, input_ids))
        return getattr(found, self.output)


class _Decoder(nn.Module):
    """The decoder of a seq2seq model: the logits of the next word piece after each that it is given."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.output = model, "logits"

    def forward(self, input_ids: torch.Tensor, encoder_hidden_states: torch.Tensor,
                encoder_attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(encoder_outputs=BaseModelOutput(encoder_hidden_states), attention_mask=encoder_attention_mask,
                          decoder_input_ids=input_ids, use_cache=False,
                          **_types(self.model.get_decoder(), input_ids, "decoder_")).logits


def _types(model: PreTrainedModel, ids: torch.Tensor, prefix: str = "") -> dict[str, torch.Tensor]:
    """Token types that are all the same, where a model has them: it would else look them up in a way few runtimes do well."""
    return {f"{prefix}token_type_ids": torch.zeros_like(ids)} if hasattr(model.config, "type_vocab_size") else {}


def to_onnx(folder: Path, labels: Sequence[str]) -> list[Path]:
    """Write a saved model as ONNX beside its weights, for runtimes without PyTorch. The sizes of all inputs are free.

    A classifier is `model.onnx`: input_ids and attention_mask, both int64 of shape (texts, word pieces), in; logits of shape
    (texts, labels) out, in the order of `id2label` in config.json.

    A model that writes is two files, named as optimum names them. `encoder_model.onnx` reads the same inputs and gives
    last_hidden_state (texts, word pieces, hidden). `decoder_model.onnx` reads input_ids (texts, pieces written so far), and
    the encoder's as encoder_hidden_states and encoder_attention_mask; it gives logits (texts, pieces written so far,
    vocabulary). Writing starts with `decoder_start_token_id` and ends with `eos_token_id` of generation_config.json.

    Raises
    ------
    StageError
        Of classifiers that are decoders, and of DeBERTa, for which torch writes no file, or a wrong one.
    """
    kind = AutoModelForSequenceClassification if labels else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder, use_safetensors=True, attn_implementation="eager").eval()
    # A decoder's classifier reads the last token that is no padding: what torch exports of that does not find it.
    refused = labels and model.config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or model.config.model_type == "deberta-v2"
    if refused:
        raise StageError(f"custom.export: no ONNX file can be written of a student of this architecture ({model.config.model_type}): "
                         "set custom.export=none and run again; finished work is kept.")
    read = dict(AutoTokenizer.from_pretrained(folder)(["one text", "and a longer one"], padding=True, return_tensors="pt"))
    texts = torch.export.Dim("texts")

    def free(name: str, most: int | None) -> dict[int, Any]:
        return {0: texts, 1: torch.export.Dim(name, max=most)}

    if labels:
        pieces = free("pieces", getattr(model.config, "max_position_embeddings", None))
        return [_export(_Reader(model, "logits"), read, dict.fromkeys(read, pieces), folder / "model.onnx")]
    halves = [getattr(half.config, "max_position_embeddings", None) for half in (model.get_encoder(), model.get_decoder())]
    pieces, written = free("pieces", halves[0]), free("written", halves[1])
    encoder = _Reader(model.get_encoder(), "last_hidden_state").eval()
    with torch.inference_mode():
        hidden = encoder(**read)
    given = {"input_ids": read["input_ids"][:, :3], "encoder_hidden_states": hidden.clone(),
             "encoder_attention_mask": read["attention_mask"]}
    sizes = {"input_ids": written, "encoder_hidden_states": pieces, "encoder_attention_mask": pieces}
    return [_export(encoder, read, dict.fromkeys(read, pieces), folder / "encoder_model.onnx"),
            _export(_Decoder(model), given, sizes, folder / "decoder_model.onnx")]


def _export(network: nn.Module, inputs: dict[str, torch.Tensor], sizes: dict[str, dict[int, Any]], path: Path) -> Path:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names operators of packages that this one does not need
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(network.eval(), (), kwargs=inputs, dynamo=True, verbose=False, input_names=list(inputs),
                                    output_names=[network.output], dynamic_shapes=sizes)
    for node in program.model.graph:
        node.metadata_props.clear()  # lines of this machine's files
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
    return path


def predict(folder: Path, texts: Sequence[str], labels: Sequence[str],
            separator: str = "") -> tuple[list[str], np.ndarray, np.ndarray]:
    """What a saved model says of texts.

    Returns
    -------
    outputs : list of str
    scores : array of shape (texts, labels), log-probabilities, or (texts, 1), their mean over the word pieces of a text
    embeddings : array of shape (texts, hidden), for finding rows that differ
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForSequenceClassification if labels else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder, use_safetensors=True).eval()
    classes = classes_of(labels, separator) if separator else ()
    sets = torch.tensor(label_sets(labels, classes, separator), dtype=torch.float32) if separator else None
    thresholds = getattr(model.config, "thresholds", None)
    warm_started = model.config.model_type == "encoder-decoder"  # of MiniLM, whose word pieces stand apart
    outputs = [""] * len(texts)
    scores = np.zeros((len(texts), len(labels) or 1))
    embeddings = np.zeros((len(texts), (model if labels else model.get_encoder()).config.hidden_size), dtype=np.float32)
    for start in progress(range(0, len(texts), CHUNK), desc="predict", unit="chunk"):
        ids = tokenizer(list(texts[start: start + CHUNK]), truncation=True)["input_ids"]
        for batch in by_length(ids, 64):
            read = tokenizer.pad({"input_ids": [ids[index] for index in batch]}, return_tensors="pt")
            places = [start + index for index in batch]
            with torch.inference_mode():
                if labels:
                    out = model(**read, output_hidden_states=True)
                    hidden = out.hidden_states[-1]
                    scores[places] = (out.logits.log_softmax(-1) if sets is None else classifier.set_scores(out.logits, sets)).numpy()
                    said = (classifier.said(out.logits, torch.tensor(thresholds), classes, separator) if thresholds
                            else [labels[place] for place in scores[places].argmax(1)])
                else:
                    hidden = model.get_encoder()(**read).last_hidden_state
                    out = model.generate(**read, do_sample=False, num_beams=1, return_dict_in_generate=True, output_scores=True)
                    scores[places, 0] = seq2seq.mean_log_probability(out.sequences, out.scores, model.generation_config.eos_token_id)
                    decoded = tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
                    said = [seq2seq.joined(text) if warm_started else text.strip() for text in decoded]
            for place, output in zip(places, said, strict=True):
                outputs[place] = output
            mask = read["attention_mask"][..., None]
            embeddings[places] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return outputs, scores, embeddings


def predictions(outcome: Outcome, model: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The saved model's outputs for all unlabelled rows, and the rows that are worth most to label next.

    Returns
    -------
    predictions : DataFrame
        row, text (and text_pair), predicted, confidence: the probability that a label is right, or the chrF to be expected
        of a text, both between 0 and 1 and calibrated on the rows held out.
    to_label : DataFrame
        The same columns: of the least certain rows one of each of as many clusters as rows are asked for (uncertainty and
        diversity; Zhdanov 2019), the least certain first.
    """
    own, settings = outcome.own, outcome.settings
    rows = own.unlabelled
    if not len(rows):
        return pd.DataFrame(), pd.DataFrame()
    inputs = [example.text for example in examples(rows, pair_of(own), "unlabelled")]
    outputs, scores, embeddings = predict(model, inputs, own.labels, own.columns.separator)
    if own.labels:
        places = {label: place for place, label in enumerate(own.labels)}
        confidence = outcome.confidence.of(scores, [places.get(output, -1) for output in outputs])
        second, first = np.sort(outcome.confidence.probabilities(scores), 1)[:, -2:].T
        doubt = 1 - (first - second)
    else:
        confidence, doubt = outcome.confidence.of(scores), -scores[:, 0]
    columns = [name for name in ("row", "text", "text_pair") if name in rows]
    table = rows[columns].assign(predicted=outputs, confidence=np.round(confidence, 4)).reset_index(drop=True)
    chosen = worth_labelling(doubt, embeddings, settings.custom.to_label, settings.seed)
    return table, table.loc[chosen].reset_index(drop=True)


def worth_labelling(doubt: np.ndarray, embeddings: np.ndarray, number: int, seed: int) -> list[int]:
    """Places of rows that are in doubt and far from each other: the most doubtful of each cluster of the most doubtful.

    Parameters
    ----------
    doubt : array of shape (N,)
    embeddings : array of shape (N, hidden)
    number : int
    seed : int
    """
    candidates = np.argsort(-doubt, kind="stable")[: CANDIDATES * number]
    number = min(number, len(candidates))
    clusters = KMeans(number, n_init=3, random_state=seed).fit_predict(embeddings[candidates])
    first = {cluster: place for cluster, place in zip(clusters[::-1], candidates[::-1], strict=True)}
    return sorted((int(place) for place in first.values()), key=lambda place: -doubt[place])
