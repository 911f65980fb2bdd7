"""Where models and corpora come from: declared in `assets.yaml`, downloaded once, verified, cached.

Archives are releases on a Python package index, so the download is left to pip: the index, the mirrors, the
proxy and the certificates the user has set up for it hold here too, and no host is named in this package. pip
retries and resumes broken transfers and refuses an archive whose SHA-256 differs.

A model need not be declared: it may be a folder of this machine, or a model of the Hugging Face hub, "owner/name" or
"owner/name@revision". The hub's client downloads the latter, at a commit, weights as safetensors only. Its cache is where its
variables ``HF_HUB_CACHE`` and ``HF_HOME`` say, by default in the clone too.

The cache of all else is the folder in the environment variable ``SYNTHTUNE_CACHE``, by default ``.cache/synthtune`` in
the clone. A cache copied from another machine is verified once and then works without a network.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from synthtune import files
from synthtune.errors import AssetError, StageError, nearest
from synthtune.places import ROOT, started_in
from synthtune.progress import progress as progress_bar

ATTEMPTS = 2
"""How often pip is started for one archive; each time it retries and resumes by itself."""

PAUSE_SECONDS = 5.0
"""Wait before pip is started again."""

# A source distribution is "built" by pip to learn its name and version, which would execute its setup.py.
# This backend, put in front of the real one for the download only, answers with what is declared, so nothing
# of it is executed.
_BACKEND = """\
import json, os, pathlib

class Declared:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, folder, config_settings=None):
        project, version = json.loads(os.environ["SYNTHTUNE_DECLARED"])
        info = pathlib.Path(folder) / f"{project}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
        return info.name

__legacy__ = Declared()
"""


class Member(BaseModel):
    """One file taken out of an archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Asset(BaseModel):
    """One entry of `assets.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["model", "corpus"]
    project: str
    version: str
    archive: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    licence: str
    citation: str
    members: tuple[Member, ...] = Field(min_length=1)
    architecture: dict[str, Any] = Field({}, description="of a model: transformers' names of its sizes")


MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
"""What is read of a hub repository or a folder: no pickles, no code."""

HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
COMMIT = re.compile("[0-9a-f]{40}")


class HubModel(BaseModel):
    """A model on the Hugging Face hub; in `assets.yaml` with all fields, elsewhere known by the first three."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["hub model"] = "hub model"
    repository: str
    revision: str = Field(pattern="^[0-9a-f]{40}$", description="commit")
    bytes_per_parameter: int | None = Field(None, gt=0, description="of the published weights")
    licence: str = ""
    citation: str = ""
    architecture: dict[str, Any] = {}


