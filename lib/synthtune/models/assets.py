"""Where models and corpora come from: declared in `assets.yaml`, downloaded once, verified, cached.

Archives are releases on a Python package index, so the download is left to pip: the index, the mirrors, the
proxy and the certificates the user has set up for it hold here too, and no host is named in this package. pip
retries and resumes broken transfers and refuses an archive whose SHA-256 differs. (pooch wants the host of every file.)

A model need not be declared: it may be a folder of this machine, or a model of the Hugging Face hub, "owner/name" or
"owner/name@revision". The hub's client downloads the latter, at a commit, weights as safetensors only (see `hub`).

The cache of all else is the folder in the environment variable ``SYNTHTUNE_CACHE``, by default ``.cache/synthtune`` in
the clone. A cache copied from another machine is verified once and then works without a network.
"""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from synthtune import files
from synthtune.errors import AssetError, StageError, nearest
from synthtune.models import hub
from synthtune.models.names import Asset, HubModel, entries, find, models
from synthtune.places import cache_folder
from synthtune.progress import progress

# A source distribution is "built" by pip to learn its name and version, which would execute its setup.py.
# This backend, put in front of the real one for the download only, answers with what is declared, so nothing
# of it is executed.
_BACKEND = """\
import json, os, pathlib

class __legacy__:
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        project, version = json.loads(os.environ["SYNTHTUNE_DECLARED"])
        info = pathlib.Path(folder) / f"{project}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
        return info.name
"""

# What is read of a hub repository or a folder: no pickles, no code.
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*",
               "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.json", "vocab.txt", "merges.txt", "*.model")


def architecture(name: str) -> dict[str, Any]:
    """A model's sizes under transformers' names: as declared, or from its own config.json, which alone is fetched.

    Raises
    ------
    AssetError
        As for `model_path`.
    """
    entry = find(name)
    if not isinstance(entry, Path) and (entry.architecture or isinstance(entry, Asset)):
        return entry.architecture
    if isinstance(entry, HubModel):
        from huggingface_hub import hf_hub_download

        with _asking(name, entry):
            path = Path(hf_hub_download(entry.repository, "config.json", revision=entry.revision, cache_dir=hub.cache()))
    else:
        path = entry / "config.json"
    try:
        sizes = json.loads(path.read_text("utf-8"))
        return {**sizes, "model_type": sizes["model_type"]}
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is no configuration of a model of transformers: it names no model_type.") from error


def download_bytes(name: str, parameters: float) -> float:
    """Bytes that are downloaded for a model of so many parameters."""
    entry = find(name)
    if isinstance(entry, Path):
        return 0
    if isinstance(entry, Asset):
        return entry.bytes
    sizes = architecture(name)
    kept_in = sizes.get("dtype") or sizes.get("torch_dtype")
    return parameters * (entry.bytes_per_parameter or {"bfloat16": 2, "float16": 2}.get(kept_in, 4))


def digest(name: str) -> str:
    """SHA-256 that names a model's content in results: of its files, or of the hub's commit.

    Raises
    ------
    AssetError
        If no asset has this name.
    """
    entry = find(name)
    if isinstance(entry, HubModel):
        return files.digest({"repository": entry.repository, "revision": entry.revision})
    if isinstance(entry, Asset):
        members = {member.file: member.sha256 for member in entry.members}
        return entry.members[0].sha256 if len(members) == 1 else files.digest(members)
    content = sorted({file for pattern in MODEL_FILES for file in entry.glob(pattern) if file.is_file()})
    record = cache_folder() / "folders" / f"{files.digest(str(entry))[:24]}.json"
    found = _contents(content, noted := _noted(record))
    _note(record, found, noted)
    return files.digest({file: each["sha256"] for file, each in found.items()})


def fetch(name: str) -> Path:
    """Give the folder with an asset's members, downloading and verifying them if the cache lacks them.

    Several processes may ask at once: one downloads, the others wait for it.

    Parameters
    ----------
    name : str
        A name from `assets.yaml`.

    Returns
    -------
    Path
        Folder that holds each member under its `file` name.

    Raises
    ------
    AssetError
        If the name is unknown, no index can be reached, the archive or a member is not what is declared, or
        the disk is full. The cache then holds no half-written file.
    """
    declared = {other: entry for other, entry in entries().items() if isinstance(entry, Asset)}
    if name not in declared:
        raise AssetError(f"No asset is called '{name}': {nearest(name, declared)}")
    asset = declared[name]

    def make(temporary: Path) -> None:
        _unpack(name, asset, _download(name, asset, temporary.with_name("download")), temporary)

    folder = cache_folder() / "assets" / f"{name}-{asset.sha256[:12]}"
    return _make_once(name, folder, make, {member.file: member.sha256 for member in asset.members})


