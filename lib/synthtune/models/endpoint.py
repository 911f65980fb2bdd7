"""Prompted models behind an OpenAI-compatible endpoint: to compare the fine-tuned teacher with, or in its place.

Every answer is written to disk as soon as it arrives, so an interrupted run pays for no question twice and a
second run needs no server at all. What is sent is said before it is sent, and what it cost afterwards.
"""

import functools
import json
import math
import os
import random
import re
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import torch
from pydantic_core import from_json

from synthtune.context import Context
from synthtune.errors import SettingsError, StageError
from synthtune.files import digest, locked, read_json, write_json
from synthtune.progress import progress
from synthtune.settings import EndpointSettings
from synthtune.tasks import Example, seed_for, splits

# The label of an answer that names none, or several: always wrong.
NO_ANSWER = ""

# How often a request is sent again after a 408, 409, 429 or 5xx answer, a lost connection or a timeout.
RETRIES = 4

# How often a model is asked at most for an answer that can be read.
TRIES = 3

# New examples that one request asks for.
PAIRS_AT_ONCE = 5

# Characters of an answer that are kept, whatever a server sends.
LONGEST_ANSWER = 50_000

# Tokens that the form of an answer takes at most, besides what it says.
JSON_TOKENS = 16

# The client library also sends the operating system, the Python version and whatever OPENAI_ORG_ID,
# OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS hold. None of it is needed, and the last three may belong to
# another service.
_SENT_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}

Message = dict[str, str]


class _NotACompletion(Exception):
    """The endpoint answered with something other than a chat completion."""


