"""What a transformer costs, from its sizes alone: parameters, FLOPs and bytes.

Models are built on PyTorch's meta device from the sizes in `assets.yaml`, or in a model's own config.json: shapes without
numbers. No weights are loaded or fetched, and nothing is computed.

Symbols, for one stack of L equal transformer layers (`Stack`): h hidden size, q and k width of the queries and of the
keys (q = h and k = h but for grouped queries), f feed-forward size, w weights of a layer's linear maps, s tokens of a
text, b texts in a pass, V vocabulary, r LoRA rank, e bytes of a number (2 or 4), N GPUs of one job.

FLOPs. A multiplication and an addition are two.
    forward       2·w·L·s for the linear maps (Kaplan et al. 2020, arXiv:2001.08361, §2.1) and 4·q·L·s·c for attention
                  over c positions, c = s without a cache (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, app. B, whose
                  6·N + 12·L·H·Q·T for training is three times this). The whole square of attention is counted, as PaLM
                  does; kernels that skip its masked half do less. The output head, 2·h·V, is applied only where a token
                  is predicted.
    backward      twice the forward pass: gradients of inputs and of weights. A frozen weight has no gradient, so under
                  LoRA (Hu et al. 2022, arXiv:2106.09685) the frozen maps cost once, attention twice, the adapters, with
                  r·(inputs + outputs) weights a map, twice.
    checkpointed  one forward pass more of the layers that are trained and of the teacher's output head (Chen et al.
                  2016, arXiv:1604.06174); PyTorch stops a layer's second pass where nothing more is needed, before its
                  last map if that has no adapter.
    frozen layers below the trained ones are read once per text and not once per epoch, as the stages do.

Memory, in bytes, of a job on N GPUs that share everything but activations (ZeRO stage 3, Rajbhandari et al. 2020,
arXiv:1910.02054, §5; PyTorch's FSDP):
    weights       e for each frozen parameter and 4 for each trained one, over N
    gradients     4 for each trained parameter, over N
    optimizer     8 for each trained parameter, AdamW's two moments (Rajbhandari et al., §3.1, count 12 with the float32
                  weights, which are above), and 4 for each tensor, its step, over N
    gathered      N > 1 only: e for each parameter outside the layers and in two layers, which are whole while in use.
                  Without LoRA what is kept in float32 is gathered, and computed with, in e bytes.
    activations   what autograd keeps of the forward pass, for b·s tokens (Korthikanti et al. 2022, arXiv:2205.05198,
                  §4.1). A layer of h, f = 4h and GELU keeps, in numbers a token: the inputs of two norms 2h, their
                  outputs 2h, queries, keys, values and the result of attention 4h, the input and the output of GELU
                  2f; with e = 2 that is 32·h bytes, and 34·h with the two dropout masks of one byte. The term in s²
                  is absent: fused attention (Dao et al. 2022, arXiv:2205.14135) keeps no scores. `Stack` has
                  the same count for other layers (gates, RMSNorm, parallel residuals, cross-attention, an activation
                  function written in several steps). With LoRA in bfloat16 peft makes a float32 copy of the input of
                  each adapted map. Checkpointed: h numbers a token for each layer, and one whole layer. Under autocast
                  (students on GPUs) norms keep their inputs in float32, every map that reads a norm's output makes a copy
                  of it in bfloat16, and the layers' maps have copies of their weights in bfloat16 until the backward pass.
    logits        12·V for each predicted token: float32 log-probabilities, and two gradients of that size.
                  Checkpointed: for `LOGITS_AT_ONCE` tokens, and e·h for each predicted token.
    KV cache      2·k·L·e for each token of each sequence (Pope et al. 2022, arXiv:2211.05102), over N
Why formulas, and not PyTorch's FlopCounterMode and saved-tensor hooks on a model of shapes alone. Tried on GPT-NeoX-20B and
RoBERTa-large, both give the same bytes within 0.2 % and the same FLOPs of linear maps, but take 3 to 7 s for each shape, or 0.1 s where
one layer stands for all. On the meta device causal masks cannot be made (a number of them is read), FLOPs of fused attention are not
counted, autocast has no effect, and dropout keeps masks of 4 bytes an element, where a GPU keeps 1. Working around these takes more code
than the formulas. The tests measure small models with both.
One copy of a model is counted. Not counted: the optimizer's temporary copies, and gaps between tensors; nor what a teacher
whose weights are all trained keeps more where one GPU holds it (`teacher.sharding=replicated`) and computes under autocast.
"""

