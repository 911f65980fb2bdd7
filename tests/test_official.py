"""Public corpora from servers on this machine: fetched, taken up again, refused, explained; never from the network."""

import hashlib
import http.server
import io
import os
import random
import socket
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
from synthtune import settings, tasks
from synthtune.errors import AssetError
from synthtune.run import reproduce
from synthtune.task_list import SPECS
from synthtune.tasks import official
from toy_corpora import facts

SHARED = Path(os.environ.get("SYNTHTUNE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body, first = self.server.files.get(self.path.lstrip("/")), self.headers.get("Range")
        self.server.asked.append((self.path.lstrip("/"), first))
        if body is None:
            return self.send_error(404)
        start = int(first.removeprefix("bytes=").rstrip("-")) if first and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        broken = self.server.breaks > 0
        self.server.breaks -= broken
        self.wfile.write(body[start: start + len(body) // 8] if broken else body[start:])
        self.close_connection = True
        return None

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    """A publisher: `files` it gives, `breaks` transfers it cuts off, what was `asked`; whether it knows `ranges`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.files, served.asked, served.breaks, served.ranges = {}, [], 0, True
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def rows(number):
    """Rows of our own in RTE's format, no two alike."""
    draw = random.Random(number)
    words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(400)]
    lines = ["index\tsentence1\tsentence2\tlabel"]
    lines += [f"{n}\t{' '.join(draw.choices(words, k=14))}.\t{' '.join(draw.choices(words, k=7))}.\t"
              f"{'not_entailment' if n % 2 else 'entailment'}" for n in range(number)]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def rte(server, monkeypatch, tmp_path):
    """An archive like RTE's, of rows of our own, declared to be at the publisher."""
    monkeypatch.setenv("SYNTHTUNE_CACHE", str(tmp_path / "cache"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("RTE/train.tsv", rows(3000))
        out.writestr("RTE/dev.tsv", rows(40))
        out.writestr("RTE/test.tsv", "not asked for")
    server.files["RTE.zip"] = archive.getvalue()
    declare(monkeypatch, "rte", files=[{
        "url": f"http://127.0.0.1:{server.server_port}/RTE.zip", "bytes": len(archive.getvalue()),
        "sha256": hashlib.sha256(archive.getvalue()).hexdigest(), "members": {"RTE/train.tsv": "train.tsv", "RTE/dev.tsv": "dev.tsv"}}])
    return settings.official_corpora() / "rte"


def declare(monkeypatch, name, **entry):
    source = official.Source.model_validate({"citation": "ours", "licence": "ours", **entry})
    monkeypatch.setattr(official, "sources", lambda: {name: source})


def test_a_corpus_is_fetched_once_and_read(server, rte, tmp_path):
    chosen = settings.load("paper", run_dir=tmp_path / "run")
    task = tasks.load("rte", chosen)
    assert len(task.pool) >= 2250 and len(task.test) == 40 and task.pair == ("Claim", "Text")
    assert sorted(path.name for path in rte.iterdir()) == ["dev.tsv", "fetched.json", "train.tsv"]
    tasks.load("rte", settings.load("paper", run_dir=tmp_path / "another"))
    assert server.asked == [("RTE.zip", None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_where_it_ended(server, rte, ranges):
    server.breaks, server.ranges = 2, ranges
    official.fetch("rte")
    assert (rte / "train.tsv").read_bytes() == rows(3000)
    assert [first is None for _, first in server.asked] == [True, False, False]


def test_a_later_run_goes_on_as_well(server, rte):
    server.breaks = official.TRIES
    with pytest.raises(AssetError, match=r"RTE.zip cannot be fetched \(it ended too early\). Check the network and run again"):
        official.fetch("rte")
    assert not rte.exists()
    server.breaks = 0
    official.fetch("rte")
    assert server.asked[-1][1] is not None and (rte / "dev.tsv").read_bytes() == rows(40)


def test_other_bytes_are_refused_and_deleted(server, rte):
    right = server.files["RTE.zip"]
    server.files["RTE.zip"] = right[:-1] + b"!"
    with pytest.raises(AssetError, match="RTE.zip is not the file that was expected .* it was deleted. Run again; .* --data-root"):
        official.fetch("rte")
    assert not rte.exists() and not list((settings.official_corpora() / ".partial").iterdir())
    server.files["RTE.zip"] = right
    assert official.fetch("rte") == rte


def test_a_file_that_was_moved_is_explained(server, rte):
    server.files.clear()
    with pytest.raises(AssetError, match=r"RTE.zip was refused \(404 Not Found\). Its publisher may have moved it: .* --data-root"):
        official.fetch("rte")


def test_without_a_network_it_says_so(rte, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        source = official.sources()["rte"].model_dump(mode="json")
        source["files"][0]["url"] = f"http://127.0.0.1:{closed.getsockname()[1]}/RTE.zip"
        declare(monkeypatch, "rte", files=source["files"])
        with pytest.raises(AssetError, match="cannot be fetched .*refused.*Check the network and run again"):
            official.fetch("rte")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with facts of our own in WebNLG's format, declared to be WebNLG's."""
    monkeypatch.setenv("SYNTHTUNE_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "published"
    facts.write(work / "release_v2" / "xml", seed=3, sizes={"train": 60, "dev": 20, "test": 20})
    (work / "README.md").write_text("not asked for")
    for command in (["init", "--quiet"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a"]):
        subprocess.run(["git", "-C", str(work), *command], check=True)
    commit = subprocess.run(["git", "-C", str(work), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    entry = {"url": work.as_uri(), "commit": commit, "folder": "release_v2/xml", "parts": ["train", "dev", "test"]}
    declare(monkeypatch, "webnlg", repository=entry)
    return entry


def test_a_repository_is_fetched_at_its_commit(repository, tmp_path):
    changes = {"pool_size": 40, "budgets": [16, 40], "dev_size": 10, "nlg_test_size": 10}
    task = tasks.load("webnlg", settings.load("paper", changes, run_dir=tmp_path / "run"))
    assert len(task.pool) == 40 and task.title == "WebNLG"
    assert sorted(path.name for path in (settings.official_corpora() / "webnlg").iterdir()) == [
        "dev", "fetched.json", "test", "train"]
    assert not list(settings.official_corpora().glob(".git.*"))


def test_a_commit_that_is_gone_is_explained(repository, monkeypatch):
    declare(monkeypatch, "webnlg", repository={**repository, "commit": "0" * 39 + "1"})
    with pytest.raises(AssetError, match="published at commit 000000000000 cannot be fetched .* --data-root"):
        official.fetch("webnlg")


def test_without_git_it_says_so(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AssetError, match="there is no git here: install it, or put the official files of webnlg"):
        official.fetch("webnlg")


def test_a_missing_corpus_is_found_before_any_model_is_fetched(tmp_path, capsys):
    (tmp_path / "rte").mkdir()
    code = reproduce.main(["--profile", "paper", "--only", "rte", "--data-root", str(tmp_path), "--set", f"run_dir={tmp_path / 'run'}"])
    assert code != 0 and "has no train.tsv and no dev.tsv: put the official files of rte there" in capsys.readouterr().err


def test_what_is_declared_can_be_read():
    assert set(official.sources()) == {name for name, spec in SPECS.items() if spec.public or spec.task_type == "generation"}
    for name in settings.PUBLIC:
        kept = [kept for file in official.sources()[name].files for kept in (file.members.values() or [file.name])]
        assert kept == SPECS[name].files


def test_banking77_is_what_is_declared():
    if not (SHARED / "banking77").exists():
        pytest.skip(f"the real banking77 is not at hand in {SHARED}")
    for file in official.sources()["banking77"].files:
        content = (SHARED / "banking77" / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
