"""Text that a language model generates: greedy decoding and nucleus sampling, in batches that finished rows leave."""

from collections.abc import Callable, Sequence

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from synthtune.models import placement, vllm_engine
from synthtune.models.language_model import LanguageModel, after_prefix, agree, by_length, next_logits, padded, put_before, read_once
from synthtune.progress import progress

# The nucleus is looked for among this many likeliest tokens; where they hold too little mass, among all tokens.
NUCLEUS_CANDIDATES = 2048


class _Roomy(DynamicLayer):
    """Cached keys and values with room for tokens to come.

    Its base class copies all of them for each token: a quarter of the time of decoding on a processor, and nearly half of a GPU's.
    """

    room = 16
    _whole: tuple[torch.Tensor, ...] = ()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the states of new tokens, (batch, heads, tokens, size each); all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past, new = self.get_seq_length(), (key_states, value_states)
        end = past + key_states.shape[-2]
        if not self._whole or end > self._whole[0].shape[-2]:
            self._whole = tuple(each.new_empty(*each.shape[:-2], end + self.room, each.shape[-1]) for each in new)
            if past:
                for whole, kept in zip(self._whole, (self.keys, self.values), strict=True):
                    whole[..., :past, :] = kept
        for whole, states in zip(self._whole, new, strict=True):
            whole[..., past:end, :] = states
        self.keys, self.values = (whole[..., :end, :] for whole in self._whole)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows only."""
        super().batch_select_indices(indices)
        self._whole = ()


def decode(lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int, prefix: str = "", batch_size: int = 64,
          temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, stop: str | None = None, engine: str = "batches",
          description: str = "generate text") -> tuple[list[str], list[float], list[bool]]:
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
        "batches": one batch after another, which a row leaves when it is done. "vllm": vLLM, if that is installed, where a
        row that waits takes the place of one that is done.
    description : str
        What the progress bar says.

    Returns
    -------
    texts : list of str
        Stripped of surrounding space.
    log_probabilities : list of float
        Of the new tokens, summed, under the model itself (temperature 1, no nucleus).
    finished : list of bool
        Whether the text ended by itself, and not at `max_new_tokens`.

    Raises
    ------
    StageError
        If vLLM is not installed, or fails.
    """
    if engine != "vllm":
        placement.to_device(lm.model)
    common, rows = after_prefix(lm, prefix, prompts)
    chosen = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "temperature": temperature, "top_p": top_p,
              "seed": seed, "stop": stop}
    with progress(total=len(rows), desc=description, unit="text") as bar:
        if engine == "vllm":
            new, sums, finished = vllm_engine.decode(lm, [common + row for row in rows], **chosen, done=bar.update)
        else:
            plainly = {"max_new_tokens": 2, "batch_size": 2, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": None, "done": lambda _: 0}
            cached = agree(lm, lambda common, rows, _: _in_batches(lm, common, rows, **plainly, cached=True)[1],
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
    known = None if lm.vocabulary is None else lm.vocabulary.to(lm.device)
    generator = torch.Generator(device=lm.device).manual_seed(seed)
    shared = read_once(lm, common) if cached else None
    past = shared.get_seq_length() if shared else 0
    new: list[list[int]] = [[] for _ in rows]
    sums, finished = [0.0] * len(rows), [False] * len(rows)
    for batch in by_length(rows, batch_size):
        ids, mask = padded([rows[index] for index in batch], lm.end, left=True)
        cache = Cache(layer_class_to_replicate=_Roomy)
        if shared:
            put_before(cache, shared, len(batch))
        place = ((mask.cumsum(1) - 1).clamp(min=0) + past).to(lm.device)
        mask = torch.cat([torch.ones(len(batch), past, dtype=torch.long), mask], 1).to(lm.device)
        ids, alive = ids.to(lm.device), list(batch)
        for step in range(max_new_tokens):
            if cached:
                logits = lm.model(ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True,
                                  logits_to_keep=1).logits[:, -1].float()
            else:
                logits = torch.cat(next_logits(lm, [common + rows[index] + new[index] for index in alive], 1))
            total = logits.logsumexp(-1, keepdim=True)
            token = _sample(logits, total, temperature, top_p, generator) if temperature else logits.argmax(-1)
            logs = (logits.gather(1, token[:, None]) - total).squeeze(1).tolist()
            if known is not None:
                token = known[token]
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
