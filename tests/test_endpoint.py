"""Prompted models: against a real `transformers serve`, and a scripted server for what can go wrong."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from synthtune import annotate, custom, experiment, generate, teacher
from synthtune.context import Context
from synthtune.custom import command
from synthtune.custom import study as study_of_rows
from synthtune.errors import SettingsError, StageError
from synthtune.models import assets, endpoint
from synthtune.models.endpoint import NO_ANSWER, answer, draw_shots, prompted, read_label
from synthtune.settings import EndpointSettings, load
from synthtune.tasks import Example, PromptTemplate, Task

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


@pytest.mark.slow
def test_a_real_server_answers_and_the_cache_outlives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    model = str(assets.model_path("smollm2-135m-instruct"))
    fact = "Kestrel | wingspan | 75 centimetres"
    shots = [Example("s", "Oak | height | 20 metres", "The oak is 20 metres high.")]
    cache = tmp_path / "cache"

    def ask(settings):
        return (prompted(TEXTS, GOLD[:2], QUESTION, settings, cache, labels=LABELS),
                prompted([fact], shots, "Say the fact in a sentence.", settings, cache, max_tokens=24))

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
        prompted([*TEXTS, "New."], GOLD[:2], QUESTION, settings, cache, labels=LABELS)


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
    """Answers each request with the next reply, and the last one for ever after; None closes the connection."""

    replies: list[Reply | Callable[[dict], Reply] | None]
    bodies: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    base_url: str = ""


@pytest.fixture
def scripted():
    servers = []

    def start(*replies) -> Script:
        script, lock = Script(list(replies)), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
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
                if reply is None:
                    self.close_connection = True
                    return
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
    (failure(404, "The model does not exist"), "refused model 'some-model' .* 404 .The model does not exist.: check endpoint.model"),
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
    server = scripted(reply)
    with pytest.raises(StageError, match=words) as caught:
        answer([question("a")], at(server.base_url, api_key_env="MY_KEY"), tmp_path)
    assert "Endpoint 'local' (http://127.0.0.1" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__context__ is None
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
    assert prompted(TEXTS[:2], GOLD[:2], QUESTION, settings, tmp_path, labels=LABELS) == ["positive", NO_ANSWER]
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


# Structured answers, what cannot be read, tokens and dollars.

def counted(text: str, read: int = 100, written: int = 10) -> Reply:
    status, headers, body = completion(text)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return status, headers, json.dumps({**json.loads(body), "usage": usage}).encode()


def knowing(body: dict) -> Reply:
    """A model that knows the task: labels by a word in the text, and as many new examples as are asked for."""
    asked = body["messages"][-1]["content"]
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "label" in properties:
        labels = properties["label"]["enum"]
        return counted(json.dumps({"label": next((label for label in labels if label in asked), labels[0])}))
    number, about = int(re.search(r"Write (\d+)", asked)[1]), re.search(r"All of them have the \w+: (.*)", asked)
    texts = [f"Words {body['seed']} {place} that are {about[1] if about else 'new'}" for place in range(number)]
    return counted(json.dumps({"examples": texts if about else [{"text": f"{text} | a | b", "output": text} for text in texts]}))


def test_a_server_is_told_the_labels_and_answers_in_json(scripted, tmp_path):
    server = scripted(completion('{"label": "positive"}'))
    assert prompted(TEXTS[:1], [], QUESTION, at(server.base_url), tmp_path, labels=LABELS) == ["positive"]
    schema = server.bodies[0]["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"] == {"label": {"type": "string", "enum": LABELS}}


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_the_form_is_asked_without_it(status, scripted, tmp_path, capsys):
    def plain_only(body):
        return failure(status, "response_format is not known") if "response_format" in body else completion("It is positive.")

    server = scripted(plain_only)
    assert prompted(TEXTS, [], QUESTION, at(server.base_url, max_concurrency=1), tmp_path, labels=LABELS) == ["positive"] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False], "refused once, not asked again"
    assert "takes no JSON schema" in capsys.readouterr().out
    assert prompted(TEXTS, [], QUESTION, at(server.base_url), tmp_path, labels=LABELS) == ["positive"] * 3
    assert len(server.bodies) == 4


@pytest.mark.parametrize("unread", ["I cannot say.", '{"label": "neutral"}', '{"label": 5}', "{}", "[]", '{"lab', "",
                                    "positive or negative", "word " * 1_000_000])
def test_an_answer_that_cannot_be_read_is_asked_for_again_and_in_the_end_is_none(unread, scripted, tmp_path, capsys):
    server = scripted(completion(unread), completion(unread), completion(unread), completion("negative"))
    assert prompted(TEXTS[:1], [], QUESTION, at(server.base_url), tmp_path, labels=LABELS) == [NO_ANSWER]
    assert len(server.bodies) == endpoint.TRIES
    *_, said, asked = server.bodies[-1]["messages"]
    assert said["role"] == "assistant" and len(said["content"]) <= 500 and asked["role"] == "user"
    assert "1 of 1 answers could not be read, after 3 tries" in capsys.readouterr().out
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.json")) < 200_000
    assert prompted(TEXTS[:1], [], QUESTION, at(server.base_url), tmp_path, labels=LABELS) == [NO_ANSWER]
    assert len(server.bodies) == endpoint.TRIES, "what cannot be read is paid for once, too"


def test_the_second_answer_counts_where_the_first_cannot_be_read(scripted, tmp_path):
    server = scripted(completion("Hm."), completion("negative"))
    assert prompted(TEXTS[:1], [], QUESTION, at(server.base_url), tmp_path, labels=LABELS) == ["negative"]


def test_a_connection_that_is_closed_is_tried_again(scripted, tmp_path, monkeypatch):
    server = scripted(None, completion("fine"))
    assert answer([question("a")], at(server.base_url), tmp_path) == ["fine"]
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server.replies[:] = [None]
    with pytest.raises(StageError, match="cannot be reached .*: start the server.*1 of 2 answers are kept"):
        answer([question("a"), question("b")], at(server.base_url), tmp_path)


def test_what_is_sent_is_said_first_and_what_it_cost_afterwards(scripted, tmp_path, capsys):
    said = []

    def listening(body):
        said.append(capsys.readouterr().out)
        return counted("yes", 1000, 50)

    server = scripted(listening)
    settings = at(server.base_url, input_price=2, output_price=8, max_concurrency=1)
    answer([question("a" * 400)] * 2 + [question("b")], settings, tmp_path, max_tokens=30)
    assert (f"Sending 2 prompts to some-model at {server.base_url}. Estimated: 109 tokens read, at most 60 written, "
            "at most $0.0007.") in said[0]
    assert "2 answers: 2,000 tokens read, 100 written, $0.0048 (estimated: 109 tokens read, at most 60" in capsys.readouterr().out
    answer([question("b")], settings, tmp_path, max_tokens=30)
    assert not capsys.readouterr().out, "nothing is sent and nothing is said"


def test_answers_without_counts_are_counted_here(scripted, tmp_path, capsys):
    server = scripted(completion("four"), counted("more", 7, 3))
    answer([question("text"), question("more")], at(server.base_url, max_concurrency=1), tmp_path)
    assert "2 answers: 12 tokens read, 4 written (estimated:" in (said := capsys.readouterr().out)
    assert "no counts for 1: theirs are estimated" in said


def test_the_limit_stops_before_it_is_passed_and_a_higher_one_goes_on(scripted, tmp_path, capsys):
    server = scripted(lambda body: counted("yes", 10, 100))
    settings = at(server.base_url, input_price=0, output_price=1_000, max_dollars=0.75)
    prompts = [question(str(number)) for number in range(12)]
    with pytest.raises(StageError, match=r"could pass endpoint.max_dollars=0.75, of which \$0.7000 are spent .*raise it.* "
                                         r"7 of 12 answers are kept; the next run asks for the others only"):
        answer(prompts, settings, tmp_path, max_tokens=100)
    assert len(server.bodies) == 7 and "7 answers: 70 tokens read, 700 written, $0.7000" in capsys.readouterr().out
    with pytest.raises(StageError, match="7 of 12"):
        answer(prompts, settings, tmp_path, max_tokens=100)
    assert answer(prompts, settings.model_copy(update={"max_dollars": 2}), tmp_path, max_tokens=100) == ["yes"] * 12
    assert len(server.bodies) == 12


def test_short_answers_leave_more_of_the_limit_than_the_longest_would(scripted, tmp_path):
    server = scripted(lambda body: counted("yes", 10, 10))
    settings = at(server.base_url, input_price=0, output_price=1_000, max_dollars=0.75)
    assert len(answer([question(str(number)) for number in range(60)], settings, tmp_path, max_tokens=100)) == 60


# In the place of the fine-tuned teacher.

COLOURS = ("blue", "green", "red")


def study(base_url, folder, task_type="classification", **changes):
    """A task of our own and settings that take everything from an endpoint."""
    labels = COLOURS if task_type == "classification" else ()
    pool = [Example(f"p{place}", f"Example {place} is {COLOURS[place % 3]}" + ("" if labels else " | a | b"),
                    COLOURS[place % 3] if labels else f"Text {place}.") for place in range(30)]
    chosen = {"number_format": "float32", "budgets": [12], "pool_size": 30, "generate.pairs": 13, "custom_task": "ours",
              "annotate.source": "endpoint", "generate.source": "endpoint", "endpoint": at(base_url, shots=[0, 3]).model_dump()}
    settings = load("smoke", {**chosen, **changes}, run_dir=folder)
    template = PromptTemplate("Name the colour.", "Text", "Colour" if labels else "Output")
    task = Task("ours", "Ours", task_type, labels, template, tuple(pool), (), (), {}, "digest")
    return task, 12, settings


def made(base_url, folder, task_type="classification", **changes):
    task, budget, settings = study(base_url, folder, task_type, **changes)
    assert teacher.base(settings) is None
    annotator, generator = (teacher.ready(None, Context.of(task, settings, budget), objective) for objective in ("annotate", "generate"))
    annotated = annotate.annotate(annotator, Context.of(task, settings, budget))
    generated = generate.generate(generator, annotator, Context.of(task, settings, budget))
    annotate.check(annotated, annotator, Context.of(task, settings, budget))
    return annotated, generated, generate.audit(generated, generator, Context.of(task, settings, budget)), settings


def test_the_tables_of_the_stages_come_from_a_prompted_model_alone(scripted, tmp_path):
    server = scripted(knowing)
    annotated, generated, report, settings = made(server.base_url, tmp_path)
    assert len(annotated) == 18 and list(annotated["output"]) == [COLOURS[place % 3] for place in range(12, 30)]
    assert not annotated["dropped"].any() and annotated["log_probability"].isna().all()
    rows = experiment.synthetic_rows(annotated, COLOURS, settings)
    assert rows[0].soft == (1.0, 0.0, 0.0) and rows[1].soft == (0.0, 1.0, 0.0), "students learn the label as a hard one"
    assert len(generated) == report["kept"] == 13 and list(generated["sampled"][:4]) == ["blue", "green", "red", "blue"]
    assert list(generated["output"]) == list(generated["relabelled"]) == list(generated["sampled"])
    asked = len(server.bodies)
    assert asked == 18 + 3 + 13 and {body["temperature"] for body in server.bodies} == {0, settings.generate.temperature}
    again, pairs, *_ = made(server.base_url, tmp_path, **{"endpoint.max_concurrency": 1})
    assert again.equals(annotated) and pairs.equals(generated) and len(server.bodies) == asked
    for name in ("annotated.parquet", "generated.parquet"):
        next(tmp_path.rglob(name)).unlink()
    again, pairs, *_ = made(server.base_url, tmp_path)
    assert again.equals(annotated) and pairs.equals(generated) and len(server.bodies) == asked, "the same draws, from the cache"


def test_gold_examples_in_prompts_are_drawn_anew_for_each_request_and_show_gold_only(scripted, tmp_path):
    server = scripted(knowing)
    made(server.base_url, tmp_path, **{"generate.pairs": 45})
    prompts = [body["messages"][-1]["content"] for body in server.bodies if "Write" in body["messages"][-1]["content"]]
    shown = [re.findall(r"Example (\d+) is (\w+)", prompt) for prompt in prompts]
    assert len(prompts) == 9 and all(len(each) == 3 for each in shown)
    assert len({str(each) for each in shown}) > 3
    for prompt, each in zip(prompts, shown, strict=True):
        assert all(int(number) < 12 and f"have the Colour: {colour}" in prompt for number, colour in each)


def test_pairs_of_a_generation_task(scripted, tmp_path):
    def writing(body):
        return knowing(body) if "response_format" in body else counted(f"Said of {body['messages'][-1]['content']}")

    annotated, generated, report, _ = made(scripted(writing).base_url, tmp_path, "generation")
    assert annotated["output"][0] == "Said of Example 12 is blue | a | b" and len(generated) == report["kept"] == 13
    assert generated["sampled"].str.startswith("Words").all() and generated["output"].str.startswith("Said of Words").all()


@pytest.mark.parametrize(("reply", "reason"), [
    ("I would rather not.", "malformed"), ("", "malformed"), ('{"examples": []}', "malformed"), ('{"examples": [1, null]}', "malformed"),
    ('{"examples": ["A new text of', "malformed"), ('{"examples": ["A first new text", "A secon', "unfinished"),
    ('```json\n{"texts": ["Example 0 is blue"]}\n```', "copied from gold"), ('{"examples": ["One and the same text"]}', "duplicate"),
])
def test_pairs_that_cannot_be_used_are_counted_by_reason(reply, reason, scripted, tmp_path):
    def answering(body):
        return counted(reply) if "examples" in str(body.get("response_format")) else knowing(body)

    _, generated, report, _ = made(scripted(answering).base_url, tmp_path)
    assert len(generated) == 13 and report["dropped"][reason] >= 2 and sum(report["dropped"].values()) + report["kept"] == 13


def test_annotations_without_a_label_are_dropped_and_counted(scripted, tmp_path):
    def shy(body):
        return counted("Who knows?") if "Example 14" in str(body["messages"]) else knowing(body)

    annotated, *_ = made(scripted(shy).base_url, tmp_path)
    assert annotated.loc[annotated["dropped"] != "", ["id", "output", "dropped"]].to_numpy().tolist() == [["p14", "", "no label"]]


def test_a_prompted_model_beside_the_teacher_makes_a_condition(scripted, tmp_path):
    server = scripted(knowing)
    teachers = {"annotate.source": None, "generate.source": None}
    task, budget, settings = study(server.base_url, tmp_path, **teachers, **{"annotate.beside": "endpoint"})
    context = Context.of(task, settings, budget)
    table = annotate.beside(context)
    assert len(table) == len(server.bodies) == 18 and annotate.right(table, context)["accuracy"] == 100
    table.head(10).to_parquet(context.folder / "annotated.parquet")  # of the teacher
    table.head(6).to_parquet(context.folder / "generated.parquet")
    amounts = {cell.condition: cell.amount for cell in experiment.cells(context) if cell.budget == budget and cell.amount != 6}
    assert amounts == {"gold": 0, "gold+annotated": 10, "gold+prompted": 10}
    rows, counts = experiment.training_rows(context, experiment.Cell(budget, "gold+prompted", 10, 1))
    assert counts == {"n_gold": 12, "n_annotated": 10, "n_generated": 0} and rows[-1].soft is None
    _, _, without = study(server.base_url, tmp_path, **teachers)
    assert annotate.beside(Context.of(task, without, budget)) is None and len(server.bodies) == 18
    assert "gold+prompted" not in {cell.condition for cell in experiment.cells(Context.of(task, without, budget))}
    assert settings.for_stage("generate", "ours") == without.for_stage("generate", "ours"), "nothing is generated again"
    with pytest.raises(SettingsError, match="annotate.beside: endpoint, but no endpoint is named"):
        load("smoke", ["annotate.beside=endpoint"])


def test_prices_and_limits_are_no_part_of_fingerprints_and_nothing_is_sent_without_an_endpoint(tmp_path):
    _, budget, plain = study("http://127.0.0.1:1/v1", tmp_path)
    _, _, priced = study("http://127.0.0.1:1/v1", tmp_path, **{
        "endpoint.input_price": 1, "endpoint.output_price": 2, "endpoint.max_dollars": 3, "endpoint.max_concurrency": 9})
    _, _, other = study("http://127.0.0.1:1/v1", tmp_path, **{"endpoint.model": "another"})
    for stage in ("annotate", "generate", "students"):
        assert plain.stage_digest(stage, "ours", budget) == priced.stage_digest(stage, "ours", budget)
        assert plain.stage_digest(stage, "ours", budget) != other.stage_digest(stage, "ours", budget)
    assert load("laptop").for_stage("figures") == load("laptop", {"annotate.source": None}).for_stage("figures")
    assert plain.for_stage("figures") == priced.for_stage("figures")
    with pytest.raises(SettingsError, match="annotate.source: endpoint, but no endpoint is named; set endpoint.name"):
        load("smoke", ["annotate.source=endpoint"])
    with pytest.raises(SettingsError, match="endpoint.max_dollars: what a token costs is not known; set endpoint.input_price"):
        study("http://127.0.0.1:1/v1", tmp_path, **{"endpoint.max_dollars": 3})


def test_rows_of_ones_own_with_a_prompted_model_and_no_teacher(scripted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(teacher, "fine_tune", None)
    sizes = {"labelled": 24, "unlabelled": 12, "test": 12}
    for name, size in sizes.items():
        lines = [f"Row {place} of {name} is {COLOURS[place % 3]}" + ("" if name == "unlabelled" else f",{COLOURS[place % 3]}")
                 for place in range(size)]
        header = "text" if name == "unlabelled" else "text,colour"
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    (tmp_path / "task.yaml").write_text("rows: labelled.csv\ntext: text\nlabel: colour\nunlabelled: unlabelled.csv\ntest: test.csv\n"
                                        "profile: smoke\n")
    server = scripted(knowing)
    chosen = ["annotate.source=endpoint", "generate.source=endpoint", "endpoint.name=local", f"endpoint.base_url={server.base_url}",
              "endpoint.model=some-model", "endpoint.shots=[2]", "generate.pairs=9", "students.steps=4", "custom.passes=1",
              "figures.resamples=200", "students.seeds=[1]"]
    outcome = command.train(custom.read(tmp_path / "task.yaml"), tmp_path / "out", chosen)
    assert outcome.score(study_of_rows.TEACHER)["value"] == 100
    assert len(outcome.annotated) == 12 and len(outcome.generated) == 9 and (tmp_path / "out" / "model" / "config.json").exists()
    readme = (tmp_path / "out" / "augmented" / "README.md").read_text()
    assert "Annotated by some-model, prompted with up to 2 gold rows" in readme
    assert len(server.bodies) == 12 + 3 + 9 + 12, "annotated, generated, relabelled, and the rows held out"
    assert f"Sending 12 prompts to some-model at {server.base_url}" in capsys.readouterr().out
    assert command.train(custom.read(tmp_path / "task.yaml"), tmp_path / "out", [*chosen, "endpoint.input_price=1"]) is None
    assert len(server.bodies) == 36
