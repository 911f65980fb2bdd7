"""A pretrained model's layers, found by its structure, and its two parts: frozen layers, read once, and those that are trained.

transformers' architectures name their layers differently, and some do more between them than hand hidden states on (relative
positions, scaled embeddings, convolutions). Whether the two parts together give what the whole gives is therefore tried, on one
small batch; where they do not, the frozen layers are read anew each time.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

# Largest difference of the two parts' logits from the whole's, as a share of the largest logit.
CLOSE = 1e-5


class _Reached(Exception):
    """The hidden states that a layer was to read."""


class _Layer(nn.Module):
    """Stands in a layer's place, with its plain attributes, by which some models choose masks and positions."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        vars(self).update({name: value for name, value in vars(layer).items() if name not in vars(self) and name != "forward"})


class _Stop(_Layer):
    """Ends the pass through a model where the lower part ends."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise _Reached(args[0] if args else kwargs["hidden_states"])


class _Skipped(_Layer):
    """Hands on the hidden states."""

    def __init__(self, layer: nn.Module, answers: int) -> None:
        super().__init__(layer)
        self.answers = answers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *[None] * (self.answers - 1)) if self.answers else states


class _Given(nn.Module):
    """In place of an embedding layer: hands on the hidden states it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        given = [value for value in (*args, *kwargs.values()) if torch.is_tensor(value) and value.is_floating_point()]
        return given[0]


@dataclass(frozen=True)
class Parts:
    """How a model is divided at a layer.

    Attributes
    ----------
    path : str
        Name of the list of its layers.
    number : int
        Layers in the lower part, of which the embeddings are too.
    answers : int
        How many things its layers answer with, in a tuple; 0 if with hidden states alone.
    upper_names : frozenset of str
        Names of the weights outside the layers that come after them.
    apart : bool
        Whether the two parts can be run one after the other.
    """

    path: str
    number: int
    answers: int
    upper_names: frozenset[str]
    apart: bool

    def lower(self, model: PreTrainedModel) -> Callable[..., torch.Tensor]:
        """The embeddings and lowest layers, token ids in, hidden states out; they share their modules with the model."""
        layers = model.get_submodule(self.path)
        kept = [*layers[: self.number], _Stop(layers[min(self.number, len(layers) - 1)])]
        part = replaced(model, self.path, nn.ModuleList(kept))

        def read(**given: Any) -> torch.Tensor:
            try:
                part(**given)
            except _Reached as reached:
                return reached.args[0]
            raise AssertionError("a layer is not reached")

        return read

    def upper(self, model: PreTrainedModel) -> PreTrainedModel:
        """The upper part, which takes hidden states as `inputs_embeds`; it shares its modules with the model."""
        layers = model.get_submodule(self.path)
        kept = [_Skipped(layer, self.answers) for layer in layers[: self.number]] + [*layers[self.number:]]
        upper = replaced(model, self.path, nn.ModuleList(kept))
        for name in ("embeddings", "embeddings_project"):
            if hasattr(model.base_model, name):
                upper = replaced(upper, f"{model.base_model_prefix}.{name}", _Given())
        return upper

    def freeze(self, model: PreTrainedModel) -> None:
        """Let a model, or its upper part, learn in its upper layers and in what comes after them."""
        kept = tuple(f"{self.path}.{place}." for place in range(self.number))
        for name, weight in model.named_parameters():
            outside = not name.startswith(f"{self.path}.")
            if name.startswith(kept) or (outside and name not in self.upper_names):
                weight.requires_grad_(False)


def stack(model: PreTrainedModel) -> str | None:
    """The name of the list of a model's layers; None for an encoder–decoder, or if it has none."""
    if model.config.is_encoder_decoder:
        return None
    lists = {name: module for name, module in model.named_modules()
             if isinstance(module, nn.ModuleList) and len(module) == getattr(model.config, "num_hidden_layers", None)}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return max(outermost, key=lambda name: sum(weight.numel() for weight in lists[name].parameters()), default=None)


@torch.no_grad()
def parts(model: PreTrainedModel, number: int, ids: torch.Tensor, **read: torch.Tensor) -> Parts | None:
    """Divide a model at a layer, and try whether its parts give what it gives.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode.
    number : int
        Layers of the lower part, at most as many as there are.
    ids : LongTensor of shape (batch, length)
        What it is tried on.
    read : Tensor
        What the model is given besides: attention_mask.

    Returns
    -------
    Parts or None
        None if no layers are found.
    """
    path = stack(model)
    if path is None:
        return None
    layers, after, seen = model.get_submodule(path), set(), []
    inside = set(layers.modules())

    def last(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(output)

    def outer(module: nn.Module, _args: Any) -> None:
        if seen:
            after.update(map(id, module.parameters(recurse=False)))

    hooks = [layers[-1].register_forward_hook(last)]
    hooks += [module.register_forward_pre_hook(outer) for module in model.modules() if module not in inside]
    try:
        whole = model(input_ids=ids, **read).logits
    finally:
        for hook in hooks:
            hook.remove()
    names = frozenset(name for name, weight in model.named_parameters() if id(weight) in after)
    found = Parts(path, min(number, len(layers)), len(seen[0]) if isinstance(seen[0], tuple) else 0, names, True)
    try:
        states = found.lower(model)(input_ids=ids, **read)
        together = found.upper(model)(inputs_embeds=states, **read).logits
        apart = bool((together - whole).abs().max() <= CLOSE * whole.abs().max())
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError):
        apart = False
    return replace(found, apart=apart)


@dataclass(frozen=True)
class _Answer:
    """A decoder's answer: last hidden states, and nothing by any other name."""

    last_hidden_state: torch.Tensor

    def __getitem__(self, place: int) -> torch.Tensor:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, _name: str) -> None:
        return None


class _Read(nn.Module):
    """In place of a decoder: hands on the hidden states it is given as its own last ones."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> _Answer:
        return _Answer(inputs_embeds)


def logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """What a causal language model makes of its decoder's last hidden states, with all that it does to logits, such as scaling.

    Parameters
    ----------
    model : PreTrainedModel
    hidden : Tensor of shape (tokens, hidden)

    Returns
    -------
    Tensor of shape (tokens, vocabulary)
    """
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder)
    return replaced(model, path, _Read())(inputs_embeds=hidden[None], use_cache=False).logits[0]


def replaced(module: nn.Module, path: str, new: nn.Module) -> Any:
    """A second module with the same children, but for one of another name or deeper."""
    name, _, rest = path.partition(".")
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._modules[name] = replaced(module._modules[name], rest, new) if rest else new
    return twin
