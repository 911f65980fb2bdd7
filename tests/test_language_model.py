"""Scoring, writing and sampling with the real language model, each against the plain way of doing it."""

import importlib.util

import numpy as np
import pytest
import torch
from synthtune.errors import AssetError, StageError
from synthtune.models import decoding, language_model, layers, scoring

PROMPTS = [
    "Tweet: what a lovely day\nMood:",
    "Tweet: no\nMood:",
    "Tweet: I waited for two hours in the rain and the bus never came, so thanks for nothing\nMood:",
    "Tweet: ok then, see you tomorrow at the station\nMood:",
]
LABELS = ["good", "very bad indeed", "neither good nor bad", "undecidable", "bad"]
PREFIX = "Name the mood of each tweet.\n\nTweet: I love it\nMood: good\n\n"


@torch.inference_mode()
def naive_score(lm, prefix, prompt, label):
    """Log-probability of a label, one forward pass, one token after the other."""
    read, learned = lm.encode(prefix + prompt), lm.encode(" " + label)
    logits = lm.model(torch.tensor([read + learned])).logits[0].double().log_softmax(-1)
    return sum(logits[len(read) + place - 1, token].item() for place, token in enumerate(learned))


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_label_scores_equal_one_pass_a_label(lm, prefix):
    assert {len(lm.encode(" " + label)) for label in LABELS} >= {1, 3, 4}
    wanted = torch.tensor(
        [[naive_score(lm, prefix, prompt, label) for label in LABELS] for prompt in PROMPTS]
    )
    for size in (1, 3):
        torch.testing.assert_close(
            scoring.score_labels(lm, PROMPTS, LABELS, prefix, size).double(),
            wanted.double(),
            atol=1e-3,
            rtol=0,
        )
    # A label's score depends neither on the other labels nor on the other prompts, nor on their order.
    turned = scoring.score_labels(lm, PROMPTS[::-1], LABELS[:1:-1], prefix, 2)
    torch.testing.assert_close(turned.double(), wanted.flip(0)[:, 2:].flip(1).double(), atol=1e-3, rtol=0)


def test_labels_of_one_token(lm):
    labels = ["good", "bad"]
    assert all(len(lm.encode(" " + label)) == 1 for label in labels)
    wanted = torch.tensor([[naive_score(lm, "", prompt, label) for label in labels] for prompt in PROMPTS])
    torch.testing.assert_close(scoring.score_labels(lm, PROMPTS, labels), wanted, atol=1e-3, rtol=0)


def test_no_prompts(lm):
    assert scoring.score_labels(lm, [], LABELS).shape == (0, len(LABELS))
    assert decoding.decode(lm, [], 5) == ([], [], [])


# Unequal lengths; two of these end by themselves, after different numbers of tokens.
STORIES = [
    "The capital of France is",
    "1, 2, 3, 4,",
    "Q: What is two plus two?\nA:",
    "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nName the capital of Italy.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a small village at the foot of a high mountain, there lived a",
]


@pytest.fixture(scope="module")
def plain(lm):
    """Token ids that transformers' own greedy decoding writes after each of the STORIES, one at a time."""
    written = []
    for story in STORIES:
        ids = torch.tensor([lm.encode(story)])
        tokens = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=16,
            pad_token_id=lm.end,
            eos_token_id=lm.end,
        )
        written.append(tokens[0, ids.shape[1] :].tolist())
    return written


needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is no dependency: not installed")
ENGINES = pytest.mark.parametrize("engine", ["batches", pytest.param("vllm", marks=needs_vllm)])


@pytest.mark.slow
@ENGINES
@pytest.mark.parametrize("size", [2, 64])
def test_greedy_writing_is_that_of_transformers(lm, plain, size, engine):
    texts, sums, finished = decoding.decode(lm, STORIES, 16, batch_size=size, engine=engine)
    assert texts == [lm.tokenizer.decode(row, skip_special_tokens=True).strip() for row in plain]
    assert finished == [row[-1] == lm.end for row in plain]
    lengths = {len(row) for row, done in zip(plain, finished, strict=True) if done}
    assert len(lengths) >= 2 and not all(finished), "these prompts no longer end at different times"
    for story, row, total in zip(STORIES, plain, sums, strict=True):
        with torch.inference_mode():
            ids = lm.encode(story)
            logs = lm.model(torch.tensor([ids + row])).logits[0].log_softmax(-1)
        wanted = sum(logs[len(ids) + place - 1, token].item() for place, token in enumerate(row))
        assert total == pytest.approx(wanted, abs=1e-2)


