"""The task file of custom data: a few lines of YAML that say where the rows are and which columns matter."""

from __future__ import annotations

import contextlib
import html
import json
import re
import reprlib
import unicodedata
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthtune.errors import SettingsError, nearest
from synthtune.places import profiles

# Longest task file, in bytes; ten lines are the idea.
BYTE_LIMIT = 16_384

# What files, or splits of a dataset, are for.
ROLES = ("rows", "unlabelled", "test")

# Classes up to which the models here are meant.
MOST_CLASSES = 100


def on_one_line(text: str) -> str:
    """A text without spaces around it, and with one blank wherever it has space inside: as every model reads it."""
    return " ".join(text.split())


ENTITY = re.compile(r"&(#\d+|#[xX][\da-fA-F]+|\w+);")
# Characters that are not seen and join no letters: soft hyphens, blanks of no width, marks of direction.
UNSEEN = re.compile("[\0\u00ad\u034f\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")

# One text in quotes, or a list of one, as JSON and Python write it.
QUOTED = re.compile(r"""\s*(\[\s*)?("(?:[^"\\]|\\.)*"|'[^']*'|\d*)\s*(?(1)\])\s*""")


def plain(label: str) -> str:
    """A label on one line, in composed letters, without characters that nobody sees, with letters for HTML entities.

    Of a list of one label in a cell, that one, without quotes around it.
    """
    one = label
    if found := QUOTED.fullmatch(label):
        with contextlib.suppress(ValueError):
            one = json.loads(found[2]).encode(errors="replace").decode() if found[2][:1] == '"' else found[2].strip("'")
    letters = ENTITY.sub(lambda found: html.unescape(found[0]), one)
    seen = on_one_line(unicodedata.normalize("NFC", UNSEEN.sub("", letters)))
    return seen if seen == label else plain(seen)  # what was escaped or put into a list twice


