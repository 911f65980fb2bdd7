"""The teacher's language model: loading, splitting at a layer, scoring label texts, sampling."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from synthtune import number_format as number_formats
from synthtune.errors import AssetError, StageError
from synthtune.models import assets, continuous, layers, placement, vllm_engine
from synthtune.number_format import NumberFormat
from synthtune.progress import progress

Engine = Literal["batches", "continuous", "vllm"]
"""What writes texts; see `write`."""

NUCLEUS_CANDIDATES = 2048
"""The nucleus is looked for among this many likeliest tokens; where they hold too little mass, among all tokens."""


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes
    ----------
    model : PreTrainedModel
        In evaluation mode. It is brought to the GPU, where there is one, by what uses it.
    tokenizer : PreTrainedTokenizerBase
    name, digest : str
        The asset's name and the SHA-256 of its weights as they were published.
    vocabulary : LongTensor or None
        The token ids that the output layer knows, ascending, one for each of its rows; None if it knows all.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    vocabulary: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return placement.where(self.model)

    @property
    def format(self) -> NumberFormat:
        """Of the weights, and of what is computed with them."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def end(self) -> int:
        """Token that ends every text the teacher writes."""
        return self.tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def tokenizer_of(name: str, ends: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer, which pads with its end token if it has no other; refused if the model does not know its tokens.

    Parameters
    ----------
    name : str
    ends : bool
        Whether the model is to end texts.

    Raises
    ------
    AssetError
        If it has no token that it needs, or more tokens than the model.
    """
    with assets.loading(name, "tokenizer"):
        path = assets.model_path(name)
        tokenizer, known = AutoTokenizer.from_pretrained(path), AutoConfig.from_pretrained(path).vocab_size
    if ends and tokenizer.eos_token_id is None:
        raise AssetError(f"{name}: its tokenizer has no end token, with which a text is to end: set eos_token in its "
                         "tokenizer_config.json.")
    if not ends and tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise AssetError(f"{name}: its tokenizer has no padding token: set pad_token in its tokenizer_config.json.")
        tokenizer.pad_token = tokenizer.eos_token
    needed = tokenizer.eos_token_id if ends else tokenizer.pad_token_id
    if max(tokenizer.vocab_size - 1, needed) >= known:
        raise AssetError(f"{name}: its tokenizer has {max(tokenizer.vocab_size, needed + 1):,} tokens, but the model knows {known:,}: "
                         "its folder has the tokenizer of another model, or tokens were added without resizing the model's embeddings.")
    return tokenizer


def load(name: str, number_format: NumberFormat | None = None, shapes_only: bool = False) -> LanguageModel:
    """Load a causal language model.

    Parameters
    ----------
    name : str
        A name in assets.yaml, a hub id or a folder.
    number_format : str, optional
        Of the weights and of what is computed with them: a run's `Settings.format`. This machine's if not given.
    shapes_only : bool
        For a process that is given the weights by another: a model without any, on the device "meta".

    Raises
    ------
    AssetError
        If it cannot be found, fetched or loaded, or does not continue texts.
    """
    path, dtype = Path(assets.model_path(name)), number_formats.dtype(number_format or number_formats.of_machine())
    quiet = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with assets.loading(name, "decoder-only language model"):
            config = AutoConfig.from_pretrained(path)
            reads_both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
            if config.is_encoder_decoder or reads_both_ways:
                raise AssetError(f"teacher.model: {name} is {'an encoder–decoder' if config.is_encoder_decoder else 'an encoder'} "
                                 f"({config.model_type}), and a teacher continues texts: name a decoder-only language model.")
            if shapes_only:
                with torch.device("meta"):
                    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
            else:
                model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
    finally:
        if quiet:
            transformers_logging.enable_progress_bar()
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    return LanguageModel(model.eval(), tokenizer_of(name, ends=True), name, assets.digest(name))


def _contiguous(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What the output layer reads, contiguous in memory.

    `logits_to_keep` hands it a slice of the hidden states, (batch, kept, hidden). PyTorch multiplies a slice that is not
    contiguous, by weights that require no gradient, as one product a row; in bfloat16 it copies the weights for each.
    """
    # Not `contiguous()`: that leaves the strides of a batch of one as they are, and PyTorch goes by the strides.
    return tuple(given.reshape(-1).view(given.shape) for given in inputs)


@torch.no_grad()
def writing_only(lm: LanguageModel, vocabulary: torch.Tensor) -> LanguageModel:
    """The same model with an output layer for some tokens only; it reads all tokens as before.

    The output layer is the widest matrix of a small model. Its probabilities are then those of the tokens given,
    renormalised.

    Parameters
    ----------
    lm : LanguageModel
        Shares its modules with what is returned, but for the output layer.
    vocabulary : LongTensor
        Token ids, ascending; the end token must be one of them.
    """
    head = lm.model.get_output_embeddings()
    narrow = nn.Linear(head.in_features, len(vocabulary), bias=head.bias is not None, device=head.weight.device,
                       dtype=head.weight.dtype)
    narrow.weight.copy_(head.weight[vocabulary])
    if head.bias is not None:
        narrow.bias.copy_(head.bias[vocabulary])
    narrow.requires_grad_(head.weight.requires_grad)  # PyTorch chooses kernels by it, whose last digits differ
    narrow.register_forward_pre_hook(_contiguous)
    model = layers.replaced(lm.model, next(name for name, module in lm.model.named_modules() if module is head), narrow)
    # The embeddings keep all tokens, so the two are no longer one matrix.
    model.config = copy.deepcopy(model.config)
    model.config.tie_word_embeddings = False
    return replace(lm, model=model, vocabulary=vocabulary)


def padded(rows: Sequence[Sequence[int]], fill: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad token rows to one length.

    Returns
    -------
    ids, mask : LongTensor, both of shape (rows, longest)
    """
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), fill)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[number, where] = torch.tensor(row, dtype=torch.long)
        mask[number, where] = 1
    return ids, mask


def by_length(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Indices in batches of rows of similar length, so that little is spent on padding."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    return [order[start: start + size] for start in range(0, len(order), size)]


def _after_prefix(lm: LanguageModel, prefix: str, prompts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Token ids with which prefix + prompt begins whatever the prompt, and the rest of each.

    A tokenizer may join the end of the prefix with what follows ("\\n\\n" before a word is two tokens, at the end of a
    text one), so the two are not encoded apart.
    """
    rows = [lm.encode(prefix + prompt) for prompt in prompts]
    shared = lm.encode(prefix) if prefix and rows else []
    for row in rows:
        same = min(len(shared), len(row) - 1)  # at least one token is left to read
        shared = shared[: next((place for place in range(same) if row[place] != shared[place]), same)]
    return shared, [row[len(shared):] for row in rows]


@torch.inference_mode()
def score_labels(lm: LanguageModel, prompts: Sequence[str], labels: Sequence[str], prefix: str = "",
                 batch_size: int = 32, description: str = "score labels") -> torch.Tensor:
    """Log-probability of every label text after every prompt: log P(label | prefix + prompt), summed over its tokens.

    The prompt is read once for all labels: they are laid side by side after it, and the attention mask lets each see
    the prompt and itself only. A prefix common to all prompts (a few-shot prompt) is read once for all of them.

    Parameters
    ----------
    lm : LanguageModel
        With its whole vocabulary.
    prompts : sequence of str
        Texts that end where the label begins, without the space before it.
    labels : sequence of str
        Whole label texts.
    prefix : str
        Text before every prompt.
    batch_size : int
        Prompts per forward pass.
    description : str
        What the progress bar says.

    Returns
    -------
    Tensor of float32, shape (len(prompts), len(labels))
    """
    placement.bring(lm.model)
    common, rows = _after_prefix(lm, prefix, prompts)
    endings = [_ending(lm, label) for label in labels]
    window = getattr(lm.model.config, "sliding_window", None)
    longest = len(common) + max(map(len, rows), default=0) + sum(map(len, endings))
    usual = not (window and longest > window) and _agree(
        lm, lambda common, rows, endings: _side_by_side(lm, common, endings)(rows),
        lambda common, rows, endings: _one_by_one(lm, common, endings)(rows))
    score = (_side_by_side if usual else _one_by_one)(lm, common, endings)
    scores = torch.empty(len(rows), len(labels))
    for batch in progress(by_length(rows, batch_size), desc=description, unit="batch"):
        scores[batch] = score([rows[index] for index in batch])
    return scores


def _ending(lm: LanguageModel, label: str) -> list[int]:
    ending = lm.encode(" " + label)
    if set(ending) <= {lm.tokenizer.unk_token_id}:
        raise StageError(f"The tokenizer of {lm.name} has no tokens for the label '{label}': give the label another name.")
    return ending


def _agree(lm: LanguageModel, fast: Callable[..., Any], plain: Callable[..., Any]) -> bool:
    """Whether a model takes a fast way of reading texts as it is meant: tried on two short texts, as not every architecture does.

    It needs masks of four dimensions, positions or caches that some do without. Declared models are known to have them.
    """
    if lm.name in assets.models():
        return True
    texts = [lm.encode(text) for text in ("Some words to begin with.", "One text", "and another one, which is longer",
                                          " yes", " no, not at all")]
    given = texts[0], texts[1:3], texts[3:]
    wanted = torch.as_tensor(plain(*given))
    try:
        found = torch.as_tensor(fast(*given))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, wanted, rtol=1e-4 if lm.format == "float32" else 0.03)


def _one_by_one(lm: LanguageModel, common: list[int], endings: list[list[int]]) -> Callable[[list[list[int]]], torch.Tensor]:
    """Scores of labels after rows, each label read with the whole prompt: what every causal model can do."""
    def score(rows: list[list[int]]) -> torch.Tensor:
        scores = torch.empty(len(rows), len(endings))
        for number, ending in enumerate(endings):
            found = _next_logits(lm, [common + row + ending for row in rows], len(ending) + 1)
            for place, logits in enumerate(found):
                wanted = torch.tensor(ending, device=logits.device)[:, None]
                scores[place, number] = (logits[:-1].gather(1, wanted)[:, 0] - logits[:-1].logsumexp(-1)).sum()
        return scores

    return score


def _next_logits(lm: LanguageModel, rows: list[list[int]], number: int) -> list[torch.Tensor]:
    """Logits after each of the last `number` tokens of each row, in float32, (number, vocabulary); nothing is cached."""
    # Padding on the right is never seen by a token before it, so no mask is needed.
    ids, _ = padded(rows, lm.end, left=False)
    first = min(map(len, rows)) - number
    logits = lm.model(ids.to(lm.device), use_cache=False, logits_to_keep=ids.shape[1] - first).logits
    return [each[len(row) - number - first: len(row) - first].float() for row, each in zip(rows, logits, strict=True)]


def _side_by_side(lm: LanguageModel, common: list[int], endings: list[list[int]]) -> Callable[[list[list[int]]], torch.Tensor]:
    """The same with all labels side by side after each prompt, which is read once."""
    # The last token of a label is predicted, never read.
    read = [ending[:-1] for ending in endings]
    tail = [token for ending in read for token in ending]
    owner = torch.tensor([number for number, ending in enumerate(read) for _ in ending], dtype=torch.long)
    depth = torch.tensor([place for ending in read for place in range(len(ending))], dtype=torch.long)
    shared = lm.model(torch.tensor([common], device=lm.device), use_cache=True, logits_to_keep=1
                      ).past_key_values if common else None
    past = shared.get_seq_length() if shared else 0

    def score(rows: list[list[int]]) -> torch.Tensor:
        ids, mask = padded(rows, lm.end, left=True)
        size, scores = len(rows), torch.empty(len(rows), len(endings))
        ids = torch.cat([ids, torch.tensor([tail] * size, dtype=torch.long).reshape(size, -1)], 1)
        place = (mask.cumsum(1) - 1).clamp(min=0)
        place = torch.cat([place, place[:, -1:] + 1 + depth], 1) + past
        cache = None
        if shared:
            cache = DynamicCache()
            for number, layer in enumerate(shared.layers):
                cache.update(layer.keys.expand(size, -1, -1, -1), layer.values.expand(size, -1, -1, -1), number)
        output = lm.model(ids.to(lm.device), attention_mask=_label_mask(mask, owner, past, lm.model.dtype, lm.device),
                          position_ids=place.to(lm.device), past_key_values=cache, use_cache=cache is not None,
                          logits_to_keep=len(tail) + 1)
        # Row by row: of many labels, the logits of a batch in float32 take gigabytes.
        totals = torch.stack([logits.float().logsumexp(-1) for logits in output.logits])
        start = 0
        for number, ending in enumerate(endings):
            steps = [0] + list(range(start + 1, start + len(ending)))
            scores[:, number] = (output.logits[:, steps, ending].float() - totals[:, steps]).sum(1).cpu()
            start += len(ending) - 1
        return scores

    return score


def _label_mask(mask: torch.Tensor, owner: torch.Tensor, past: int, dtype: torch.dtype, device) -> torch.Tensor:
    """Additive attention mask, shape (batch, 1, width + tail, past + width + tail), for labels side by side."""
    size, width = mask.shape
    tail = len(owner)
    allowed = torch.zeros(size, width + tail, past + width + tail, dtype=torch.bool)
    allowed[:, :, :past] = True
    allowed[:, :width, past: past + width] = torch.ones(width, width, dtype=torch.bool).tril() & mask[:, None].bool()
    # A padding position sees itself, so that no row of the softmax is empty.
    allowed[:, :width, past: past + width] |= torch.eye(width, dtype=torch.bool)
    allowed[:, width:, past: past + width] = mask[:, None].bool()
    allowed[:, width:, past + width:] = (owner[:, None] == owner[None]) & torch.ones(tail, tail, dtype=torch.bool).tril()
    bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    return bias[:, None].to(device)


def write(lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int, prefix: str = "", batch_size: int = 64,
          temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, stop: str | None = None, engine: Engine = "batches",
          description: str = "write texts") -> tuple[list[str], list[float], list[bool]]:
    """Continue prompts, greedily or by nucleus sampling (Holtzman et al. 2020).

    Parameters
    ----------
    lm : LanguageModel
    prompts : sequence of str
    max_new_tokens : int
        Longest continuation.
    prefix : str
        Text before every prompt, read once.
    batch_size : int
        Prompts continued side by side.
    temperature : float
        0 takes the likeliest token; otherwise the logits are divided by it.
    top_p : float
        Mass of the nucleus.
    seed : int
        Of the random draws.
    stop : str, optional
        A text that ends the continuation, besides the end token; neither is returned.
    engine : str
        "batches": one batch after another, which a row leaves when it is done. "continuous": transformers' continuous
        batching, where a row that waits takes its place. "vllm": the same with vLLM, if that is installed.
    description : str
        What the progress bar says.

    Returns
    -------
    texts : list of str
        Stripped of surrounding space.
    log_probabilities : list of float
        Of the tokens written, summed: under the model itself (temperature 1, no nucleus), or, if they were sampled by
        continuous batching, under what they were sampled from.
    finished : list of bool
        Whether the text ended by itself, and not at `max_new_tokens`.

    Raises
    ------
    StageError
        If continuous batching gives up, or the model is on several GPUs, over which it does not work; if vLLM is not
        installed, or fails.
    """
    if engine != "vllm":
        placement.bring(lm.model)
    common, rows = _after_prefix(lm, prefix, prompts)
    chosen = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "temperature": temperature, "top_p": top_p,
              "seed": seed, "stop": stop}
    with progress(total=len(rows), desc=description, unit="text") as bar:
        if engine == "continuous":
            if placement.is_spread(lm.model):
                raise StageError("generate.engine: transformers' continuous batching cannot decode with a model that is laid out "
                                 "over several GPUs. Set generate.engine=batches, or use GPUs that hold it whole.")
            new, sums, finished = continuous.write(lm, [common + row for row in rows], **chosen, done=bar.update)
        elif engine == "vllm":
            new, sums, finished = vllm_engine.write(lm, [common + row for row in rows], **chosen, done=bar.update)
        else:
            plainly = {"max_new_tokens": 2, "batch_size": 2, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": None, "done": lambda _: 0}
            cached = _agree(lm, lambda common, rows, _: _in_batches(lm, common, rows, **plainly, cached=True)[1],
                            lambda common, rows, _: _in_batches(lm, common, rows, **plainly, cached=False)[1])
            new, sums, finished = _in_batches(lm, common, rows, **chosen, done=bar.update, cached=cached)
    texts = [lm.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in new]
    return [(text.lstrip().split(stop)[0] if stop else text).strip() for text in texts], sums, finished


@torch.inference_mode()
def _in_batches(lm: LanguageModel, common: list[int], rows: list[list[int]], max_new_tokens: int, batch_size: int,
                temperature: float, top_p: float, seed: int, stop: str | None, done: Callable[[int], object],
                cached: bool) -> tuple[list[list[int]], list[float], list[bool]]:
    """Tokens that follow each row, their log-probabilities summed, and whether each ended by itself.

    A finished row leaves its batch, and the nucleus is looked for among the 2,048 likeliest tokens (exact whenever they
    hold the mass `top_p`; all tokens are sorted otherwise): both cost nothing in the outcome and most of the time
    of plain sampling. A model that is not `cached` reads each text anew for every token.
    """
    written = None if lm.vocabulary is None else lm.vocabulary.to(lm.device)
    generator = torch.Generator(device=lm.device).manual_seed(seed)
    shared = lm.model(torch.tensor([common], device=lm.device), use_cache=True, logits_to_keep=1
                      ).past_key_values if common and cached else None
    past = shared.get_seq_length() if shared else 0
    new: list[list[int]] = [[] for _ in rows]
    sums, finished = [0.0] * len(rows), [False] * len(rows)
    for batch in by_length(rows, batch_size):
        ids, mask = padded([rows[index] for index in batch], lm.end, left=True)
        cache = DynamicCache()
        if shared:
            for number, layer in enumerate(shared.layers):
                cache.update(layer.keys.expand(len(batch), -1, -1, -1), layer.values.expand(len(batch), -1, -1, -1), number)
        place = ((mask.cumsum(1) - 1).clamp(min=0) + past).to(lm.device)
        mask = torch.cat([torch.ones(len(batch), past, dtype=torch.long), mask], 1).to(lm.device)
        ids, alive = ids.to(lm.device), list(batch)
        for step in range(max_new_tokens):
            if cached:
                logits = lm.model(ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True,
                                  logits_to_keep=1).logits[:, -1].float()
            else:
                logits = torch.cat(_next_logits(lm, [common + rows[index] + new[index] for index in alive], 1))
            total = logits.logsumexp(-1, keepdim=True)
            token = _sample(logits, total, temperature, top_p, generator) if temperature else logits.argmax(-1)
            logs = (logits.gather(1, token[:, None]) - total).squeeze(1).tolist()
            if written is not None:
                token = written[token]
            stay = []
            for number, (index, chosen) in enumerate(zip(alive, token.tolist(), strict=True)):
                sums[index] += logs[number]
                if chosen == lm.end:
                    finished[index] = True
                    continue
                new[index].append(chosen)
                # Only a token that could hold the stop text is worth decoding for.
                if stop and stop in lm.tokenizer.decode([chosen]) and new[index][:-1]:
                    finished[index] = True
                    continue
                stay.append(number)
            done(len(alive) - len(stay))
            if not stay or step + 1 == max_new_tokens:
                done(len(stay))
                break
            if len(stay) < len(alive):
                keep = torch.tensor(stay)  # layers and their caches may be on several devices
                alive, token, mask, place = [alive[n] for n in stay], token[keep], mask[keep], place[keep]
                cache.batch_select_indices(keep)
            ids, place = token[:, None], place[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
    return new, sums, finished


def _sample(logits: torch.Tensor, total: torch.Tensor, temperature: float, top_p: float,
            generator: torch.Generator) -> torch.Tensor:
    """One token a row from the nucleus of mass `top_p`; logits of shape (rows, vocabulary), total their logsumexp."""
    scaled = logits / temperature
    if temperature != 1:
        total = scaled.logsumexp(-1, keepdim=True)
    values, tokens = scaled.topk(min(NUCLEUS_CANDIDATES, scaled.shape[-1]))
    probabilities = (values - total).exp()
    drawn = tokens.gather(1, _draw(probabilities, top_p, generator)).squeeze(1)
    # Flat distributions need all tokens; they are a few rows, at the start of a text mostly.
    flat = (probabilities.sum(-1) < top_p).nonzero().squeeze(1)
    if len(flat):
        values, tokens = scaled[flat].sort(-1, descending=True)
        drawn[flat] = tokens.gather(1, _draw((values - total[flat]).exp(), top_p, generator)).squeeze(1)
    return drawn


def _draw(probabilities: torch.Tensor, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """Column drawn from each row's nucleus; probabilities in descending order, shape (rows, candidates)."""
    before = probabilities.cumsum(-1) - probabilities
    return torch.multinomial(probabilities.masked_fill(before > top_p, 0.0), 1, generator=generator)