def test_a_prefix_is_as_if_it_stood_before_every_prompt(lm):
    prefix = "A list of capitals.\n\n"
    prompts = ["France:", "The United Kingdom of Great Britain and Northern Ireland:"]
    with_prefix = decoding.decode(lm, prompts, 8, prefix=prefix)
    whole = decoding.decode(lm, [prefix + prompt for prompt in prompts], 8)
    assert with_prefix[0] == whole[0] and with_prefix[1] == pytest.approx(whole[1], abs=1e-2)


def test_an_output_layer_for_some_tokens_writes_no_others(lm):
    ids = torch.tensor([lm.encode(STORIES[0])])
    kept = torch.tensor(sorted({*lm.encode("0 1 2 3 4 5 6 7 8 9"), lm.end}))
    narrow = language_model.with_vocabulary(lm, kept)
    with torch.inference_mode():
        torch.testing.assert_close(narrow.model(ids).logits, lm.model(ids).logits[..., kept])
    for temperature in (0.0, 1.0):
        texts, sums, _ = decoding.decode(narrow, STORIES, 6, temperature=temperature, seed=1)
        assert set("".join(texts)) <= set("0123456789 ") and max(sums) < 0
    everything = language_model.with_vocabulary(lm, torch.arange(lm.model.config.vocab_size))
    assert decoding.decode(everything, STORIES, 8) == decoding.decode(lm, STORIES, 8)


def test_without_vllm_it_says_what_to_do(lm, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StageError, match="vLLM is not installed.*pip install vllm.*or set generate.engine=batches"):
        decoding.decode(lm, STORIES, 4, engine="vllm")


@ENGINES
def test_writing_stops_at_a_text(lm, engine):
    prompts = ["Q: What is two plus two?\nA:", "One, two, three,"]
    [answer, count], sums, [stopped, other] = decoding.decode(lm, prompts, 12, stop="\n", engine=engine)
    assert (
        stopped
        and "\n" not in answer
        and answer == decoding.decode(lm, prompts, 12)[0][0].split("\n")[0]
    )
    assert count and sums[0] < 0


@pytest.mark.slow
@ENGINES
def test_sampling_is_fixed_by_its_seed(lm, engine):
    def sampled(seed):
        return decoding.decode(
            lm, STORIES[:3], 6, batch_size=2, temperature=1.0, top_p=0.95, seed=seed, engine=engine
        )

    first = sampled(1)
    torch.manual_seed(99)  # the seed of everything else has no part in it
    assert sampled(1) == first and sampled(2)[0] != first[0]
    # So has a temperature near zero, where sampling is greedy.
    cold = decoding.decode(lm, STORIES[:3], 6, temperature=1e-4, top_p=0.95, seed=3, engine=engine)
    assert cold[0] == decoding.decode(lm, STORIES[:3], 6)[0]


def nucleus(row, temperature, top_p):
    """Probabilities inside the nucleus, by sorting everything (Holtzman et al. 2020, definition)."""
    weights = np.exp((row - row.max()) / temperature)
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    size = int(np.searchsorted(np.cumsum(weights[order]), top_p)) + 1  # the fewest whose mass reaches top_p
    kept = np.zeros_like(weights)
    kept[order[:size]] = weights[order[:size]]
    return kept / kept.sum()