class FolderModel(BaseModel):
    """A model in a folder of this machine, as transformers' `save_pretrained` writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["folder"] = "folder"
    path: Path


@functools.cache
def _entries() -> dict[str, Asset | HubModel]:
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    return {
        name: (HubModel if entry["kind"] == "hub model" else Asset).model_validate(entry)
        for name, entry in yaml.safe_load(text).items()
    }


@functools.cache
def declared() -> dict[str, Asset]:
    """Every asset of `assets.yaml` that comes from a package index, by name."""
    return {name: entry for name, entry in _entries().items() if isinstance(entry, Asset)}


def models() -> dict[str, Asset | HubModel]:
    """Every model of `assets.yaml` by name, those on the hub included."""
    return {name: entry for name, entry in _entries().items() if entry.kind != "corpus"}


def settled(name: str) -> str:
    """A model's name with all that it leaves open decided: a folder's whole path, or the commit of a hub model.

    A declared name is as it is. Only for a hub id without a commit the hub is asked, or, where it cannot be reached, its
    client's cache.

    Raises
    ------
    AssetError
        If the hub has no such model, gives it to some only, or cannot be reached.
    """
    if name in _entries():
        return name
    folder = started_in() / Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    hub = HUB_ID.fullmatch(name)
    if hub is None or COMMIT.fullmatch(hub["revision"] or ""):
        return name
    return f"{hub['repository']}@{_commit(hub['repository'], hub['revision'] or 'main')}"


def find(name: str) -> Asset | HubModel | FolderModel:
    """The model of a name: declared, a folder, or a hub id.

    Raises
    ------
    AssetError
        If there is none; a folder must hold config.json, weights as safetensors and a tokenizer.
    """
    if name in (entries := {**_entries(), **declared()}):
        return entries[name]
    known = settled(name)
    if Path(known).is_absolute():
        return FolderModel(path=_checked_folder(Path(known)))
    hub = HUB_ID.fullmatch(known)
    if hub and hub["revision"]:
        return HubModel(repository=hub["repository"], revision=hub["revision"])
    if "/" in name:
        raise AssetError(f"There is no folder {name}: name one that holds a model, a model of the Hugging Face hub "
                         "(owner/name), or a name of assets.yaml.")
    raise AssetError(f"No asset is called '{name}': {nearest(name, models())} A folder that holds a model, or a model of the "
                     "Hugging Face hub (owner/name), would do as well.")


def from_hub(name: str) -> bool:
    """Whether a model comes from the Hugging Face hub; nothing is looked up."""
    if name in _entries():
        return _entries()[name].kind == "hub model"
    return HUB_ID.fullmatch(name) is not None and not (started_in() / Path(name).expanduser()).is_dir()


def architecture(name: str) -> dict[str, Any]:
    """A model's sizes under transformers' names: as declared, or from its own config.json, which alone is fetched.

    Raises
    ------
    AssetError
        As for `model_path`.
    """
    entry = find(name)
    if isinstance(entry, FolderModel):
        path = entry.path / "config.json"
    elif isinstance(entry, HubModel) and not entry.architecture:
        path = _config_of(name, entry)
    else:
        return entry.architecture
    try:
        sizes = json.loads(path.read_text("utf-8"))
        return {**sizes, "model_type": sizes["model_type"]}
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is no configuration of a model of transformers: it names no model_type.") from error


def download_bytes(name: str, parameters: float) -> float:
    """Bytes that are downloaded for a model of so many parameters."""
    entry = find(name)
    if isinstance(entry, Asset):
        return entry.bytes
    if isinstance(entry, FolderModel):
        return 0
    sizes = entry.architecture or architecture(name)
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
    if isinstance(entry, FolderModel):
        return _folder_digest(entry.path)
    members = _asset(name).members
    if len(members) == 1:
        return members[0].sha256
    return files.digest({member.file: member.sha256 for member in members})


def cache_folder() -> Path:
    """The folder of assets: ``$SYNTHTUNE_CACHE``, or ``.cache/synthtune`` in the clone."""
    chosen = os.environ.get("SYNTHTUNE_CACHE")
    return (
        Path(chosen).expanduser().absolute() if chosen else ROOT / ".cache" / "synthtune"
    )


def fetch(name: str, progress: bool = True) -> Path:
    """Give the folder with an asset's members, downloading and verifying them if the cache lacks them.

    Several processes may ask at once: one downloads, the others wait for it.

    Parameters
    ----------
    name : str
        A name from `assets.yaml`.
    progress : bool
        Show a bar while downloading.

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
    asset = _asset(name)
    folder = cache_folder() / "assets" / f"{name}-{asset.sha256[:12]}"
    digests = {member.file: member.sha256 for member in asset.members}
    if _verified(folder, digests):
        return folder

    def make(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.download.", dir=folder.parent) as workplace:
            archive = _download(name, asset, Path(workplace), progress)
            _unpack(name, asset, archive, temporary)

    _make_once(name, folder, digests, make)
    return folder


def model_path(name: str, progress: bool = True) -> Path:
    """Give a folder that transformers' ``from_pretrained`` loads a model and its tokenizer from.

    Weights published as GGUF are converted once, to float32 safetensors in the cache (about half a minute):
    transformers reads GGUF slowly, and keeps it from being saved.

    Raises
    ------
    AssetError
        As for `fetch`, and if the asset is not a model, or the hub does not give it.
    """
    entry = find(name)
    if isinstance(entry, HubModel):
        return _snapshot(name, entry)
    if isinstance(entry, FolderModel):
        return entry.path
    asset = _asset(name)
    if asset.kind != "model":
        models = [other for other, entry in declared().items() if entry.kind == "model"]
        raise AssetError(f"'{name}' is a {asset.kind}, not a model. Models: {', '.join(models)}.")
    source = fetch(name, progress)
    published = [member for member in asset.members if member.file.endswith(".gguf")]
    if not published:
        return source
    folder = cache_folder() / "models" / f"{name}-{published[0].sha256[:12]}"
    if not _verified(folder):
        _make_once(
            name, folder, None, lambda temporary: _convert(source, published[0].file, temporary, progress)
        )
    return folder


@contextlib.contextmanager
def loading(name: str, role: str) -> Iterator[None]:
    """Turn what transformers says of a model that it cannot load into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise AssetError(f"{name} cannot be loaded as a {role}: {said}.") from error


def _asset(name: str) -> Asset:
    if name not in declared() and name in _entries():
        raise AssetError(f"'{name}' is a model on the Hugging Face hub, not an archive: ask for its model_path.")
    if name not in declared():
        raise AssetError(f"No asset is called '{name}': {nearest(name, declared())}")
    return declared()[name]


def _checked_folder(path: Path) -> Path:
    """A folder that holds a model; what it lacks otherwise is said in one sentence."""
    if not path.is_dir():
        raise AssetError(f"There is no folder {path}: name one that holds a model.")
    names = {file.name for file in path.iterdir()}
    if "config.json" not in names:
        also = " It holds an adapter: merge it into its model first (peft's merge_and_unload)." * ("adapter_config.json" in names)
        raise AssetError(f"{path} holds no model: it has no config.json.{also}")
    if not any(name.endswith(".safetensors") for name in names):
        raise AssetError(f"{path} has no weights in safetensors, and pickles are not loaded: write it with "
                         "model.save_pretrained(folder) first, which saves safetensors.")
    if not names & {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model"}:
        raise AssetError(f"{path} has no tokenizer: write it there with tokenizer.save_pretrained(folder).")
    return path


def _folder_digest(path: Path) -> str:
    """SHA-256 of the list of a model's files; of each it is computed when its size or time has changed."""
    record = cache_folder() / "folders" / f"{files.digest(str(path))[:24]}.json"
    noted: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError):
        noted = json.loads(record.read_text("utf-8"))
    found = {}
    for file in sorted({file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file()}):
        status = file.stat()
        before = noted.get(file.name, [])
        same = before[:2] == [status.st_size, status.st_mtime_ns]
        found[file.name] = before if same else [status.st_size, status.st_mtime_ns, files.digest(file)]
    if found != noted:
        with contextlib.suppress(StageError):  # a cache shared read-only is as good
            files.write_json(record, found)
    return files.digest({name: entry[2] for name, entry in found.items()})