@dataclass(frozen=True)
class Prompted:
    """A prompted model in the place of a fine-tuned teacher: it sees a few gold examples and learns nothing.

    Attributes
    ----------
    context : Context
        The examples it is shown are drawn from its gold ones; its settings have an `endpoint`.
    shots : int, optional
        How many it is shown; the most of `endpoint.shots` if not given.
    """

    context: Context
    shots: int | None = None

    @property
    def server(self) -> EndpointSettings:
        return self.context.settings.endpoint

    @property
    def digest(self) -> str:
        """What its answers depend on, besides the task. What the server does with the model's name cannot be seen."""
        return digest([self.server.base_url, self.server.model, self._shots])

    @property
    def cache(self) -> Path:
        """The folder of its answers."""
        return self.context.settings.folder / "endpoint-answers"

    @property
    def _shots(self) -> int:
        return max(self.server.shots, default=0) if self.shots is None else self.shots

    def answers(self, texts: Sequence[str]) -> tuple[list[str], list[float], torch.Tensor | None]:
        """Outputs for input texts, in the form of `teacher.answers`.

        Returns
        -------
        outputs : list of str
            `NO_ANSWER` where no try gave an answer that can be read.
        log_probabilities : list of float
            NaN: a server says labels and texts, not how likely they are.
        label_log_probabilities : Tensor of shape (texts, labels), or None for NLG
            0 for the label that was given and minus infinity for the others: as a soft label, that label alone.
        """
        task, settings = self.context.task, self.context.settings
        shots = draw_shots(self.context.gold, self._shots, seed_for(settings, task.name, "shots"), task.labels)
        outputs = prompted(texts, shots, task.template.instruction, self.server, self.cache, labels=task.labels,
                           max_tokens=settings.annotate.max_new_tokens, seed=settings.seed)
        scores = torch.tensor([[0.0 if label == output else -math.inf for label in task.labels] for output in outputs])
        return outputs, [math.nan] * len(texts), scores.reshape(len(texts), len(task.labels)) if task.labels else None

    def pairs(self, number: int) -> pd.DataFrame:
        """New pairs, as many for each label, several to a request; each request shows other gold examples.

        Returns
        -------
        DataFrame
            One row a pair asked for, labels in turn: text; sampled, its output, None if the answer or this pair of it cannot
            be read; log_probability, NaN; finished, False if the answer ended before it came to this pair.
        """
        chosen, labels = self.context.settings.generate, self.context.task.labels or ("",)
        wanted = [labels[place % len(labels)] for place in range(number)]
        asked = [(label, min(PAIRS_AT_ONCE, count - start)) for label, count in Counter(wanted).items()
                 for start in range(0, count, PAIRS_AT_ONCE)]
        first = self.context.seed("sample")
        item = {"type": "string"} if self.context.task.labels else _object(text={"type": "string"}, output={"type": "string"})
        said = answer([self._request(label, count, first + place) for place, (label, count) in enumerate(asked)], self.server,
                      self.cache, max_tokens=PAIRS_AT_ONCE * (chosen.max_new_tokens + JSON_TOKENS),
                      seed=range(first, first + len(asked)), temperature=chosen.temperature,
                      form=_form(examples={"type": "array", "items": item}), read=_examples)
        rows: dict[str, list[tuple]] = {label: [] for label in labels}
        for (label, count), examples in zip(asked, said, strict=True):
            missing = ("", "", math.nan, False) if examples else ("", None, math.nan, True)
            found = [self._pair(label, example) for example in examples or []]
            rows[label] += (found + [missing] * count)[:count]
        turns = {label: iter(each) for label, each in rows.items()}
        return pd.DataFrame([next(turns[label]) for label in wanted], columns=["text", "sampled", "log_probability", "finished"])

    def _request(self, label: str, count: int, seed: int) -> list[Message]:
        gold = [example for example in self.context.gold if label in ("", example.target)]
        shown = random.Random(seed).sample(gold, min(self._shots, len(gold)))
        examples = [example.text if label else {"text": example.text, "output": example.target} for example in shown]
        form = {"examples": ["…"] if label else [{"text": "…", "output": "…"}]}
        lines = [f"All of them have the {self.context.task.template.output}: {label}"] if label else []
        lines += [f"The data set has these:\n{json.dumps({'examples': examples}, ensure_ascii=False)}"] if examples else []
        lines += [f"Write {count} new ones, of the same kind and length, that differ from these and from each other.",
                  f"Answer with JSON and nothing else: {json.dumps(form, ensure_ascii=False)}"]
        instruction = f"You write examples for a data set. Its task: {self.context.task.template.instruction}"
        return [{"role": "system", "content": instruction}, {"role": "user", "content": "\n".join(lines)}]

    def _pair(self, label: str, example: Any) -> tuple[str, str | None, float, bool]:
        given = {"text": example, "output": label} if label else example
        if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in ("text", "output")):
            return "", None, math.nan, True
        text, output = (" ".join(given[name].split()) for name in ("text", "output"))
        return splits.cut(text, self.context.settings.max_characters) if label else text, output, math.nan, True