def sampled_rows(logits, temperature, top_p, generator):
    return decoding._sample(logits, logits.logsumexp(-1, keepdim=True), temperature, top_p, generator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "temperature", "top_p"),
    [
        (6.0, 1.0, 0.9),  # a peaked row: the nucleus is among the likeliest 256
        (6.0, 0.5, 0.9),
        (0.5, 1.0, 0.5),  # a flat row: it has hundreds of tokens more than those
        (3.0, 1.0, 1.0),  # no nucleus
    ],
)
def test_sampling_is_exact(monkeypatch, scale, temperature, top_p):
    monkeypatch.setattr(decoding, "NUCLEUS_CANDIDATES", 256)
    rng = np.random.default_rng(7)
    row = rng.normal(size=2000) * scale
    wanted = nucleus(row, temperature, top_p)
    small = int((wanted > 0).sum()) <= decoding.NUCLEUS_CANDIDATES
    assert small == (scale == 6.0)
    logits = torch.tensor(row, dtype=torch.float32).expand(4000, -1)
    generator = torch.Generator().manual_seed(5)
    drawn = torch.cat([sampled_rows(logits, temperature, top_p, generator) for _ in range(10)]).numpy()
    counts = np.bincount(drawn, minlength=2000)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(wanted))
    # Pearson's statistic over tokens expected often enough, against its own spread (mean k, variance 2k).
    expected = wanted * len(drawn)
    often = expected >= 5
    statistic = ((counts[often] - expected[often]) ** 2 / expected[often]).sum()
    assert abs(statistic - often.sum()) < 5 * np.sqrt(2 * often.sum())
    assert abs(counts[often].sum() / len(drawn) - wanted[often].sum()) < 0.02
    if small:
        assert (counts[wanted > 0.002] > 0).all()


def test_rows_of_a_batch_are_sampled_each_from_its_own_nucleus():
    """A flat row makes the whole batch take the long way; a peaked row must not notice."""
    peaked, flat = torch.full((1000,), -50.0), torch.zeros(1000)
    peaked[17] = 50.0
    drawn = sampled_rows(
        torch.stack([peaked, flat, peaked]).repeat(200, 1), 1.0, 0.6, torch.Generator().manual_seed(1)
    ).reshape(200, 3)
    assert (drawn[:, [0, 2]] == 17).all() and len(set(drawn[:, 1].tolist())) > 100


@pytest.mark.parametrize("prompts", [1, 3])
def test_the_output_layer_reads_rows_that_lie_side_by_side(lm, prompts):
    """Strides that PyTorch takes for one matrix: otherwise a merged teacher copies the weights for every row."""
    read = []
    hook = lm.model.lm_head.register_forward_hook(lambda _head, inputs, _logits: read.append(inputs[0]))
    scoring.score_labels(lm, PROMPTS[:prompts], ["yes", "no"])
    hook.remove()
    assert [states.stride() for states in read] == [(576 * states.shape[1], 576, 1) for states in read] and read


@pytest.mark.parametrize("layer", [0, 15, 29])
def test_a_split_model_is_the_whole_model(lm, layer):
    ids, mask = language_model.padded([lm.encode(prompt) for prompt in PROMPTS], lm.end, left=False)
    parts = layers.parts(lm.model, layer, ids)
    assert parts.apart and parts.path == "model.layers"
    lower, upper = parts.lower(lm.model), parts.upper(lm.model)
    with torch.inference_mode():
        whole = lm.model(ids, attention_mask=mask).logits
        states = lower(input_ids=ids, attention_mask=mask, use_cache=False)
        halves = upper(inputs_embeds=states, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(halves[mask.bool()], whole[mask.bool()], atol=1e-4, rtol=1e-4)
    # The halves share the model's weights, and the model is as it was.
    assert upper.lm_head.weight is lm.model.lm_head.weight and len(lm.model.model.layers) == 30
    assert lm.model.model.layers[29] is upper.get_decoder().layers[29]
    assert not list(upper.get_decoder().layers[:layer].parameters())


def test_padding_and_batches():
    ids, mask = language_model.padded([[1, 2], [3]], 9, left=True)
    assert ids.tolist() == [[1, 2], [9, 3]] and mask.tolist() == [[1, 1], [0, 1]]
    ids, mask = language_model.padded([[1, 2], [3]], 9, left=False)
    assert ids.tolist() == [[1, 2], [3, 9]] and mask.tolist() == [[1, 1], [1, 0]]
    assert language_model.by_length([[0] * 3, [0], [0] * 2, [0]], 2) == [[1, 3], [2, 0]]


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(AssetError, match="did you mean 'smollm2-135m-instruct'"):
        language_model.load("smollm2-135m")
    with pytest.raises(AssetError, match="tweets|not a model"):
        language_model.load("reuters-r8")
