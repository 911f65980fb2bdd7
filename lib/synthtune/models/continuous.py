"""Generate texts with transformers' continuous batching: at every step a waiting text replaces a finished one."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedTokenizerBase

from synthtune.errors import StageError

if TYPE_CHECKING:
    from synthtune.models.language_model import LanguageModel

PAGE = 32
"""Tokens in a page of the cache: texts are short, and what is left of a page is wasted."""

READ_AT_ONCE = 2048
"""Prompt tokens that are read in one step at most."""

POLL_SECONDS = 1.0


def decode(lm: LanguageModel, rows: list[list[int]], max_new_tokens: int, batch_size: int, temperature: float, top_p: float,
           seed: int, stop: str | None, done: Callable[[int], object]) -> tuple[list[list[int]], list[float], list[bool]]:
    """Tokens that follow each row, their log-probabilities summed, and whether each ended by itself.

    Parameters
    ----------
    lm : LanguageModel
        With its whole vocabulary.
    rows : list of list of int
        Token ids of the prompts.
    max_new_tokens, batch_size, temperature, top_p, seed, stop
        As for `decoding.decode`. A token that holds the stop text ends a continuation also where it is its first.
    done : callable
        Called with a number of rows that are finished.

    Raises
    ------
    StageError
        If the engine gives up.
    """
    if not rows:
        return [], [], []
    ends = {lm.end, *(holding(lm.tokenizer, stop) if stop else ())}
    how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {"do_sample": False}
    config = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=lm.end, **how)
    size, pages = min(batch_size, len(rows)), math.ceil((max(map(len, rows)) + max_new_tokens) / PAGE)
    memory = ContinuousBatchingConfig(page_size=PAGE, num_blocks=size * pages, max_requests_per_batch=size,
                                      max_batch_tokens=max(size, READ_AT_ONCE), return_logprobs=True, seed=seed)
    manager = lm.model.init_continuous_batching(config, memory)
    manager.warmup()
    # All wait before the first step, so that what is drawn does not depend on how fast they come.
    place = {name: index for index, name in enumerate(manager.add_requests(rows))}
    new: list[list[int]] = [[] for _ in rows]
    sums, finished = [0.0] * len(rows), [False] * len(rows)
    manager.start()
    try:
        while place:
            result = manager.get_result(timeout=POLL_SECONDS)
            if result is None and not manager.is_running():
                raise StageError("Continuous batching ended before all texts were finished. Run again with generate.engine=batches.")
            if result is None or not (result.is_finished() or result.error):
                continue
            if result.error:
                raise StageError(f"Continuous batching failed: {result.error}. Run again with generate.engine=batches, or a "
                                 "smaller generate.batch_size.")
            index, tokens = place.pop(result.request_id), result.generated_tokens
            finished[index] = bool(tokens) and tokens[-1] in ends
            new[index] = tokens[:-1] if finished[index] and tokens[-1] == lm.end else tokens
            sums[index] = sum(result.logprobs)
            done(1)
    finally:
        manager.stop(hard_stop=bool(place))
        manager.destroy()
    return new, sums, finished


@lru_cache(maxsize=4)
def holding(tokenizer: PreTrainedTokenizerBase, stop: str) -> frozenset[int]:
    """Tokens whose text holds another."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(token for token, text in enumerate(texts) if stop in text)