def answer(prompts: Sequence[list[Message]], endpoint: EndpointSettings, cache_dir: str | Path, *, max_tokens: int = 128,
           seed: int | Sequence[int] = 0, temperature: float = 0, form: dict[str, Any] | None = None,
           read: Callable[[str], Any] | None = None) -> list[Any]:
    """Ask a model for one answer to each prompt, or take the answer from the cache.

    Parameters
    ----------
    prompts : sequence of list of dict
        Chat messages, each with a `role` and a `content`. Equal prompts are asked once.
    endpoint : EndpointSettings
        Where to ask, which model, how many requests at a time, how long to wait for one, and what may be spent.
    cache_dir : path
        Holds one JSON file per answer, named by the digest of the URL, the model, the messages and the
        parameters. Delete it if the model behind the same name has changed. One process at a time asks for what it lacks.
    max_tokens : int
        Longest answer, in tokens.
    seed : int or sequence of int
        Sent with each request, one for all or one for each; at temperature 0 few servers draw at random.
    temperature : float
        0 is greedy.
    form : dict, optional
        The `response_format` that answers are to have. A server that refuses it is asked without.
    read : callable, optional
        Reads an answer. Where what it returns is empty, the model is told so and asked again, `TRIES` times in all.

    Returns
    -------
    list
        As many as there are prompts, in their order: what `read` makes of each answer, or without it the answer, a string. A
        refusal without text is an empty string.

    Raises
    ------
    SettingsError
        If the URL is not one, or the environment variable with the API key is not set.
    StageError
        If the endpoint cannot be reached, refuses, or sends something that is not a chat completion; or if the next request
        could pass `endpoint.max_dollars`.
    """
    endpoint = endpoint.model_copy(update={"base_url": endpoint.base_url.rstrip("/")})
    if not re.match(r"https?://[^/\s]+", endpoint.base_url):
        raise SettingsError(f"endpoint.base_url is '{endpoint.base_url}', which is not a URL: write it like http://127.0.0.1:8000/v1.")
    parameters = {"temperature": temperature, "max_tokens": max_tokens, **({"response_format": form} if form else {})}
    requests = [{"base_url": endpoint.base_url, "model": endpoint.model, "messages": messages, "parameters": {**parameters, "seed": one}}
                for messages, one in zip(prompts, [seed] * len(prompts) if isinstance(seed, int) else seed, strict=True)]
    said = _answers(requests, endpoint, cache_dir)
    if read is None:
        return said
    found = [read(text) for text in said]
    for _ in range(TRIES - 1):
        again = [place for place, value in enumerate(found) if not value]
        for place in again:
            requests[place] = _once_more(requests[place], said[place])
        for place, text in zip(again, _answers([requests[place] for place in again], endpoint, cache_dir), strict=True):
            said[place], found[place] = text, read(text)
    if unread := sum(not value for value in found):
        print(f"{unread:,} of {len(found):,} answers could not be read, after {TRIES} tries.", flush=True)
    return found


def _once_more(request: dict, said: str) -> dict:
    """The request that follows an answer that cannot be read."""
    asked = "That is not an answer of the form that was asked for. Give it in that form, and nothing else."
    return {**request, "messages": [*request["messages"], {"role": "assistant", "content": said[:500].strip() or "…"},
                                    {"role": "user", "content": asked}]}


def _answers(requests: Sequence[dict], endpoint: EndpointSettings, cache_dir: str | Path) -> list[str]:
    """The answer to each request, from the cache or else from the endpoint."""
    keys = [digest(request) for request in requests]
    wanted = dict(zip(keys, requests, strict=True))
    known = _known(wanted, cache_dir)
    if len(known) < len(wanted):
        # Notebooks and folds run side by side: what may be under way at once, and be spent, holds for all of them.
        with locked(cache_dir):
            known = _known(wanted, cache_dir)
            if waiting := {key: request for key, request in wanted.items() if key not in known}:
                _Round(waiting, endpoint, Path(cache_dir), len(known)).ask()
        known = _known(wanted, cache_dir)
    return [known[key]["answer"] for key in keys]


def prompted(texts: Sequence[str], gold_shots: Sequence[Example], instruction: str, endpoint: EndpointSettings, cache_dir: str | Path, *,
             labels: Sequence[str] = (), max_tokens: int = 128, seed: int = 0) -> list[str]:
    """Label texts, or write a text for each, by prompting.

    Parameters
    ----------
    texts : sequence of str
        Inputs; linearised data where texts are written.
    gold_shots : sequence of Example
        Worked examples to show first (see `draw_shots`); empty for 0-shot.
    instruction : str
        What to decide, or to write, in a sentence.
    labels : sequence of str
        All labels of the task, which the prompt lists; none where texts are written.
    max_tokens : int
        Longest text.

    Returns
    -------
    list of str
        A label or one line of text for each input; `NO_ANSWER` where every answer names no label or more than one, or is empty.
    """
    form, read = None, lambda text: " ".join(text.split())
    if labels:
        instruction = f"{instruction}\nAnswer with one of these labels and nothing else: {', '.join(labels)}."
        max_tokens = max(16, *map(len, labels)) + JSON_TOKENS  # a label never has more tokens than characters
        form, read = _form(label={"type": "string", "enum": list(labels)}), lambda text: read_label(text, labels)
    before = [{"role": "system", "content": instruction}]
    for shot in gold_shots:
        before += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": shot.target}]
    return answer([[*before, {"role": "user", "content": text}] for text in texts], endpoint, cache_dir, max_tokens=max_tokens,
                  seed=seed, form=form, read=read)


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
        raise StageError(f"{count} worked examples were asked for but there are only {len(gold)} gold examples: lower endpoint.shots.")
    shuffled = random.Random(seed).sample(list(gold), len(gold))
    if labels:
        by_label = [[example for example in shuffled if example.target == label] for label in labels]
        shuffled = [example for turn in zip_longest(*by_label) for example in turn if example is not None]
    return shuffled[:count]