def model_path(name: str) -> Path:
    """Give a folder that transformers' ``from_pretrained`` loads a model and its tokenizer from.

    Weights published as GGUF are converted once, to float32 safetensors in the cache (about half a minute):
    transformers reads GGUF slowly, and keeps it from being saved.

    Raises
    ------
    AssetError
        As for `fetch`, and if the asset is not a model, or the hub does not give it.
    """
    entry = find(name)
    if isinstance(entry, Path):
        return entry
    if isinstance(entry, HubModel):
        return _snapshot(name, entry)
    if entry.kind != "model":
        raise AssetError(f"'{name}' is a {entry.kind}, not a model. Models: {', '.join(models())}.")
    source = fetch(name)
    published = next((member for member in entry.members if member.file.endswith(".gguf")), None)
    if published is None:
        return source
    folder = cache_folder() / "models" / f"{name}-{published.sha256[:12]}"
    return _make_once(name, folder, lambda temporary: _convert(source, published.file, temporary))


@contextlib.contextmanager
def loading(name: str, role: str) -> Iterator[None]:
    """Turn what transformers says of a model that it cannot load into one sentence, and leave out its bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # a notebook would keep them
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise AssetError(f"{name} cannot be loaded as a {role}: {said}.") from error


def _what(name: str, model: HubModel) -> str:
    where = hub.words(model.repository, model.revision)
    return f"'{name}' ({where})" if name in entries() else where


def _asking(name: str, model: HubModel) -> contextlib.AbstractContextManager[None]:
    where = hub.DECLARED if name in entries() else hub.TYPED
    return hub.asking(_what(name, model), model.repository, where)


def _snapshot(name: str, model: HubModel) -> Path:
    """The folder of a hub model's files, downloaded by the hub's client if its cache lacks them.

    The client tries again after a broken transfer. It names large files by their SHA-256, but compares their sizes only: each is
    compared with its name once, before its first use.
    """
    from huggingface_hub import snapshot_download

    with _asking(name, model):
        folder = Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=MODEL_FILES, cache_dir=hub.cache()))
    what, weights = _what(name, model), sorted(folder.glob("*.safetensors"))
    if not weights:
        raise AssetError(f"{what} has no weights in safetensors, and pickles are not loaded: choose a revision that has.")
    record = cache_folder() / "hub" / f"{name.partition('@')[0].replace('/', '--')}-{model.revision[:12]}.json"
    found = _contents(weights, noted := _noted(record))
    for file in weights:
        blob = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name) and found[file.name]["sha256"] != blob.name:
            blob.unlink()
            file.unlink()
            raise AssetError(f"{file.name} of {what} is damaged and was deleted: run again to download it anew.")
    _note(record, found, noted)
    return folder


def _noted(record: Path) -> dict[str, dict[str, Any]]:
    """What `_contents` found of files before; nothing if the record is damaged, or of another version."""
    try:
        noted = json.loads(record.read_text("utf-8"))
        return noted if all(isinstance(entry, dict) for entry in noted.values()) else {}
    except (OSError, ValueError):
        return {}


def _note(record: Path, found: dict[str, dict], noted: dict[str, dict]) -> None:
    if found != noted:
        with contextlib.suppress(StageError):  # a cache shared read-only is as good: its files are read again next time
            files.write_json(record, found)


def _contents(paths: Iterable[Path], noted: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """SHA-256, size and time of files, by name; a digest is computed only if size or time differs from when it was noted."""
    found = {}
    for path in paths:
        status, before = path.stat(), noted.get(path.name, {})
        now = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        same = "sha256" in before and before.items() >= now.items()
        found[path.name] = {"sha256": before["sha256"] if same else files.digest(path), **now}
    return found


def _verified(folder: Path, digests: dict[str, str] | None) -> bool:
    """Whether a folder of the cache holds files of these digests; with None, those written down when it was made."""
    record = folder / "verified.json"
    noted = _noted(record)
    expected = digests or {file: entry["sha256"] for file, entry in noted.items()}
    try:
        found = _contents([folder / file for file in expected], noted)
    except OSError:
        return False
    right = bool(expected) and all(found[file]["sha256"] == sha256 for file, sha256 in expected.items())
    if right:
        _note(record, found, noted)
    return right


def _make_once(name: str, folder: Path, make: Callable[[Path], None], digests: dict[str, str] | None = None) -> Path:
    """A folder of the cache, which `make` fills if it does not hold what it should."""

    def verified(temporary: Path) -> None:
        make(temporary)
        files.write_json(temporary / "verified.json", _contents(sorted(temporary.iterdir()), {}))

    try:
        return files.made_once(folder, lambda: _verified(folder, digests), verified)
    except StageError as error:
        raise _unwritable(name, error) from error


def _unwritable(name: str, error: BaseException) -> AssetError:
    cause = error.__cause__ or error
    return AssetError(f"Cannot store '{name}' in {cache_folder()}: {files.refusal(cause) or str(cause).lower()}. Free space there "
                      "or set SYNTHTUNE_CACHE to another folder, then run again.")


def _download(name: str, asset: Asset, workplace: Path) -> Path:
    """Let pip download an archive into `workplace`, which nothing outlives, and give its path."""
    backend = workplace / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_BACKEND)
    requirements = workplace / "requirements.txt"
    requirements.write_text(f"{asset.project}=={asset.version} --hash=sha256:{asset.sha256}\n")
    form = (["--only-binary", ":all:"] if asset.archive.endswith(".whl")
            else ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"])
    # Without pip's cache: what a mirror once sent wrong would come from there again.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *form, "--no-input", "--no-cache-dir",
               "--disable-pip-version-check", "--progress-bar", "raw", "--requirement", str(requirements), "--dest", str(workplace)]
    environment = {**os.environ, "PYTHONPATH": str(workplace), "TMPDIR": str(workplace),
                   "SYNTHTUNE_DECLARED": json.dumps([asset.project, asset.version])}
    said = []
    with (progress(desc=f"download {name}", total=asset.bytes, unit="B") as bar,
          subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                           text=True, errors="replace") as pip):
        try:
            for line in pip.stdout:
                counted = re.match(r"Progress (\d+) of (\d+)", line)
                if not counted:
                    said.append(line)
                elif int(counted[2]) == asset.bytes:
                    bar.update(int(counted[1]) - bar.n)
        except BaseException:
            pip.kill()
            raise
    archive = workplace / asset.archive
    if pip.returncode or not archive.exists():
        raise _diagnose(name, asset, "".join(said))
    return archive


def _diagnose(name: str, asset: Asset, complaint: str) -> AssetError:
    """Turn pip's words into one sentence."""
    if "No space left on device" in complaint:
        return _unwritable(name, OSError(errno.ENOSPC, ""))
    release = f"{asset.project} {asset.version}"
    if "DO NOT MATCH THE HASHES" in complaint:
        got = re.search(r"Got\s+([0-9a-f]{64})", complaint)
        return AssetError(
            f"The download of '{name}' ({release}) has SHA-256 {got[1] if got else 'unknown'}, not the declared {asset.sha256}: it was "
            "refused. The index or a proxy serves another file under that name; try another index (pip config set global.index-url "
            "...).")
    if re.search(r"connection broken|ConnectionError|NewConnection|timed out|TimeoutError|Name or service|resolve|IncompleteRead|"
                 r"ProxyError|SSLError|incomplete", complaint, re.IGNORECASE):
        why = f" ({release}): no package index could be reached"
    elif re.search(r"Could not find a version|No matching distribution", complaint):
        why = f": the package index has no {release} ({asset.archive})"
    else:
        why = f" ({release}): {([line.strip() for line in complaint.splitlines() if line.strip()] or ['pip gave no reason'])[-1]}"
    return AssetError(f"Cannot download '{name}'{why}. Behind a proxy or a mirror, set it for pip (pip config); without a network, "
                      f"copy the folder {cache_folder()} from a machine that has run this.")