import functools
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
)
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from synthtune.errors import SettingsError, nearest
from synthtune.models import assets, layers

# Where configurations name the activation function of a layer.
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation", "dense_act_fn")

# The class of a model in each role; students made of an encoder aside.
ROLES = {"teacher": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification, "seq2seq student": AutoModelForSeq2SeqLM}

# Names of linear maps that read the encoder's tokens.
CROSSING = re.compile(r"(cross|encoder_attn|EncDecAttention).*(key|value|k_proj|v_proj|\.k|\.v)$")

# Tokens whose logits a teacher computes together in training, where activations are checkpointed.
LOGITS_AT_ONCE = 512


@dataclass(frozen=True)
class Stack:
    """Equal transformer layers, one on the other.

    Attributes
    ----------
    layers : int
    hidden, query, key : int
        h, q and k of the module's docstring.
    parameters, linear, crossing, last : int
        Of a layer: all, those in linear maps, and of these the ones that read the encoder's tokens, and those of the map
        that ends the layer.
    inputs, outputs, maps : int
        Of a layer's linear maps: sum of their inputs, of their outputs, and their number.
    attentions : int
        1, or 2 with cross-attention.
    kept, fed, normed, normalised : int
        Numbers that a layer keeps for each token: for operations other than linear maps; as inputs of linear maps; of
        `kept`, those that norms keep; and of these an RMSNorm's, which are in float32, and kept once more if it is trained.
    masked : int
        Elements of dropout masks for each token, one byte each.
    """

    layers: int
    hidden: int
    query: int
    key: int
    parameters: int
    linear: int
    crossing: int
    last: int
    inputs: int
    outputs: int
    maps: int
    attentions: int
    kept: int
    fed: int
    normed: int
    normalised: int
    masked: int

    def forward(self, tokens: float, context: float, memory: float = 0) -> float:
        """FLOPs of all layers for `tokens`, each attending to `context` positions.

        With cross-attention they are the tokens of one text, and attend to `memory` tokens of the encoder too.
        """
        linear = 2 * (self.linear - self.crossing) * tokens + 2 * self.crossing * memory
        return self.layers * (linear + self.attention(tokens, context, memory))

    def attention(self, tokens: float, context: float, memory: float = 0) -> float:
        """Of these, a layer's products of queries with keys and of their softmax with values."""
        return 4 * self.query * tokens * (context + memory)

    def adapter(self, rank: int) -> int:
        """LoRA's parameters on all linear maps of a layer."""
        return rank * (self.inputs + self.outputs)

    def activations(self, size: int, rank: int = 0, autocast: bool = False) -> float:
        """Bytes a layer keeps for each token; with LoRA if `rank` is not 0. `size` is e."""
        if autocast:
            fed = self.inputs - self.attentions * self.query  # results of attention are among what is kept
            return size * (self.kept - self.normed + fed) + 4 * self.normed + self.masked
        kept = size * (self.kept - self.normalised) + 4 * self.normalised + self.masked
        if not rank:
            return kept + size * (self.fed + self.normalised)
        # Inputs already in float32 are shared by the maps that read them; copies are not.
        return kept + 4 * self.maps * rank + (4 * self.fed if size == 4 else 4 * self.inputs)

    def cache(self, size: int) -> int:
        """Bytes of keys and values for each token."""
        return 2 * self.key * self.layers * size


@dataclass(frozen=True)
class Architecture:
    """A model's sizes.

    Attributes
    ----------
    parameters, tensors : int
        All of them, shared ones once.
    head : int
        Weights of linear maps outside the layers that every predicted token (or text) goes through.
    vocabulary : int
        Columns of the head: tokens, or labels.
    below : int
        Parameters of an encoder's embeddings, which are frozen with its lowest layers.
    norms : int
        Normalisations outside the layers.
    encoder, decoder : Stack or None
    """

    parameters: int
    tensors: int
    below: int
    head: int
    vocabulary: int
    norms: int
    encoder: Stack | None
    decoder: Stack | None