def _commit(repository: str, revision: str) -> str:
    """The commit that a branch or tag of a hub repository is at."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with _of_the_hub(f"{repository} on the Hugging Face hub, revision {revision}", repository, declared=False):
        try:
            return HfApi().model_info(repository, revision=revision).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception:  # not reached: what the cache knew of it last
            known = hub_cache() / f"models--{repository.replace('/', '--')}" / "refs" / revision
            if known.is_file():
                return known.read_text("utf-8").strip()
            raise


def _config_of(name: str, model: HubModel) -> Path:
    from huggingface_hub import hf_hub_download

    with _of_the_hub(_what(name, model), model.repository, name in _entries()):
        return Path(hf_hub_download(model.repository, "config.json", revision=model.revision, cache_dir=hub_cache()))


def _what(name: str, model: HubModel) -> str:
    where = f"{model.repository} on the Hugging Face hub, revision {model.revision[:12]}"
    return f"'{name}' ({where})" if name in _entries() else where


def _snapshot(name: str, model: HubModel) -> Path:
    """The folder of a hub model's files, downloaded by the hub's client if its cache lacks them.

    The client tries again after a broken transfer. It names large files by their SHA-256; each is checked against its name
    once, before its first use.
    """
    from huggingface_hub import snapshot_download

    what = _what(name, model)
    with _of_the_hub(what, model.repository, name in _entries()):
        folder = Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=MODEL_FILES,
                                        cache_dir=hub_cache()))
    if not list(folder.glob("*.safetensors")):
        raise AssetError(f"{what} has no weights in safetensors, and pickles are not loaded: choose a revision that has.")
    _check_blobs(what, name, model, folder)
    return folder


@contextlib.contextmanager
def _of_the_hub(what: str, repository: str, declared: bool) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cache = hub_cache()
    try:
        yield
    except GatedRepoError as error:
        raise AssetError(f"The hub does not give {what} to you: its authors say who may have it. Ask for access on its page, "
                         f"https://huggingface.co/{repository}, put an access token of yours into the environment "
                         "variable HF_TOKEN, and run again.") from error
    except RevisionNotFoundError as error:
        raise AssetError(f"The hub does not give {what} to you: it has no such revision. Correct "
                         f"{'its entry in assets.yaml' if declared else 'what follows the @'}.") from error
    except RepositoryNotFoundError as error:
        where = " in assets.yaml if it was renamed" if declared else " (there is no such folder here either)"
        raise AssetError(f"The hub does not give {what} to you: it has no such repository, or hides it. Correct its name{where}, "
                         "or put an access token of yours into the environment variable HF_TOKEN.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if constants.HF_HUB_OFFLINE:
            raise AssetError(f"{what} is not in the hub's cache, {cache}, and HF_HUB_OFFLINE forbids to download it: unset "
                             "that, or copy the cache from a machine that has it.") from error
        raise _unreachable(what, cache, error.__cause__ or error) from error
    except EntryNotFoundError as error:
        raise AssetError(f"{what} has no config.json, so it is no model of transformers: choose another one.") from error
    except Exception as error:
        # Its HTTP library's, those of Xet's Rust, those of reading what a captive portal says: they have no base of their own.
        if refused := _not_written(error):
            raise AssetError(f"Cannot store {what} in {cache}: {refused}. Free space there, or name another folder in the "
                             "environment variable HF_HUB_CACHE, and run again: what has arrived is kept.") from error
        raise _unreachable(what, cache, error) from error


def hub_cache() -> Path:
    """The folder of what the hub's client downloads: as its own variables say, or ``.cache/huggingface/hub`` in the clone."""
    from huggingface_hub import constants

    if os.environ.keys() & {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"}:
        return Path(constants.HF_HUB_CACHE)
    return ROOT / ".cache" / "huggingface" / "hub"


def _unreachable(what: str, cache: Path, error: BaseException) -> AssetError:
    from huggingface_hub import constants

    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, json.JSONDecodeError):
        said = "what answers there is not the hub, but perhaps a page to log in"
    return AssetError(f"Cannot download {what} from {constants.ENDPOINT}: {said}. Behind a proxy, name it in the environment "
                      "variable HTTPS_PROXY. Run again to go on with what is there, or copy "
                      f"{cache} from a machine that has it.")