def _unpack(name: str, asset: Asset, archive: Path, folder: Path) -> None:
    """Write each member into `folder` and check its digest."""
    for member in asset.members:
        outer, _, inner = member.path.partition("!")
        try:
            with zipfile.ZipFile(archive) as opened:
                content = opened.read(outer)
            if inner:
                with tarfile.open(fileobj=io.BytesIO(content)) as nested:
                    content = nested.extractfile(inner).read()
        except KeyError as error:
            raise AssetError(f"The archive of '{name}' ({asset.archive}) has no member {member.path}: correct its entry in "
                             "assets.yaml.") from error
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise AssetError(f"The archive of '{name}' ({asset.archive}) is damaged ({error}): run again to download it anew.") from error
        (folder / member.file).write_bytes(content)
        found = files.digest(folder / member.file)
        if found != member.sha256:
            raise AssetError(f"Member {member.path} of '{name}' has SHA-256 {found}, not the declared {member.sha256}: it was "
                             "refused. Correct its entry in assets.yaml.")


def _convert(source: Path, gguf: str, folder: Path) -> None:
    """Write a GGUF checkpoint as a plain one, weights in float32.

    transformers marks what it read from GGUF as quantized and then refuses to save it, although the weights
    are ordinary by then; a fresh model of the same configuration takes them over.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    theirs = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, desc: progress(tensors, "convert weights, once", unit="tensor")
    try:
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = type(loaded)(loaded.config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        modeling_gguf_pytorch_utils.tqdm = theirs
        logging.set_verbosity(level)