def architecture(model: nn.Module) -> Architecture:
    """Read a model's sizes off its modules, which may be on the meta device.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model, an encoder with a classification head, or an encoder–decoder.
    """
    lists = _layer_lists(model)
    stacks = {}
    for name, module in lists.items():
        decodes = "decoder" in name or type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
        side = "decoder" if decodes else "encoder"
        config = getattr(model.config, side) if isinstance(model, EncoderDecoderModel) else model.config
        stacks[side] = _stack(module[0], len(module), config)
    inside = tuple(f"{name}." for name in lists)
    outside = [module for name, module in model.named_modules() if not name.startswith(inside)]
    heads = [module for module in outside if isinstance(module, nn.Linear)]
    parameters = dict(model.named_parameters())
    return Architecture(
        parameters=sum(each.numel() for each in parameters.values()), tensors=len(parameters),
        below=sum(each.numel() for name, each in parameters.items() if "embed" in name and not name.startswith("decoder")),
        head=sum(module.weight.numel() for module in heads), vocabulary=heads[-1].out_features,
        norms=sum("Norm" in type(module).__name__ for module in outside), encoder=stacks.get("encoder"), decoder=stacks.get("decoder"))


def _layer_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of layers: the one of a causal model, or the outermost ones."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)}
    path = layers.stack(model)
    names = [path] if path else [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return {name: found[name] for name in names}


def _stack(layer: nn.Module, number: int, config: Any) -> Stack:
    """A stack of so many layers like this one."""
    # Inputs and outputs of each linear map. A Conv1D, as GPT-2 has them, is one whose weight is the other way round.
    maps = {name: module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
            for name, module in layer.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    crossing = [math.prod(size) for name, size in maps.items() if CROSSING.search(name)]
    hidden, heads, feed = config.hidden_size, getattr(config, "num_attention_heads", 1), max(read for read, _ in maps.values())
    width = getattr(config, "head_dim", None) or hidden // heads
    query, key = heads * width, (getattr(config, "num_key_value_heads", None) or heads) * width
    attentions = 2 if crossing else 1
    norms = [type(module).__name__ for module in layer.modules() if "Norm" in type(module).__name__]
    drops = any(getattr(config, name, 0) for name in ("hidden_dropout", "hidden_dropout_prob", "dropout"))
    act = next((getattr(config, name) for name in ACTIVATIONS if isinstance(getattr(config, name, None), str)), "gelu")
    # Norms that read the same tensor keep it once. Values that are a part of one packed product keep all of it, and
    # with packing comes a layout in which the result of attention is copied before the next linear map.
    normed = (1 if getattr(config, "use_parallel_residual", False) else len(norms)) * hidden
    gated, packed = (any(name.endswith(end) for name in maps) for end in ("gate_proj", "query_key_value"))
    return Stack(
        layers=number, hidden=hidden, query=query, key=key, parameters=sum(parameter.numel() for parameter in layer.parameters()),
        linear=sum(map(math.prod, maps.values())), crossing=sum(crossing), last=feed * hidden,
        inputs=sum(read for read, _ in maps.values()), outputs=sum(given for _, given in maps.values()), maps=len(maps),
        attentions=attentions, kept=normed + (2 * attentions + packed) * (query + key) + (_kept_by(act) + 2 * gated) * feed,
        fed=len(norms) * hidden + feed + packed * query, normed=normed, normalised=sum("RMS" in name for name in norms) * hidden,
        masked=(attentions + 1) * hidden if drops else 0)


@functools.cache
def _kept_by(activation: str) -> int:
    """Numbers that an activation function keeps for each of its inputs, its output aside."""
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() > 1:  # constants are kept too
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = ACT2FN[activation](torch.empty(2, device="meta", requires_grad=True))
    kept.pop(output.untyped_storage()._cdata, None)
    return len(kept)


def is_seq2seq(name: str) -> bool:
    """Whether a model was pretrained as an encoder–decoder."""
    return AutoConfig.for_model(assets.architecture(name)["model_type"]).is_encoder_decoder


@functools.cache
def model_of(name: str, role: str, labels: int = 2, encoder_layers: int = 0, decoder_layers: int = 0) -> Architecture:
    """The sizes of a model in one of its roles, from `assets.yaml` or from its own configuration.

    Parameters
    ----------
    name : str
    role : "teacher", "classifier" or "seq2seq student"
        A seq2seq student is an encoder–decoder, or a model built from the lowest layers of an encoder.
    labels : int
        Of a classifier.
    encoder_layers, decoder_layers : int
        Of a seq2seq student built from an encoder.

    Raises
    ------
    SettingsError
        If no model has that name, or it cannot have that role.
    """
    if name not in assets.models() and "/" not in name:
        raise SettingsError(f"No model is called '{name}': {nearest(name, assets.models())}")
    sizes = dict(assets.architecture(name))
    kind = sizes.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **sizes)
        config.num_labels = labels
        with torch.device("meta"):
            if role != "seq2seq student" or config.is_encoder_decoder:
                return architecture(ROLES[role].from_config(config))
            lower = BertModel(BertConfig(**{**sizes, "num_hidden_layers": encoder_layers}), add_pooling_layer=False)
            upper = BertLMHeadModel(BertConfig(**{**sizes, "num_hidden_layers": decoder_layers, "is_decoder": True,
                                                  "add_cross_attention": True}))
            return architecture(EncoderDecoderModel(encoder=lower, decoder=upper))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"Model '{name}' ({kind}) cannot be a {role}: choose another one.") from error


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    activations: float = 0
    cache: float = 0
    logits: float = 0
    gathered: float = 0

    @property
    def total(self) -> float:
        """All of them."""
        return sum(asdict(self).values())


