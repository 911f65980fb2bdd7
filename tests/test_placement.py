"""Models that take turns on a GPU, and one that is laid out over several."""

import os

import pytest
import torch
from synthtune.errors import StageError
from synthtune.models import decoding, language_model, placement, scoring
from synthtune.scale import workers
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


class Model(nn.Module):
    """Forty bytes of weights that say where they are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))
        self.at = "cpu"

    def to(self, device):
        self.at = device
        return self

    def get_memory_footprint(self, return_buffers):
        return 40


@pytest.fixture
def models(monkeypatch):
    """Four of them, beside a GPU of a hundred bytes."""
    found = [Model() for _ in range(4)]
    monkeypatch.setattr(placement, "_on_device", type(placement._on_device)())
    monkeypatch.setattr(placement, "free", lambda: 100 - sum(40 for model in found if model.at == "cuda"))
    monkeypatch.setattr(placement, "gpus", lambda: {0: 100})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return found


def places(models):
    return [model.at for model in models]


def test_guests_that_take_themselves_off_the_list_all_leave(models, monkeypatch):
    monkeypatch.setattr(placement, "guests", [])
    left = []

    def guest(number):
        def leave():
            left.append(number)
            placement.guests.remove(leave)

        placement.guests.append(leave)

    for arrive in (lambda: placement.to_device(models[0]), placement.offload_all):
        left.clear()
        for number in range(3):
            guest(number)
        arrive()
        assert left == [0, 1, 2] and not placement.guests



def test_one_leaves_where_two_and_their_caches_have_no_room(models):
    placement.to_device(models[0])
    placement.to_device(models[1])  # 60 bytes are free, as many as it needs
    assert places(models) == ["cuda", "cuda", "cpu", "cpu"]
    placement.to_device(models[2])
    assert places(models) == ["cpu", "cuda", "cuda", "cpu"]
    placement.to_device(models[1])
    assert places(models) == ["cpu", "cuda", "cuda", "cpu"]
    placement.offload_all()
    assert places(models) == ["cpu"] * 4


def test_without_a_gpu_nothing_moves(models, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    placement.to_device(models[0])
    placement.offload_all()
    assert places(models) == ["cpu"] * 4


def test_a_model_too_large_for_one_gpu_is_laid_out_over_several_layer_by_layer():
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(hidden_size=64, num_hidden_layers=12, num_attention_heads=4,
                                            intermediate_size=256, vocab_size=300))
    size = neox.get_memory_footprint(return_buffers=False)
    layout = placement.layout(neox, {0: size, 1: size, 2: size})
    layers = [layout[f"gpt_neox.layers.{number}"] for number in range(12)]
    assert layers == sorted(layers) and set(layers) == {0, 1, 2}
    assert max(layers.count(device) for device in range(3)) <= 5
    with pytest.raises(StageError, match=r"do not fit on 2 GPUs of .* --plan says how many"):
        placement.layout(neox, {0: size // 2, 1: size // 2})


def test_laid_out_it_scores_and_writes_the_same_and_comes_back_whole(lm, monkeypatch):
    # Two places of one processor: everything goes through the hooks that move inputs from device to device.
    model, prompts = lm.model, ["The film was", "It rained all day and the tent", "Soup:", "A train that is late"]

    def outcome():
        scores = scoring.score_labels(lm, prompts, ["good", "not very good"], "Note. ")
        return scores, decoding.decode(lm, prompts, 12, "Note. ", temperature=1.0, seed=3, stop=".")

    scores, written = outcome()
    size, on_gpus = model.get_memory_footprint(return_buffers=False), placement.layout
    monkeypatch.setattr(placement, "gpus", lambda: {0: size, 1: size})
    monkeypatch.setattr(placement, "free", lambda: 2 * size)
    monkeypatch.setattr(placement, "layout", lambda model, memory: dict.fromkeys(on_gpus(model, memory), "cpu"))
    with monkeypatch.context() as there:
        there.setattr(torch.cuda, "is_available", lambda: True)
        placement.to_device(model)
    try:
        assert sum(hasattr(part, "_hf_hook") for part in model.modules()) > len(model.get_decoder().layers)
        again, rewritten = outcome()
        assert torch.equal(scores, again) and written == rewritten
    finally:
        placement.offload(model)
    assert not any(hasattr(part, "_hf_hook") or "forward" in vars(part) for part in model.modules()) and "to" not in vars(model)
    digits = torch.tensor(lm.encode("0 1 2 3"))
    narrow = language_model.with_vocabulary(lm, digits.unique())
    assert narrow.model(digits[None]).logits.shape[-1] == len(digits.unique()), "a twin of it is still its own"


@pytest.mark.parametrize(("given", "processes", "expected"), [
    (None, 4, ["0", "1", "2", "3"]),
    (None, 2, ["0,1", "2,3"]),
    (None, 3, ["0", "1", "2"]),
    (None, 6, ["0", "1", "2", "3", "0", "1"]),
    ("4,5,6,7", 2, ["4,5", "6,7"]),
    ("GPU-a, GPU-b,GPU-c,GPU-d", 4, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]),
])
def test_gpus_are_divided_over_processes(monkeypatch, given, processes, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    if given:
        monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", given)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [workers._own_gpus(rank, processes)["CUDA_VISIBLE_DEVICES"] for rank in range(processes)] == expected


def test_without_gpus_none_are_divided():
    if not torch.cuda.is_available():
        assert workers._own_gpus(0, 2) == {}