def _check_blobs(what: str, name: str, model: HubModel, folder: Path) -> None:
    """Compare the large files of a snapshot with the SHA-256 they are named by, unless that was done before."""
    record = cache_folder() / "hub" / f"{name.partition('@')[0].replace('/', '--')}-{model.revision[:12]}.json"
    large = {file.name: file.resolve() for file in sorted(folder.glob("*.safetensors"))}
    found = {file: [blob.name, blob.stat().st_size, blob.stat().st_mtime_ns] for file, blob in large.items()}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(record.read_text("utf-8")) == found:
            return
    for file, blob in large.items():
        if re.fullmatch("[0-9a-f]{64}", blob.name) and files.digest(blob) != blob.name:
            blob.unlink()
            (folder / file).unlink()
            raise AssetError(f"{file} of {what} is damaged and was deleted: run again to download it anew.")
    try:
        files.write_json(record, found)
    except (OSError, StageError) as error:
        raise _unwritable(name, error) from error


def _verified(folder: Path, digests: dict[str, str] | None = None) -> bool:
    """Say whether a folder of the cache holds what it should.

    Digests are computed only for files whose size or time differs from when they were last found right. With
    `digests` None they are those written down when the folder was made.
    """
    record = folder / "verified.json"
    try:
        noted = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        noted = {}
    expected = digests or {file: entry["sha256"] for file, entry in noted.items()}
    if not expected:
        return False
    fresh = {}
    for file, sha256 in expected.items():
        path = folder / file
        try:
            status = path.stat()
        except OSError:
            return False
        entry = {"sha256": sha256, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if noted.get(file) != entry and files.digest(path) != sha256:
            return False
        fresh[file] = entry
    if fresh != noted:
        # A cache shared read-only is as good; its files are verified again next time.
        with contextlib.suppress(StageError):
            files.write_json(record, fresh)
    return True


def _make_once(name: str, folder: Path, digests: dict[str, str] | None, make: Callable[[Path], None]) -> None:
    """Fill a folder of the cache under a lock, whole or not at all; `make` writes into its path."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if _verified(folder, digests):  # by another process while this one waited
                return
            # What a killed process left behind: nobody else works under this lock.
            for left in folder.parent.glob(f".{folder.name}.*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
            with files.atomic_path(folder) as temporary:
                temporary.mkdir()
                make(temporary)
                written = digests or {path.name: files.digest(path) for path in sorted(temporary.iterdir())}
                files.write_json(
                    temporary / "verified.json",
                    {
                        file: {
                            "sha256": sha256,
                            "bytes": (temporary / file).stat().st_size,
                            "mtime_ns": (temporary / file).stat().st_mtime_ns,
                        }
                        for file, sha256 in written.items()
                    },
                )
    except (OSError, StageError) as error:
        raise _unwritable(name, error) from error


def _unwritable(name: str, error: Exception) -> AssetError:
    cause = error if isinstance(error, OSError) else error.__cause__ or error
    return AssetError(
        f"Cannot store '{name}' in {cache_folder()}: {_not_written(cause) or str(cause).lower()}. Free space there or set "
        f"SYNTHTUNE_CACHE to "
        "another folder, then run again."
    )


def _not_written(error: BaseException) -> str | None:
    """Why the system did not write a file; None if an error is of another kind."""
    number = getattr(error, "errno", None)
    # Xet is written in Rust: its errors have words and no number.
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return "the disk is full"
    return os.strerror(number).lower() if number else None


def _download(name: str, asset: Asset, workplace: Path, progress: bool) -> Path:
    """Let pip download an archive into `workplace`, which nothing outlives, and give its path."""
    requirements = workplace / "requirements.txt"
    requirements.write_text(f"{asset.project}=={asset.version} --hash=sha256:{asset.sha256}\n")
    (workplace / "setuptools").mkdir()
    (workplace / "setuptools" / "__init__.py").write_text("")
    (workplace / "setuptools" / "build_meta.py").write_text(_BACKEND)
    form = (
        ["--only-binary", ":all:"]
        if asset.archive.endswith(".whl")
        else ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        *form,
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "raw",
        "--requirement",
        str(requirements),
        "--dest",
        str(workplace),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(workplace),
        "TMPDIR": str(workplace),
        "SYNTHTUNE_DECLARED": json.dumps([asset.project, asset.version]),
    }
    for attempt in range(1, ATTEMPTS + 1):
        complaint = _run_pip(name, asset, command, environment, progress)
        archive = workplace / asset.archive
        if complaint is None and archive.exists() and files.digest(archive) == asset.sha256:
            return archive
        archive.unlink(missing_ok=True)
        problem = _diagnose(name, asset, complaint or "")
        if attempt == ATTEMPTS or "No space left on device" in (complaint or ""):
            raise problem
        # A transfer that went wrong may sit in pip's cache: ask the index itself the second time.
        command = [*command, "--no-cache-dir"]
        time.sleep(PAUSE_SECONDS)
    raise AssertionError("not reached")


def _run_pip(
    name: str, asset: Asset, command: list[str], environment: dict[str, str], progress: bool
) -> str | None:
    """Run pip, its progress turned into a bar; give None, or what it complained of."""
    bar = progress_bar(desc=f"download {name}", total=asset.bytes, unit="B") if progress else None
    said = []
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout:
                counted = re.match(r"Progress (\d+) of (\d+)", line)
                if counted is None:
                    said.append(line)
                elif bar is not None and int(counted[2]) == asset.bytes:
                    bar.update(int(counted[1]) - bar.n)
        except BaseException:
            pip.kill()
            raise
        finally:
            if bar is not None:
                bar.close()
    return "".join(said) if pip.returncode else None


def _diagnose(name: str, asset: Asset, complaint: str) -> AssetError:
    """Turn pip's words into one sentence."""
    release = f"{asset.project} {asset.version}"
    where = (
        "Behind a proxy or a mirror, set it for pip (pip config); without a network, copy the folder "
        f"{cache_folder()} from a machine that has run this."
    )
    if "No space left on device" in complaint:
        return _unwritable(name, OSError(errno.ENOSPC, ""))
    if "DO NOT MATCH THE HASHES" in complaint:
        got = re.search(r"Got\s+([0-9a-f]{64})", complaint)
        return AssetError(
            f"The download of '{name}' ({release}) has SHA-256 "
            f"{got[1] if got else 'unknown'}, not the declared {asset.sha256}: it was refused. The index or a proxy "
            "serves another file under that name; try another index (pip config set global.index-url ...)."
        )
    if re.search(
        r"connection broken|ConnectionError|NewConnection|timed out|TimeoutError|Name or service|resolve|"
        r"IncompleteRead|ProxyError|SSLError|incomplete",
        complaint,
        re.IGNORECASE,
    ):
        return AssetError(f"Cannot download '{name}' ({release}): no package index could be reached. {where}")
    if re.search(r"Could not find a version|No matching distribution", complaint):
        return AssetError(
            f"Cannot download '{name}': the package index has no {release} ({asset.archive}). {where}"
        )
    last = next(
        (line.strip() for line in reversed(complaint.splitlines()) if line.strip()), "pip gave no reason"
    )
    return AssetError(f"Cannot download '{name}' ({release}): {last}. {where}")


def _unpack(name: str, asset: Asset, archive: Path, folder: Path) -> None:
    """Write each member into `folder` and check its digest."""
    for member in asset.members:
        outer, _, inner = member.path.partition("!")
        try:
            with zipfile.ZipFile(archive) as opened:
                if not inner:
                    with opened.open(outer) as source, open(folder / member.file, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                else:
                    with tarfile.open(fileobj=io.BytesIO(opened.read(outer))) as nested:
                        source = nested.extractfile(inner)
                        if source is None:
                            raise KeyError(inner)
                        with source, open(folder / member.file, "wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
        except KeyError as error:
            raise AssetError(
                f"The archive of '{name}' ({asset.archive}) has no member {member.path}: "
                f"correct its entry "
                "in assets.yaml."
            ) from error
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise AssetError(
                f"The archive of '{name}' ({asset.archive}) is damaged ({error}): run again to "
                f"download it "
                "anew."
            ) from error
        found = files.digest(folder / member.file)
        if found != member.sha256:
            raise AssetError(
                f"Member {member.path} of '{name}' has SHA-256 {found}, not the declared "
                f"{member.sha256}: "
                "it was refused. Correct its entry in assets.yaml."
            )


def _convert(source: Path, gguf: str, folder: Path, progress: bool) -> None:
    """Write a GGUF checkpoint as a plain one, weights in float32.

    transformers marks what it read from GGUF as quantized and then refuses to save it, although the weights
    are ordinary by then; a fresh model of the same configuration takes them over.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    noisy, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    theirs = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = functools.partial(_convert_bar, shown=progress)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = type(loaded)(loaded.config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        full = "os error 28" in str(error) or "No space" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    finally:
        modeling_gguf_pytorch_utils.tqdm = theirs
        logging.set_verbosity(level)
        if noisy:
            logging.enable_progress_bar()


def _convert_bar(tensors: Iterable, desc: str, shown: bool) -> Iterable:
    """Stand in for the bar transformers draws while it reads GGUF, so that it appears where ours do."""
    return progress_bar(tensors, desc="convert weights, once", unit="tensor") if shown else tensors