def trained_memory(frozen: float, trained: float, tensors: int, size: int, gpus: int = 1) -> Memory:
    """Weights, gradients and optimizer state of so many frozen and trained parameters.

    Parameters
    ----------
    frozen, trained : float
        Numbers of parameters.
    tensors : int
        That the trained ones are in.
    size : int
        Bytes of a frozen parameter.
    gpus : int
        That share all of it.
    """
    return Memory(weights=(frozen * size + trained * 4) / gpus, gradients=trained * 4 / gpus, optimizer=(trained * 8 + tensors * 4) / gpus)


def activation_bytes(stack: Stack, layers: int, tokens: float, size: int, rank: int = 0, norms: int = 1, checkpointed: bool = False,
                     autocast: bool = False) -> float:
    """Bytes kept of a forward pass through the top `layers` of a stack.

    Parameters
    ----------
    stack : Stack
    layers : int
        That are trained.
    tokens : float
        In the pass.
    size : int
        Bytes of an activation.
    rank : int
        Of LoRA; 0 if everything is trained.
    norms : int
        Normalisations outside the layers.
    checkpointed : bool
        Keep the layers' inputs only, and compute one layer at a time again.
    autocast : bool
        Whether the weights are float32 and operations in fewer bytes are chosen one by one.
    """
    each = stack.activations(size, rank, autocast)
    if not layers:
        return 0
    inner = layers * stack.hidden * size + each if checkpointed else layers * each
    copies = size * layers * stack.linear if autocast else 0
    return tokens * (inner + norms * stack.hidden * (4 if autocast else size)) + copies


def training_flops(forward: float, attention: float, head: float, adapters: float = 0, lora: bool = False) -> float:
    """FLOPs of a forward and a backward pass, nothing checkpointed.

    Parameters
    ----------
    forward : float
        FLOPs of the trained layers' forward pass, adapters aside.
    attention : float
        Of these, attention's.
    head : float
        FLOPs of the output head's forward pass.
    adapters : float
        FLOPs of the adapters' forward pass.
    lora : bool
        Whether only adapters are trained.
    """
    if not lora:
        return 3 * (forward + head)
    return 2 * (forward + head) + attention + 3 * adapters


def gathered(model: Architecture, size: int, gpus: int) -> float:
    """Bytes of weights that are whole on each GPU while they are in use."""
    if gpus == 1:
        return 0
    stacks = [stack for stack in (model.encoder, model.decoder) if stack]
    outside = model.parameters - sum(stack.layers * stack.parameters for stack in stacks)
    return size * (outside + 2 * max(stack.parameters for stack in stacks))
