"""Causal language models: loading, tokens, batches; see `scoring` and `decoding` for what is computed with them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from synthtune import number_format as number_formats
from synthtune.errors import AssetError, SettingsError
from synthtune.models import assets, layers
from synthtune.number_format import NumberFormat

# What `agree` found.
_AGREED: dict[tuple, bool] = {}


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes
    ----------
    model : PreTrainedModel
        In evaluation mode. What uses it moves it to the GPU, where there is one.
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
        return self.model.device

    @property
    def format(self) -> NumberFormat:
        """Of the weights, and of what is computed with them."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def end(self) -> int:
        """Token that ends every text that the teacher generates."""
        return self.tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def turn(self, text: str) -> str:
        """A text as a user's turn in the model's chat template, up to where the answer begins.

        Raises
        ------
        SettingsError
            If its tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise SettingsError(f"teacher.prompts: the tokenizer of {self.name} has no chat template: set it to plain, or name an "
                                "instruction-tuned model.")
        return self.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)


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
    path = assets.model_path(name)
    with assets.loading(name, "tokenizer"):
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
    path, dtype = assets.model_path(name), number_formats.dtype(number_format or number_formats.of_machine())
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
def with_vocabulary(lm: LanguageModel, vocabulary: torch.Tensor) -> LanguageModel:
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
    narrow = nn.Linear(head.in_features, len(vocabulary), bias=head.bias is not None, device=head.weight.device, dtype=head.weight.dtype)
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
    side = "left" if left else "right"
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill, padding_side=side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True, padding_side=side)
    return ids, mask


def by_length(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Indices in batches of rows of similar length, so that little is spent on padding."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    return [order[start: start + size] for start in range(0, len(order), size)]


def after_prefix(lm: LanguageModel, prefix: str, prompts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
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


def agree(lm: LanguageModel, fast: Callable[..., Any], plain: Callable[..., Any]) -> bool:
    """Whether a model takes a fast way of reading texts as it is meant: tried on two short texts, as not every architecture does.

    It needs masks of four dimensions, positions or caches that some do without. Declared models are known to have them; of
    others the answer is kept while this process lasts.
    """
    if lm.name in assets.models():
        return True
    known = lm.digest, lm.format, lm.vocabulary is None, fast.__qualname__
    if known not in _AGREED:
        _AGREED[known] = _same(lm, fast, plain)
    return _AGREED[known]


def _same(lm: LanguageModel, fast: Callable[..., Any], plain: Callable[..., Any]) -> bool:
    texts = [lm.encode(text) for text in ("Some words to begin with.", "One text", "and another one, which is longer",
                                          " yes", " no, not at all")]
    given = texts[0], texts[1:3], texts[3:]
    wanted = torch.as_tensor(plain(*given))
    try:
        found = torch.as_tensor(fast(*given))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, wanted, rtol=1e-4 if lm.format == "float32" else 0.03)


def read_once(lm: LanguageModel, prefix: list[int]) -> Cache | None:
    """The keys and values of tokens with which every text begins; None if there are no such tokens."""
    if not prefix:
        return None
    return lm.model(torch.tensor([prefix], device=lm.device), use_cache=True, logits_to_keep=1).past_key_values


def put_before(cache: Cache, prefix: Cache, rows: int) -> None:
    """Begin each row of an empty cache with what `read_once` gave."""
    for number, layer in enumerate(prefix.layers):
        cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), number)


def next_logits(lm: LanguageModel, rows: list[list[int]], number: int) -> list[torch.Tensor]:
    """Logits after each of the last `number` tokens of each row, in float32, (number, vocabulary); nothing is cached."""
    # Padding on the right is never seen by a token before it, so no mask is needed.
    ids, _ = padded(rows, lm.end, left=False)
    first = min(map(len, rows)) - number
    logits = lm.model(ids.to(lm.device), use_cache=False, logits_to_keep=ids.shape[1] - first).logits
    return [each[len(row) - number - first: len(row) - first].float() for row, each in zip(rows, logits, strict=True)]
