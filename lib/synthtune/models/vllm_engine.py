"""Generating text with vLLM (Kwon et al. 2023, arXiv 2309.06180), where it is installed.

vLLM pins other versions of torch and transformers than environment.yml does, so it is no dependency. It runs in processes of
its own and reads the model from a temporary folder. It stays loaded for the next call with the same model, and leaves when
another model needs the GPU.
"""

from __future__ import annotations

import importlib.util
import os
import random
import tempfile
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from synthtune.errors import StageError
from synthtune.models import placement

if TYPE_CHECKING:
    from synthtune.models.language_model import LanguageModel

# The model that vLLM has loaded, its number of texts side by side, and vLLM's `LLM`; empty if none is.
_loaded: list[tuple[weakref.ref, int, Any]] = []


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
        If vLLM is not installed, or fails.
    """
    if importlib.util.find_spec("vllm") is None:
        raise StageError("generate.engine: vLLM is not installed. Install it (pip install vllm, in a copy of .venv, since it "
                         "changes versions that requirements.txt pins), or set generate.engine=batches.")
    if not rows:
        return [], [], []
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would send them to its makers
    ends = {lm.end, *(_holding(lm.tokenizer, stop) if stop else ())}
    seeds = random.Random(seed)  # one seed for all would draw equal texts after equal prompts
    new: list[list[int]] = [[] for _ in rows]
    sums, finished = [0.0] * len(rows), [False] * len(rows)
    try:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = _load(lm, batch_size).llm_engine
        for index, row in enumerate(rows):
            engine.add_request(str(index), {"prompt_token_ids": row}, SamplingParams(
                temperature=temperature, top_p=top_p, seed=seeds.getrandbits(32), max_tokens=max_new_tokens, logprobs=0,
                ignore_eos=True, stop_token_ids=sorted(ends), detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY))
        while engine.has_unfinished_requests():
            for result in engine.step():
                index, [output] = int(result.request_id), result.outputs
                tokens = list(output.token_ids)
                finished[index], sums[index] = output.finish_reason == "stop", output.cumulative_logprob
                new[index] = tokens[:-1] if tokens[-1] == lm.end else tokens
                done(1)
    except Exception as error:  # of vLLM's many kinds
        close()
        said = (str(error).strip().splitlines() or [""])[0]
        raise StageError(f"vLLM failed: {type(error).__name__}: {said} Set VLLM_LOGGING_LEVEL=INFO to see why, or "
                         "generate.engine=batches.") from error
    except BaseException:  # an interrupted call must not leave its texts to the next
        close()
        raise
    return new, sums, finished


def _load(lm: LanguageModel, batch_size: int) -> Any:
    """vLLM's `LLM` with the model's weights."""
    from vllm import LLM

    if _loaded and _loaded[0][0]() is lm.model and _loaded[0][1] == batch_size:
        return _loaded[0][2]
    close()
    placement.offload_all()
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        lm.model.save_pretrained(folder)
        llm = LLM(folder, skip_tokenizer_init=True, dtype=lm.format, max_num_seqs=batch_size,
                  enforce_eager=not torch.cuda.is_available())  # to compile on a processor takes minutes
    _loaded.append((weakref.ref(lm.model), batch_size, llm))
    placement.guests.append(close)
    return llm


def close() -> None:
    """End vLLM's processes, if there are any."""
    while _loaded:
        _loaded.pop()[2].llm_engine.engine_core.shutdown()
        placement.guests.remove(close)


@lru_cache(maxsize=4)
def _holding(tokenizer: PreTrainedTokenizerBase, stop: str) -> frozenset[int]:
    """Tokens whose text holds another."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(token for token, text in enumerate(texts) if stop in text)