class TaskFile(BaseModel):
    """What a task file may say. Only `rows` must be there; the rest is guessed, and the guesses are shown.

    Every value is read as text: `no` and `1` are label names like any other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="the task file itself; paths in it start from its folder", exclude=True)
    rows: str = Field(min_length=1, description="labelled rows: CSV, TSV, JSONL, Parquet, .xlsx, or a datasets folder")
    hub: str | None = Field(
        None, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="in place of files: a dataset on the Hugging Face hub, as owner/name"
    )
    config: str | None = Field(None, description="hub: the dataset's configuration")
    revision: str | None = Field(None, description="hub: a commit, tag or branch; the newest commit when first read if not given")
    splits: dict[Literal[ROLES], str] = Field(
        {"rows": "train"}, description="hub: the splits of the labelled rows, and of others: {rows: train, test: validation}"
    )
    text: list[str] | None = Field(None, min_length=1, max_length=2, description="text column, or a pair of them")
    label: str | None = Field(None, description="classification: the column of labels")
    label_separator: str | None = Field(
        None, min_length=1, max_length=1, description="a row may have several labels: a list, or a cell with this between them"
    )
    target: str | None = Field(None, description="text-to-text generation: the column of texts to be written")
    unlabelled: str | None = Field(None, description="more inputs, without labels")
    test: str | None = Field(None, description="labelled rows to measure with, in no other file")
    label_names: dict[str, str] = Field({}, description="labels in words, by label as it is in the files")
    description: str | None = Field(None, max_length=300, description="what the task is, in one sentence")
    profile: str = Field("laptop", description="a file of workflow/profiles, without .yaml")
    separator: str | None = Field(None, min_length=1, max_length=1, description="of columns in CSV and TSV files")
    encoding: str | None = Field(None, description="of CSV, TSV and JSONL files, such as utf-8 or cp1252")
    sheet: str | None = Field(None, description="sheet of Excel files")

    @model_validator(mode="before")
    @classmethod
    def _files_or_splits(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Splits of a dataset on the hub stand where the names of files do."""
        of_hub = [key for key in ("config", "revision", "splits") if key in values]
        if not values.get("hub"):
            if of_hub:
                raise ValueError(f"{of_hub[0]} is for a dataset on the hub; name it with 'hub: owner/name', or leave {of_hub[0]} out")
            return values
        both = [key for key in ROLES if key in values]
        splits = values.get("splits", {"rows": "train"})
        if both or not isinstance(splits, dict) or "rows" not in splits:
            raise ValueError("hub takes the place of files: leave rows, unlabelled and test out, and name the splits, as in 'splits: "
                             "{rows: train, test: validation}'")
        return {**values, **{role: f"{values['hub']}, split {split}" for role, split in splits.items() if role in ROLES}}

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_a_pair(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("label_names")
    @classmethod
    def _in_one_spelling(cls, value: dict[str, str]) -> dict[str, str]:
        """Labels and their names as those of the files are read: with one blank where there is space."""
        names = {plain(label): plain(name) for label, name in value.items()}
        if len(names) < len(value):
            raise ValueError("names one label twice, for spaces tell no labels apart; keep one of the two")
        if not all(names.values()):
            raise ValueError("has a label without a name; write one after the colon, or leave the label out")
        return names

    @field_validator("rows", "unlabelled", "test")
    @classmethod
    def _a_path(cls, value: str | None) -> str | None:
        if value and ("://" in value or value.startswith(("hf:", "s3:", "gs:"))):
            raise ValueError("is an address; download it and give the path: nothing is fetched here but datasets on the Hugging Face "
                             "hub (hub: owner/name)")
        if value and "\0" in value:
            raise ValueError("is no path: it has a NUL byte")
        return value

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in profiles():
            raise ValueError(f"unknown profile; {nearest(value, profiles())}")
        return value

    @model_validator(mode="after")
    def _one_output(self) -> TaskFile:
        if self.label and self.target:
            raise ValueError("give label (classification) or target (text-to-text generation), not both")
        if (self.label_names or self.label_separator) and self.target:
            raise ValueError("label_names and label_separator are for classification; leave them out where there is a target")
        columns = [*(self.text or []), *filter(None, [self.label, self.target])]
        if len(set(columns)) < len(columns):
            raise ValueError("text, label and target must be different columns")
        return self

    @property
    def name(self) -> str:
        """Name of the task: the task file's, without its ending."""
        return self.path.stem

    def located(self, given: str) -> Path:
        """The absolute path of a file named in the task file."""
        return self.path.parent / Path(given).expanduser()


KEYS = tuple(name for name in TaskFile.model_fields if name != "path")


def load(path: str | Path) -> TaskFile:
    """Read a task file.

    Parameters
    ----------
    path : path
        A YAML file of `key: value` lines; see `TaskFile` for the keys.

    Raises
    ------
    SettingsError
        The file is missing or no YAML, a key is unknown (with the nearest valid one), or a value cannot be
        used; every such problem at once, with its line.
    """
    path = Path(path).expanduser().absolute()
    keys, values = _read(path)
    problems, seen, task = [], {}, None
    for key, line in keys:
        if key not in KEYS:
            problems.append((line, f"unknown key '{reprlib.repr(key)[1:-1]}'; {nearest(key, KEYS)}"))
        if key in seen:
            problems.append((line, f"'{key}' is also on line {seen[key]}; keep one of the two."))
        seen[key] = line
    try:
        task = TaskFile(path=path, **{key: value for key, value in values.items() if key in KEYS})
    except ValidationError as error:
        for problem in error.errors():
            key = str(problem["loc"][0]) if problem["loc"] else ""
            said = problem["msg"].removeprefix("Value error, ").replace("Field required", "is missing")
            given = "" if problem["type"] == "missing" or not key else f", not {reprlib.repr(problem['input'])}"
            problems.append((seen.get(key, 1), f"{key + ': ' if key else ''}{said}{given}."))
    if problems or task is None:
        raise SettingsError("\n".join(f"{path.name}, line {line}: {said}" for line, said in sorted(problems)))
    return task


def _read(path: Path) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The keys with their lines, and the values. The loader builds texts, lists and mappings only."""
    if not path.is_file():
        raise SettingsError(f"{path.name}: there is no file {path}; correct the name of the task file.")
    try:
        if path.stat().st_size > BYTE_LIMIT:
            raise SettingsError(f"{path.name}: longer than {BYTE_LIMIT:,} bytes; a task file is a few lines.")
        text = path.read_text("utf-8-sig")
        loader = yaml.BaseLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError(f"{path.name}: no 'key: value' lines; the least it needs is 'rows: my_file.csv'.")
        values = loader.construct_document(node)
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            if isinstance(token, yaml.ScalarToken):
                token.value.encode()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path.name}: not UTF-8; save it as UTF-8.") from error
    except UnicodeEncodeError as error:
        raise SettingsError(f"{path.name}: has half a letter (an escape from \\ud800 to \\udfff), which no file can hold; "
                            "write the whole letter.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', error)}.") from error
    except (RecursionError, ValueError, TypeError) as error:
        raise SettingsError(f"{path.name}: not 'key: value' lines as a task file needs them.") from error
    # A key with nothing after it is as good as left out.
    return ([(str(key.value), key.start_mark.line + 1) for key, _ in node.value],
            {str(key): value for key, value in values.items() if value != ""})