def read_label(text: str, labels: Sequence[str]) -> str:
    """Find the label that an answer gives, in JSON or in words.

    In JSON it is what stands after `label`. Tried in order, ignoring case and surrounding punctuation: the whole
    answer is a label; its first line is one; exactly one label occurs in it as a whole word (an occurrence inside a
    longer label does not count).

    Returns
    -------
    str
        One of `labels`, or `NO_ANSWER`.
    """
    by_folded = {label.casefold(): label for label in labels}
    label = _json(text).get("label")
    text = (label if isinstance(label, str) else text).casefold().strip()
    for part in (text, text.partition("\n")[0].strip()):
        label = by_folded.get(part) or by_folded.get(part.strip(string.whitespace + string.punctuation))
        if label is not None:
            return label
    longest_first = sorted(by_folded, key=len, reverse=True)
    found = set(re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", text))
    return by_folded[found.pop()] if len(found) == 1 else NO_ANSWER


def _object(**properties: dict) -> dict[str, Any]:
    """JSON schema of an object that has these and nothing else."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _form(**properties: dict) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _object(**properties)}}


def _json(text: str) -> dict:
    """The JSON object in an answer, without what stands around it and as far as it goes if it was cut; {} if there is none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        return {}
    try:
        found = from_json(text[start: end + 1] if end > start else text[start:], allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _examples(text: str) -> list:
    """The first list in an answer's JSON object, whatever the model calls it; [] if there is none."""
    return next((value for value in _json(text).values() if isinstance(value, list)), [])


def _entry(cache_dir: str | Path, key: str) -> Path:
    return Path(cache_dir) / key[:2] / f"{key}.json"


def _read(path: Path) -> dict | None:
    """What the cache has of a request: request, answer and usage; None if there is nothing, or it is damaged."""
    try:
        entry = read_json(path)
    except StageError:
        return None
    return entry if isinstance(entry, dict) and entry.get("request") and isinstance(entry.get("answer"), str) else None


def _known(wanted: dict[str, dict], cache_dir: str | Path) -> dict[str, dict]:
    """What the cache has of these requests, by key."""
    read = {key: _read(_entry(cache_dir, key)) for key in wanted}
    return {key: entry for key, entry in read.items() if entry and entry["request"] == wanted[key]}


def _tokens(text: str) -> int:
    """About how many tokens a text has; every model divides it in a way of its own."""
    return math.ceil(len(text) / 4)


def _to_read(request: dict) -> int:
    return sum(_tokens(message["content"]) + 4 for message in request["messages"])


def _used(entries: Iterable[dict]) -> tuple[int, int]:
    """Tokens read and written for answers: as the server counted them, or estimated if it did not."""
    counts = [entry.get("usage") or (_to_read(entry["request"]), _tokens(entry["answer"])) for entry in entries]
    return sum(read for read, _ in counts), sum(written for _, written in counts)


def _dollars(endpoint: EndpointSettings, read: int, written: int) -> float:
    return (read * (endpoint.input_price or 0) + written * (endpoint.output_price or 0)) / 1e6


def _in_words(endpoint: EndpointSettings, read: int, written: int, at_most: str = "") -> str:
    priced = endpoint.input_price is not None or endpoint.output_price is not None
    dollars = f", {at_most}${_dollars(endpoint, read, written):.4f}" if priced else ""
    return f"{read:,} tokens read, {at_most}{written:,} written{dollars}"


class _Round:
    """Requests that are sent, `max_concurrency` at a time; each answer is on disk when it is there."""

    def __init__(self, waiting: dict[str, dict], endpoint: EndpointSettings, cache_dir: Path, known: int):
        self.waiting, self.endpoint, self.cache_dir, self.known = waiting, endpoint, cache_dir, known
        self.api_key = _api_key(endpoint)
        # Whether the server has refused the form of answers.
        self.plain = False

    def ask(self) -> None:
        """Say what is sent, send it, and say what it cost."""
        endpoint, requests = self.endpoint, self.waiting.values()
        estimate = _in_words(endpoint, sum(map(_to_read, requests)),
                             sum(request["parameters"]["max_tokens"] for request in requests), "at most ")
        there = f" ({self.known:,} answers are there already)" if self.known else ""
        print(f"Sending {len(requests):,} prompts to {endpoint.model} at {endpoint.base_url}{there}. Estimated: {estimate}.", flush=True)
        problem = None
        with _client(endpoint, self.api_key) as self.client:
            # Threads rather than asyncio: a notebook already runs an event loop.
            pool = ThreadPoolExecutor(max_workers=endpoint.max_concurrency)
            try:
                self._spend(pool)
            except (openai.OpenAIError, json.JSONDecodeError, _NotACompletion, StageError) as error:
                problem = self._sentence(error)
            finally:
                pool.shutdown(cancel_futures=True)  # what is under way is paid for: it ends and is cached
                came = _known(self.waiting, self.cache_dir).values()
                uncounted = sum(not entry["usage"] for entry in came)
                print(f"{len(came):,} answers: {_in_words(endpoint, *_used(came))} (estimated: {estimate})."
                      f"{f' The server sent no counts for {uncounted:,}: theirs are estimated.' if uncounted else ''}"
                      f"{' It takes no JSON schema: answers are read as text.' if self.plain else ''}", flush=True)
        if problem:  # raised here: the library's own error, which quotes parts of the request, must not be seen with it
            raise StageError(f"{problem} {len(came) + self.known} of {len(requests) + self.known} answers are kept; the next run asks "
                             "for the others only.")

    def _spend(self, pool: ThreadPoolExecutor) -> None:
        """Send the requests, as long as the next cannot pass the limit."""
        limit, spent = self.endpoint.max_dollars, 0.0
        if limit is not None:
            spent = _dollars(self.endpoint, *_used(filter(None, map(_read, self.cache_dir.glob("??/*.json")))))
        # A token has at least one byte, of the text or of what the server puts around it.
        most = {key: _dollars(self.endpoint, sum(len(message["content"].encode()) + 16 for message in request["messages"]),
                              request["parameters"]["max_tokens"]) for key, request in self.waiting.items()}
        left = list(self.waiting)
        while left:
            # As many as are within the limit if each costs the most it can. They cost less, so more may follow.
            sums = list(accumulate(most[key] for key in left))
            now = left if limit is None else left[: bisect_right(sums, limit - spent)]
            if not now:
                raise StageError(f"The next request could pass endpoint.max_dollars={limit:g}, of which ${spent:.4f} are spent "
                                 "in this run's folder: raise it to go on.")
            futures = [pool.submit(self._ask_one, key) for key in now]
            for future in progress(as_completed(futures), f"asking {self.endpoint.name}", len(futures)):
                spent += _dollars(self.endpoint, *_used([future.result()]))
            left = left[len(now):]

    def _ask_one(self, key: str) -> dict:
        request = self.waiting[key]
        completion = self._completion(request)
        try:  # the client library does not check what the server sent
            text = completion.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            text = 0
        if not isinstance(text, str | None):
            raise _NotACompletion("no text at choices[0].message.content")
        usage = getattr(completion, "usage", None)
        counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        counted = all(isinstance(count, int) and count >= 0 for count in counts)
        entry = {"request": request, "answer": (text or "")[:LONGEST_ANSWER], "usage": counts if counted else None}
        write_json(_entry(self.cache_dir, key), entry)
        return entry

    def _completion(self, request: dict) -> Any:
        """A completion, without a form if the server refuses it."""
        parameters = {name: value for name, value in request["parameters"].items() if name != "response_format" or not self.plain}
        send = functools.partial(self.client.chat.completions.create, model=request["model"], messages=request["messages"])
        try:
            return send(**parameters)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if parameters.pop("response_format", None) is None:
                raise
        completion = send(**parameters)
        self.plain = True
        return completion

    def _sentence(self, error: Exception) -> str:
        """Say what went wrong and what to do, for the person who wrote the settings."""
        if isinstance(error, StageError):
            return str(error)
        endpoint, tries = self.endpoint, f"{RETRIES + 1} tries"
        if isinstance(error, openai.APITimeoutError):
            what = (f"gave no answer within {endpoint.timeout_seconds:g} s in {tries}: raise endpoint.timeout_seconds or lower "
                    "endpoint.max_concurrency.")
        elif isinstance(error, openai.APIConnectionError):
            what = f"cannot be reached ({error.__cause__ or error}): start the server or correct endpoint.base_url."
        elif isinstance(error, openai.APIStatusError):
            what = self._refusal(error.status_code, error, tries)
        else:
            said = f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else error
            what = (f"sent something that is not a chat completion ({said}): check that endpoint.base_url is the address of an "
                    "OpenAI-compatible API; it usually ends in /v1.")
        return f"Endpoint '{endpoint.name}' ({endpoint.base_url}) {what}"

    def _refusal(self, status: int, error: openai.APIStatusError, tries: str) -> str:
        said, headers = self._server_words(error.body), error.response.headers
        if status in (401, 403) and self.api_key:
            return f"refused the API key in the environment variable {self.endpoint.api_key_env} ({status}): put a valid key there."
        if status in (401, 403):
            return f"wants an API key ({status}): export it in an environment variable and name that variable in endpoint.api_key_env."
        if 300 <= status < 400:
            return f"redirects to {headers.get('location')}: if that is right, make it endpoint.base_url."
        if status == 429:
            wait = headers.get("retry-after")
            return (f"still limits requests ({said}{f'; it asks to wait {wait} s' if wait else ''}): run again later, check the "
                    "account's quota, or lower endpoint.max_concurrency.")
        if status >= 500:
            return f"failed with status {status} in {tries} ({said}): see the server's log."
        if status not in (400, 404):
            return f"refused the request with status {status} ({said}): change its settings."
        return (f"refused model '{self.endpoint.model}' with status {status} ({said}): check endpoint.model, and that "
                "endpoint.base_url is right; it usually ends in /v1.")

    def _server_words(self, body: Any) -> str:
        if isinstance(body, dict):
            body = body.get("message") or body.get("detail") or body
        text = " ".join(str(body or "no message").split())
        return (text.replace(self.api_key, "***") if self.api_key else text)[:300]


def _api_key(endpoint: EndpointSettings) -> str | None:
    if not endpoint.api_key_env:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise SettingsError(f"endpoint.api_key_env names the environment variable {endpoint.api_key_env}, which is not set: export the "
                            "API key in it, or set endpoint.api_key_env to null if the endpoint needs none.")
    return key


def _client(endpoint: EndpointSettings, api_key: str | None) -> openai.OpenAI:
    def send_only_what_is_needed(request) -> None:
        for name in request.headers.keys() - _SENT_HEADERS:
            del request.headers[name]
        if api_key:
            request.headers["authorization"] = f"Bearer {api_key}"

    # A redirect is reported, not followed: the key would go to a host that the settings do not name.
    http = openai.DefaultHttpxClient(event_hooks={"request": [send_only_what_is_needed]}, follow_redirects=False)
    return openai.OpenAI(base_url=endpoint.base_url, api_key=api_key or "none", timeout=endpoint.timeout_seconds, max_retries=RETRIES,
                         http_client=http)
