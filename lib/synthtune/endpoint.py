"""Prompted models behind an OpenAI-compatible endpoint, to compare the fine-tuned teacher with.

Every answer is written to disk as soon as it arrives, so an interrupted run pays for no question twice and a
second run needs no server at all.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import openai

from synthtune.errors import SettingsError, StageError, nearest
from synthtune.files import digest, read_json, write_json
from synthtune.progress import progress

if TYPE_CHECKING:
    from synthtune.tasks import Example

NO_ANSWER = "no answer"
"""What `classify` returns for an answer that names no label, or several: always wrong."""

RETRIES = 4
"""How often a request is sent again after a 408, 409, 429 or 5xx answer, a lost connection or a timeout."""

# The client library also sends the operating system, the Python version and whatever OPENAI_ORG_ID,
# OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS hold. None of it is needed, and the last three may belong to
# another service.
_SENT_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length",
                 "user-agent"}

Message = dict[str, str]


class _NotACompletion(Exception):
    """The endpoint answered with something other than a chat completion."""


class Endpoint(Protocol):
    """What this module reads of the `endpoint` section of the settings."""

    name: str
    base_url: str
    model: str
    api_key_env: str | None
    max_concurrency: int
    timeout_seconds: float


def answer(prompts: Sequence[list[Message]], endpoint: Endpoint, cache_dir: str | Path, *,
           max_tokens: int = 128, seed: int = 0) -> list[str]:
    """Ask a model for one greedy answer to each prompt, or take the answer from the cache.

    Parameters
    ----------
    prompts : sequence of list of dict
        Chat messages, each with a `role` and a `content`. Equal prompts are asked once.
    endpoint : Endpoint
        Where to ask, which model, how many requests at a time and how long to wait for one.
    cache_dir : path
        Holds one JSON file per answer, named by the digest of the URL, the model, the messages and the
        parameters. Delete it if the model behind the same name has changed.
    max_tokens : int
        Longest answer, in tokens.
    seed : int
        Sent with each request; matters only where a server draws at random even at temperature 0.

    Returns
    -------
    list of str
        As many as there are prompts, in their order. A refusal without text is an empty string.

    Raises
    ------
    SettingsError
        If the URL is not one, or the environment variable with the API key is not set.
    StageError
        If the endpoint cannot be reached, refuses, or sends something that is not a chat completion.
    """
    base_url = endpoint.base_url.rstrip("/")
    if not re.match(r"https?://[^/\s]+", base_url):
        raise SettingsError(f"endpoint.base_url is '{endpoint.base_url}', which is not a URL: write it like "
                            "http://127.0.0.1:8000/v1.")
    parameters = {"temperature": 0, "max_tokens": max_tokens, "seed": seed}
    requests = [{"base_url": base_url, "model": endpoint.model, "messages": messages,
                 "parameters": parameters} for messages in prompts]
    keys = [digest(request) for request in requests]
    answers, waiting = {}, {}
    for key, request in zip(keys, requests, strict=True):
        known = _cached(cache_dir, key, request)
        if known is None:
            waiting[key] = request
        else:
            answers[key] = known
    if waiting:
        _ask(waiting, answers, endpoint, base_url, cache_dir)
    return [answers[key] for key in keys]


def classify(examples: Sequence[Example], labels: Sequence[str], gold_shots: Sequence[Example],
             instruction: str, endpoint: Endpoint, cache_dir: str | Path, *, seed: int = 0) -> list[str]:
    """Label texts by prompting.

    Parameters
    ----------
    examples : sequence of Example
        Only `text` is read.
    labels : sequence of str
        All labels of the task; the prompt lists them.
    gold_shots : sequence of Example
        Worked examples to show first (see `draw_shots`); empty for 0-shot.
    instruction : str
        What to decide, in a sentence.

    Returns
    -------
    list of str
        A label for each example, or `NO_ANSWER` where the answer names none or more than one.
    """
    instruction = f"{instruction}\nAnswer with one of these labels and nothing else: {', '.join(labels)}."
    # A label never has more tokens than characters.
    room = max(16, *(len(label) for label in labels))
    prompts = [_prompt(instruction, gold_shots, example.text) for example in examples]
    texts = answer(prompts, endpoint, cache_dir, max_tokens=room, seed=seed)
    return [read_label(text, labels) for text in texts]


def realise(examples: Sequence[Example], gold_shots: Sequence[Example], instruction: str, endpoint: Endpoint,
            cache_dir: str | Path, *, max_tokens: int = 128, seed: int = 0) -> list[str]:
    """Write the text for linearised data by prompting.

    Parameters
    ----------
    examples : sequence of Example
        Only `text`, the linearised input, is read.
    gold_shots : sequence of Example
        Worked examples to show first (see `draw_shots`); empty for 0-shot.
    instruction : str
        What to write, in a sentence.

    Returns
    -------
    list of str
        One line of text for each example.
    """
    prompts = [_prompt(instruction, gold_shots, example.text) for example in examples]
    texts = answer(prompts, endpoint, cache_dir, max_tokens=max_tokens, seed=seed)
    return [" ".join(text.split()) for text in texts]


def draw_shots(gold: Sequence[Example], count: int, seed: int, labels: Sequence[str] = ()) -> list[Example]:
    """Draw the worked examples of a few-shot prompt from the gold examples of the smallest budget.

    With `labels` (classification) the draw takes one example of each label in turn, so that no label is shown
    twice before all are shown once. A larger `count` only adds examples to what a smaller one draws.

    Raises
    ------
    StageError
        If there are fewer than `count` gold examples.
    """
    if count > len(gold):
        raise StageError(f"{count} worked examples were asked for but there are only {len(gold)} gold "
                         "examples: lower endpoint.shots.")
    shuffled = random.Random(seed).sample(list(gold), len(gold))
    if labels:
        by_label = [[example for example in shuffled if example.target == label] for label in labels]
        shuffled = [example for turn in zip_longest(*by_label) for example in turn if example is not None]
    return shuffled[:count]


def read_label(text: str, labels: Sequence[str]) -> str:
    """Find the label that a free-text answer gives.

    Tried in order, ignoring case and surrounding punctuation: the whole answer is a label; its first line is
    one; exactly one label occurs in it as a whole word (an occurrence inside a longer label does not count).

    Returns
    -------
    str
        One of `labels`, or `NO_ANSWER`.
    """
    by_folded = {label.casefold(): label for label in labels}
    text = text.casefold().strip()
    for part in (text, text.partition("\n")[0].strip()):
        label = by_folded.get(part) or by_folded.get(part.strip(string.whitespace + string.punctuation))
        if label is not None:
            return label
    longest_first = sorted(by_folded, key=len, reverse=True)
    found = set(re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", text))
    return by_folded[found.pop()] if len(found) == 1 else NO_ANSWER


def _prompt(instruction: str, gold_shots: Sequence[Example], text: str) -> list[Message]:
    messages = [{"role": "system", "content": instruction}]
    for shot in gold_shots:
        messages += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": shot.target}]
    return [*messages, {"role": "user", "content": text}]


def _entry(cache_dir: str | Path, key: str) -> Path:
    return Path(cache_dir) / key[:2] / f"{key}.json"


def _cached(cache_dir: str | Path, key: str, request: dict) -> str | None:
    path = _entry(cache_dir, key)
    if not path.exists():
        return None
    try:
        entry = read_json(path)
        if entry["request"] == request and isinstance(entry["answer"], str):
            return entry["answer"]
    except (StageError, KeyError, TypeError):
        pass
    return None  # a damaged entry is asked again and replaced


def _ask(waiting: dict[str, dict], answers: dict[str, str], endpoint: Endpoint, base_url: str,
         cache_dir: str | Path) -> None:
    """Send the requests, `max_concurrency` at a time; each answer is on disk before it enters `answers`."""
    api_key = _api_key(endpoint)
    client = _client(endpoint, base_url, api_key)

    def ask_one(key: str) -> str:
        request = waiting[key]
        try:
            completion = client.chat.completions.create(model=request["model"], messages=request["messages"],
                                                        **request["parameters"])
        except json.JSONDecodeError as error:
            raise _NotACompletion(f"not JSON: {error}") from error
        text = _text_of(completion)
        write_json(_entry(cache_dir, key), {"request": request, "answer": text})
        return text

    # Threads rather than asyncio: a notebook already runs an event loop.
    pool = ThreadPoolExecutor(max_workers=endpoint.max_concurrency)
    try:
        futures = {pool.submit(ask_one, key): key for key in waiting}
        for future in progress(as_completed(futures), f"asking {endpoint.name}", len(futures)):
            answers[futures[future]] = future.result()
    except (openai.OpenAIError, _NotACompletion) as error:
        # What is under way is paid for: let it end and be cached before saying what went wrong.
        pool.shutdown(cancel_futures=True)
        kept = sum(_entry(cache_dir, key).exists() for key in waiting) + len(answers.keys() - waiting.keys())
        total = len(answers.keys() | waiting.keys())
        # `from None`: the library's own error quotes parts of the request.
        sentence = _sentence(error, endpoint, base_url, api_key, client)
        raise StageError(f"{sentence} {kept} of {total} answers are kept; the next run asks for the others "
                         "only.") from None
    finally:
        pool.shutdown(cancel_futures=True)
        client.close()


def _api_key(endpoint: Endpoint) -> str | None:
    if not endpoint.api_key_env:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise SettingsError(f"endpoint.api_key_env names the environment variable {endpoint.api_key_env}, "
                            "which is not set: export the API key in it, or set endpoint.api_key_env to null "
                            "if the endpoint needs none.")
    return key


def _client(endpoint: Endpoint, base_url: str, api_key: str | None) -> openai.OpenAI:
    def send_only_what_is_needed(request) -> None:
        for name in list(request.headers):
            if name.lower() not in _SENT_HEADERS:
                del request.headers[name]
        if api_key:
            request.headers["authorization"] = f"Bearer {api_key}"

    # A redirect is reported, not followed: the key would go to a host that the settings do not name.
    http = openai.DefaultHttpxClient(event_hooks={"request": [send_only_what_is_needed]},
                                     follow_redirects=False)
    return openai.OpenAI(base_url=base_url, api_key=api_key or "none", timeout=endpoint.timeout_seconds,
                         max_retries=RETRIES, http_client=http)


def _text_of(completion: object) -> str:
    """The text of a chat completion; the client library does not check what the server sent."""
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    text = getattr(message, "content", None)
    if message is None or not (text is None or isinstance(text, str)):
        raise _NotACompletion("no text at choices[0].message.content")
    return text or ""


def _sentence(error: Exception, endpoint: Endpoint, base_url: str, api_key: str | None,
              client: openai.OpenAI) -> str:
    """Say what went wrong and what to do, for the person who wrote the settings."""
    who = f"Endpoint '{endpoint.name}' ({base_url})"
    tries = f"{RETRIES + 1} tries"
    if isinstance(error, openai.APITimeoutError):
        return (f"{who} gave no answer within {endpoint.timeout_seconds:g} s in {tries}: raise "
                "endpoint.timeout_seconds or lower endpoint.max_concurrency.")
    if isinstance(error, openai.APIConnectionError):
        return (f"{who} cannot be reached ({error.__cause__ or error}): start the server or correct "
                "endpoint.base_url.")
    if not isinstance(error, openai.APIStatusError):
        return (f"{who} sent something that is not a chat completion ({error}): check that endpoint.base_url "
                "is the address of an OpenAI-compatible API; it usually ends in /v1.")
    said = _server_words(error, api_key)
    if error.status_code in (401, 403):
        if endpoint.api_key_env:
            return (f"{who} refused the API key in the environment variable {endpoint.api_key_env} "
                    f"({error.status_code}): put a valid key there.")
        return (f"{who} wants an API key ({error.status_code}): export it in an environment variable and "
                "name that variable in endpoint.api_key_env.")
    if 300 <= error.status_code < 400:
        return (f"{who} redirects to {error.response.headers.get('location')}: if that is right, make it "
                "endpoint.base_url.")
    if error.status_code == 429:
        wait = error.response.headers.get("retry-after")
        said += f"; it asks to wait {wait} s" if wait else ""
        return (f"{who} still limits requests ({said}): run again later, check the account's quota, or lower "
                "endpoint.max_concurrency.")
    if error.status_code >= 500:
        return f"{who} failed with status {error.status_code} in {tries} ({said}): see the server's log."
    if error.status_code in (400, 404):
        offered = _offered(client)
        if offered and endpoint.model not in offered:
            return f"{who} has no model '{endpoint.model}': {nearest(endpoint.model, offered)}"
        return (f"{who} refused model '{endpoint.model}' with status {error.status_code} ({said}): check "
                "endpoint.model, and that endpoint.base_url is right; it usually ends in /v1.")
    return f"{who} refused the request with status {error.status_code} ({said}): change its settings."


def _server_words(error: openai.APIStatusError, api_key: str | None) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    text = " ".join(str(body or "no message").split())
    return (text.replace(api_key, "***") if api_key else text)[:300]


def _offered(client: openai.OpenAI) -> list[str]:
    """Names of the models that the endpoint lists; empty where it does not say."""
    try:
        return sorted(model.id for model in client.with_options(max_retries=0).models.list().data)
    except (openai.OpenAIError, ValueError, AttributeError, TypeError):
        return []
