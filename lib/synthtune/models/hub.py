"""The Hugging Face hub, asked through its own client: which commit a name means, and what a refusal means, in one sentence.

Both are the same for models and data sets. The client's cache is where its variables ``HF_HUB_CACHE`` and ``HF_HOME`` say, by
default in the clone.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from synthtune.errors import AssetError
from synthtune.files import locked, read_json, refusal, write_json
from synthtune.places import ROOT

ID = re.compile(r"(?P<repository>\w[\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
COMMIT = re.compile("[0-9a-f]{40}")

TOKEN = "put an access token of yours into the environment variable HF_TOKEN"
# What an error means in whose kind or words something occurs; the first that fits.
REFUSALS = {
    "gatedrepo|gated dataset": f"its authors say who may have it: ask for access on its page, {{page}}, {TOKEN}, and run again.",
    "unknown split|config '|config name": "correct 'config:' or 'splits:' in the task file.",
    r"\bscript": "name a data set of data files, or a revision that has them, such as refs/convert/parquet.",
    "repository ?not ?found|exist on the hub": f"it has no such repository, or hides it: correct {{name}}, or {TOKEN}.",
    "revision ?not ?found|revision .*exist": "it has no such revision: correct {revision}.",
    "entry ?not ?found": "it has no config.json, so it is no model of transformers: choose another one.",
}


# What a user corrects if the hub has no such repository or revision.
DECLARED = {"name": "its name in assets.yaml if it was renamed", "revision": "its entry in assets.yaml"}
TYPED = {"name": "its name (there is no such folder here either)", "revision": "what follows the @"}


def cache() -> Path:
    """The folder of what the hub's client downloads: as its own variables say, or ``.cache/huggingface/hub`` in the clone."""
    # Not as its constants say, which a process that was forked has from another time.
    for name, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if chosen := os.environ.get(name):
            return Path(os.path.expandvars(chosen), below).expanduser()
    return ROOT / ".cache" / "huggingface" / "hub"


def words(repository: str, revision: str) -> str:
    """How messages call a repository."""
    shown = revision[:12] if COMMIT.fullmatch(revision) else revision or "main"
    return f"{repository} on the Hugging Face hub, revision {shown}"


def pinned(name: str, record: Path | None = None, correct: dict[str, str] = TYPED,
           kind: Literal["model", "dataset"] = "model") -> str:
    """A hub id with the commit that its branch or tag, or main, is at: owner/name@commit.

    Parameters
    ----------
    name : str
        "owner/name" or "owner/name@revision"; with a commit it is returned as it is.
    record : path, optional
        JSON file of names that were looked up before. One in it is not looked up again; one that is not is added.
    correct : dict
        What a user corrects if the hub has no such name or revision.
    kind : str
        Where the hub has it.

    Raises
    ------
    AssetError
        The hub does not have it, does not give it, or neither it nor its client's cache can be asked.
    """
    repository, _, revision = name.partition("@")
    if COMMIT.fullmatch(revision):
        return name

    def known() -> dict[str, str]:
        return read_json(record) if record and record.exists() else {}

    if name in known():
        return known()[name]
    # One process asks, those that wait for it get the same commit.
    with locked(record.parent, f".{record.name}.lock") if record else contextlib.nullcontext():
        before = known()
        if name not in before:
            with asking(words(repository, revision), repository, correct, kind):
                before[name] = f"{repository}@{_commit(repository, revision, kind)}"
            if record:
                write_json(record, before)
    return before[name]


def _commit(repository: str, revision: str, kind: str) -> str:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return getattr(huggingface_hub, f"{kind}_info")(repository, revision=revision or None).sha
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception:  # not reached: what the cache knew of it last
        known = cache() / f"{kind}s--{repository.replace('/', '--')}" / "refs" / (revision or "main")
        if known.is_file():
            return known.read_text("utf-8").strip()
        raise


@contextlib.contextmanager
def asking(what: str, repository: str, correct: dict[str, str], kind: str = "model") -> Iterator[None]:
    """Turn whatever the hub's clients raise into one sentence, an `AssetError`.

    They raise errors of their HTTP library, of Xet's Rust, of `datasets` and of reading what a login page says, which have no
    base of their own: kinds are known by their names and words.
    """
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".replace(repository, "").split())
        lost = re.search("LocalEntryNotFound|offline", said, re.IGNORECASE)
        if lost and constants.HF_HUB_OFFLINE:
            raise AssetError(f"{what} is not in the hub's cache, {cache()}, and HF_HUB_OFFLINE forbids to download it: unset "
                             "that, or copy the cache from a machine that has it.") from error
        meant = None if lost else next((meant for about, meant in REFUSALS.items() if re.search(about, said, re.IGNORECASE)), None)
        if meant:
            page = f"https://huggingface.co/{'datasets/' * (kind == 'dataset')}{repository}"
            raise AssetError(f"The hub does not give {what} to you: {meant.format(page=page, **correct)}") from error
        if refused := refusal(error):
            raise AssetError(f"Cannot store {what} in {cache()}: {refused}. Free space there, or name another folder in the "
                             "environment variable HF_HUB_CACHE, and run again: what has arrived is kept.") from error
        cause = lost and error.__cause__ or error
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
        if isinstance(cause, json.JSONDecodeError):
            said = "what answers there is not the hub, but perhaps a page to log in"
        raise AssetError(f"Cannot download {what} from {constants.ENDPOINT}: {said}. Behind a proxy, name it in the "
                         "environment variable HTTPS_PROXY; else check the connection. Run again to go on with what is there, "
                         f"or copy {cache()} from a machine that has it.") from error
