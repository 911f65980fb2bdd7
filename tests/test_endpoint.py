"""Prompted models: against a real `transformers serve`, and a scripted server for what can go wrong."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from synthtune import assets, endpoint
from synthtune.endpoint import NO_ANSWER, answer, classify, draw_shots, read_label, realise
from synthtune.errors import SettingsError, StageError
from synthtune.settings import EndpointSettings, load
from synthtune.tasks import Example

TEXTS = [
    "A warm, funny film that I will watch again.", "Two hours of my life that nobody will give back.",
    "Great acting and a story with a heart."]
LABELS = ["negative", "positive"]
GOLD = [Example(f"g{i}", f"Worked example {i}.", LABELS[i % 2]) for i in range(10)]
QUESTION = "Is this review positive or negative?"


def at(base_url: str, **changes) -> EndpointSettings:
    return EndpointSettings(**{"name": "local", "base_url": base_url, "model": "some-model", "max_concurrency": 2, **changes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def transformers_serve(model: str, folder):
    """The server that comes with transformers, on loopback, with no hub in reach."""
    port = free_port()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", model,
               "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with open(folder / "serve.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 180
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                if server.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"transformers serve did not start:\n{(folder / 'serve.log').read_text()}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def test_a_real_server_answers_and_the_cache_outlives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    model = str(assets.model_path("smollm2-135m-instruct"))
    fact = "Kestrel | wingspan | 75 centimetres"
    shots = [Example("s", "Oak | height | 20 metres", "The oak is 20 metres high.")]
    cache = tmp_path / "cache"

    def ask(settings):
        return (classify(TEXTS, LABELS, GOLD[:2], QUESTION, settings, cache),
                realise([fact], shots, "Say the fact in a sentence.", settings, cache, max_tokens=24))

    with transformers_serve(model, tmp_path) as base_url:
        settings = at(base_url, model=model)
        labels, texts = ask(settings)
        with pytest.raises(StageError, match="refused model 'another' .*pinned to.*endpoint.model"):
            ask(settings.model_copy(update={"model": "another"}))
    assert len(labels) == 3 and set(labels) <= {*LABELS, NO_ANSWER}
    assert set(labels) & set(LABELS), "the instruction-tuned model names no label at all"
    assert "kestrel" in texts[0].lower() and "\n" not in texts[0]

    assert ask(settings) == (labels, texts)  # the server is gone: these come from the disk
    with pytest.raises(StageError, match="cannot be reached.*start the server.*3 of 4 answers are kept"):
        classify([*TEXTS, "New."], LABELS, GOLD[:2], QUESTION, settings, cache)


# A scripted server, for answers that a healthy one does not give.

Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None) -> Reply:
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "some-model",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": text}}]}
    return 200, {"content-type": "application/json"}, json.dumps(body).encode()


def failure(status: int, message: str, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/json", **named}, body


@dataclass
class Script:
    """Answers each request with the next reply, and the last one for ever after."""

    replies: list[Reply | Callable[[dict], Reply]]
    bodies: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models: tuple[str, ...] = ()
    under_way: int = 0
    most_under_way: int = 0
    base_url: str = ""


@pytest.fixture
def scripted():
    servers = []

    def start(*replies, models: tuple[str, ...] = ()) -> Script:
        script, lock = Script(list(replies), models=models), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                data = [{"id": name, "object": "model"} for name in script.models]
                self.reply(200, {"content-type": "application/json"}, json.dumps({"data": data}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    script.bodies.append(body)
                    script.headers.append({name.lower(): value for name, value in self.headers.items()})
                    script.times.append(time.monotonic())
                    script.under_way += 1
                    script.most_under_way = max(script.most_under_way, script.under_way)
                    reply = script.replies.pop(0) if len(script.replies) > 1 else script.replies[0]
                reply = reply(body) if callable(reply) else reply
                with lock:
                    script.under_way -= 1
                with contextlib.suppress(OSError):  # the client may have given up waiting
                    self.reply(*reply)

            def reply(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        script.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def echo(body: dict) -> Reply:
    return completion(body["messages"][-1]["content"].upper())


def test_answers_keep_the_order_and_equal_prompts_are_asked_once(scripted, tmp_path):
    server = scripted(echo)
    prompts = [question(text) for text in ("a", "b", "a", "c", "d", "e")]
    assert answer(prompts, at(server.base_url + "/"), tmp_path, max_tokens=7, seed=3) == list("ABACDE")
    assert len(server.bodies) == 5
    del server.bodies[0]["messages"]
    assert server.bodies[0] == {"model": "some-model", "temperature": 0, "max_tokens": 7, "seed": 3}
    assert answer(prompts, at(server.base_url), tmp_path, max_tokens=7, seed=3) == list("ABACDE")
    assert len(server.bodies) == 5
    answer(prompts[:1], at(server.base_url, model="other"), tmp_path, max_tokens=7, seed=3)
    answer(prompts[:1], at(server.base_url), tmp_path, max_tokens=8, seed=3)
    assert len(server.bodies) == 7


def test_no_more_requests_at_a_time_than_the_settings_allow(scripted, tmp_path):
    def slow(body):
        time.sleep(0.05)
        return echo(body)

    server = scripted(slow)
    answer([question(str(i)) for i in range(12)], at(server.base_url, max_concurrency=3), tmp_path)
    assert server.most_under_way == 3


def test_a_damaged_cache_entry_is_asked_again(scripted, tmp_path):
    server = scripted(echo)
    settings = at(server.base_url)
    answer([question("a")], settings, tmp_path)
    [entry] = tmp_path.rglob("*.json")
    whole = entry.read_text()
    for damaged in (whole[:20], "[]", whole.replace('"a"', '"b"')):
        entry.write_text(damaged)
        assert answer([question("a")], settings, tmp_path) == ["A"]
        assert entry.read_text() == whole
    assert len(server.bodies) == 4


def test_it_waits_as_long_as_the_server_asks_and_tries_again(scripted, tmp_path):
    server = scripted(failure(429, "slow down", retry_after="1"), failure(503, "busy"), completion("fine"))
    assert answer([question("a")], at(server.base_url), tmp_path) == ["fine"]
    assert server.times[1] - server.times[0] >= 1
    assert len(server.bodies) == 3


def test_an_interrupted_run_pays_for_no_answer_twice(scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server = scripted(echo, echo, failure(500, "out of memory"), echo)
    prompts = [question(text) for text in "abcde"]
    settings = at(server.base_url, max_concurrency=1)
    with pytest.raises(StageError, match=r"status 500.*out of memory.*answers are kept"):
        answer(prompts, settings, tmp_path)
    kept = len(list(tmp_path.rglob("*.json")))
    assert 2 <= kept < 5
    asked = len(server.bodies)
    assert answer(prompts, settings, tmp_path) == list("ABCDE")
    assert len(server.bodies) - asked == 5 - kept
    assert [path.name for path in tmp_path.rglob(".*")] == [".lock"]


def test_the_key_goes_to_the_endpoint_and_nowhere_else(scripted, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level("DEBUG")
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "belongs-elsewhere")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Other: belongs-elsewhere")
    monkeypatch.setenv("MY_KEY", "s3cret-key")
    server = scripted(completion("yes"), completion("yes"), failure(400, "bad request with s3cret-key"))
    answer([question("a")], at(server.base_url), tmp_path)
    answer([question("b")], at(server.base_url, api_key_env="MY_KEY"), tmp_path)
    with pytest.raises(StageError) as caught:
        answer([question("c")], at(server.base_url, api_key_env="MY_KEY"), tmp_path)
    assert "s3cret" not in str(caught.value)
    assert [headers.get("authorization") for headers in server.headers] == [None, *["Bearer s3cret-key"] * 2]
    assert "belongs-elsewhere" not in str(server.headers)
    assert not [name for headers in server.headers for name in headers if name.startswith("x-")]
    assert not [path for path in tmp_path.rglob("*.json") if "s3cret" in path.read_text()]
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(("reply", "words"), [
    (failure(401, "Incorrect API key provided: s3cr***"), "refused the API key in .* MY_KEY .401"),
    (failure(403, "no"), "MY_KEY"),
    (failure(404, "The model does not exist"), "no model 'some-model': did you mean 'some-model-2'?"),
    (failure(422, "Unexpected fields: seed"), "status 422 .Unexpected fields: seed"),
    (failure(429, "quota", retry_after="999"), "limits requests .quota; it asks to wait 999 s"),
    (failure(308, "moved", location="http://127.0.0.1:9/v1"), "redirects to http://127.0.0.1:9/v1"),
    (completion(None)[:2] + (b'{"choices": []}',), "not a chat completion"),
    (completion(None)[:2] + (b'{"choices": [{"message": {"content": 5}}]}',), "not a chat completion"),
    (completion(None)[:2] + (b'{"choices": [{"mess',), "not a chat completion .not JSON"),
    ((200, {"content-type": "text/html"}, b"<html></html>"), "not a chat completion.*usually ends in /v1"),
])
def test_each_failure_is_one_sentence_that_says_what_to_do(reply, words, scripted, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-key")
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server = scripted(reply, models=("some-model-2", "other"))
    with pytest.raises(StageError, match=words) as caught:
        answer([question("a")], at(server.base_url, api_key_env="MY_KEY"), tmp_path)
    assert "Endpoint 'local' (http://127.0.0.1" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert len(server.bodies) == 1 and not list(tmp_path.rglob("*.json"))


def test_timeouts(scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 1)

    def late(body):
        time.sleep(0.6)
        return echo(body)

    server = scripted(late)
    with pytest.raises(StageError, match=r"no answer within 0.2 s in 2 tries: raise endpoint.timeout"):
        answer([question("a")], at(server.base_url, timeout_seconds=0.2), tmp_path)
    assert len(server.bodies) == 2


def test_settings_that_cannot_work(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(SettingsError, match="environment variable MY_KEY, which is not set"):
        answer([question("a")], at("http://127.0.0.1:9/v1", api_key_env="MY_KEY"), tmp_path)
    with pytest.raises(SettingsError, match="'localhost:8000/v1', which is not a URL"):
        answer([question("a")], at("localhost:8000/v1"), tmp_path)


def test_a_prompt_shows_the_labels_the_worked_examples_and_the_text(scripted, tmp_path):
    server = scripted(completion("Positive."), completion(None))
    settings = at(server.base_url, max_concurrency=1)
    assert classify(TEXTS[:2], LABELS, GOLD[:2], QUESTION, settings, tmp_path) == ["positive", NO_ANSWER]
    system, *turns = server.bodies[0]["messages"]
    assert system["role"] == "system"
    assert QUESTION in system["content"] and "negative, positive" in system["content"]
    assert [turn["content"] for turn in turns] == [
        "Worked example 0.", "negative", "Worked example 1.", "positive", TEXTS[0]]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize(("text", "label"), [
    ("positive", "positive"),
    ("  **Positive**.\n", "positive"),
    ("Negative\n\nThe review is not positive because ...", "negative"),
    ("The sentiment of this text is negative.", "negative"),
    ("Label: money", "money"),
    ("It is about money-fx", "money-fx"),
    ("positive or negative", NO_ANSWER),
    ("moneyed", NO_ANSWER),
    ("I cannot say.", NO_ANSWER),
    ("", NO_ANSWER),
])
def test_reading_a_label(text, label):
    assert read_label(text, ["positive", "negative", "money", "money-fx"]) == label


def test_labels_are_returned_as_the_task_writes_them():
    assert read_label("C++", ["C", "C++"]) == "C++"
    assert read_label("the topic is earn", ["Earn", "Acq"]) == "Earn"


def test_drawing_worked_examples():
    drawn = draw_shots(GOLD, 5, 1, LABELS)
    assert drawn == draw_shots(GOLD, 5, 1, LABELS)
    assert drawn[:2] == draw_shots(GOLD, 2, 1, LABELS)
    assert drawn != draw_shots(GOLD, 5, 2, LABELS)
    assert {shot.target for shot in drawn[:2]} == set(LABELS)
    assert len(set(draw_shots(GOLD, 10, 1))) == 10
    assert draw_shots(GOLD, 0, 1) == []
    with pytest.raises(StageError, match="only 10 gold examples"):
        draw_shots(GOLD, 11, 1)
