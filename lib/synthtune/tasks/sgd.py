"""Reader of Schema-Guided Dialogue files: the actions of the system, and its utterance.

Source: Rastogi, Zang, Sunkara, Gupta and Khaitan (2020), "Towards scalable multi-domain conversational
agents: the Schema-Guided Dialogue dataset", AAAI. The task is generation from actions: the input is the
system's dialogue acts, with the schema's descriptions of the service and of each slot; the output is its
utterance.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthtune.errors import CorpusError
from synthtune.tasks.example import Example, PromptTemplate
from synthtune.tasks.formats import SPLITS, split_files
from synthtune.tasks.spec import Corpus, Spec

# What a system can do in the corpus (Rastogi et al. 2020, section 3), as `linearise` writes it.
ACTS = ("inform count", "inform", "request", "confirm", "offer intent", "offer", "notify success", "notify failure", "req more", "goodbye")


@dataclass(frozen=True)
class Service:
    """One service of a schema: its description and those of its slots and intents, by name."""

    description: str
    slots: dict[str, str]
    intents: dict[str, str]


def read(folder: str | Path, split: str, max_actions: int = 3) -> list[Example]:
    """Read one split as (system actions, utterance) pairs.

    Parameters
    ----------
    folder : path
        Holds `train/`, `dev/` and `test/` with `schema.json` and `dialogues_*.json`, directly or under
        `sgd/`.
    split : {"train", "dev", "test"}
    max_actions : int
        System turns with more actions are left out.

    Returns
    -------
    list of Example
        One per distinct linearised input, in the order they first occur. Turns with the same input are one
        example: their distinct utterances, in order, are its references, and the first is its target.

    Raises
    ------
    CorpusError
        If a file is missing or malformed; the message names the file and the line, or the service, or the dialogue and turn.
    """
    paths = split_files(folder, split, "Schema-Guided Dialogue", ("sgd",), "dialogues_*.json")
    services = read_schema(paths[0].with_name("schema.json"))
    texts: dict[str, dict[str, None]] = {}
    ids: dict[str, str] = {}
    for path in paths:
        for number, dialogue in enumerate(_load_list(path)):
            name = _get(dialogue, "dialogue_id", f"{path}, dialogue number {number + 1}")
            for index, turn in enumerate(_get(dialogue, "turns", f"{path}, dialogue {name}")):
                place = f"{path}, dialogue {name}, turn {index}"
                if _get(turn, "speaker", place) != "SYSTEM":
                    continue
                frames = _get(turn, "frames", place)
                utterance = " ".join(_get(turn, "utterance", place).split())
                actions = sum(len(_get(frame, "actions", place)) for frame in frames)
                if not 1 <= actions <= max_actions or not utterance:
                    continue
                text = " && ".join(_linearise_frame(frame, services, place) for frame in frames)
                ids.setdefault(text, f"{split}/{name}/{index}")
                texts.setdefault(text, {})[utterance] = None
    return [Example(ids[text], text, next(iter(references)), tuple(references)) for text, references in texts.items()]


def read_schema(path: str | Path) -> dict[str, Service]:
    """Read a `schema.json`: the services by name.

    Raises
    ------
    CorpusError
        If the file is missing or malformed.
    """
    path = Path(path)
    services = {}
    for number, entry in enumerate(_load_list(path)):
        name = _get(entry, "service_name", f"{path}, service number {number + 1}")
        place = f"{path}, service {name}"
        slots, intents = ({_get(item, "name", place): _get(item, "description", place) for item in _get(entry, kind, place)}
                          for kind in ("slots", "intents"))
        services[name] = Service(_get(entry, "description", place), slots, intents)
    return services


def linearise(name: str, service: Service, actions: list[dict[str, Any]]) -> str:
    """Put one service's actions on one line.

    The line is `service, description && act slot = value`, one part per action. Slots and intents are given by
    their descriptions, which spell out what their names abbreviate; a line with both would be a quarter
    longer. The number at the end of a service name is dropped, of its description only the first sentence is
    kept.
    """
    parts = [f"{re.sub(r'_[0-9]+$', '', name)}, {_brief(service.description.split('. ')[0])}"]
    for action in actions:
        act, slot = _spaced(action["act"].lower()), action["slot"]
        values = " or ".join(map(str, action["values"]))
        if slot == "intent":
            parts.append(f"{act} {_brief(service.intents.get(values, ''))}")
            continue
        # "inform count count" would say the same thing twice.
        told = "" if act.endswith(f" {slot}") else _brief(service.slots.get(slot, _spaced(slot)))
        parts.append(f"{act} {told}" + (f" = {values}" if slot and values else ""))
    return " ".join(" && ".join(parts).split())


def is_input(text: str) -> bool:
    """Whether a line has the form that `linearise` writes: a described service and one to three actions."""
    head, *actions = text.split(" && ")
    return bool(re.fullmatch(r"[^,=]+, [^=]+", head)) and 1 <= len(actions) <= 3 and all(
        re.fullmatch(rf"({'|'.join(ACTS)})( [^=]+)?( = [^=]+)?", action) for action in actions)


def values(text: str) -> list[str]:
    """The slot values of a linearised input, each once; its utterance has to mention them."""
    given = [part.partition(" = ")[2] for part in text.split(" && ") if " = " in part]
    return list(dict.fromkeys(value for several in given for value in several.split(" or ")))


def _linearise_frame(frame: dict[str, Any], services: dict[str, Service], place: str) -> str:
    name = _get(frame, "service", place)
    if name not in services:
        raise CorpusError(f"{place}: the service '{name}' is not in the schema.json beside this file.")
    for action in frame["actions"]:
        for key in ("act", "slot", "values"):
            _get(action, key, place)
    return linearise(name, services[name], frame["actions"])


def _load_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CorpusError(f"{path} is missing: every split needs its own schema.json and dialogues_*.json.") from error
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {error.lineno}: not JSON ({error.msg}). Fetch the file again or repair that line.") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8 text. Fetch the file again.") from error
    if not isinstance(content, list):
        raise CorpusError(f"{path}, line 1: should be a JSON list, not {type(content).__name__}.")
    return content


def _get(item: Any, key: str, place: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise CorpusError(f"{place}: the key '{key}' is missing. Fetch the file again or add the key.")
    return item[key]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _brief(description: str) -> str:
    return description.strip().rstrip(".")


TASKS = {"sgd": Spec(
    title="SGD",
    read=lambda folder: Corpus(**{split: read(folder, split) for split in SPLITS}),
    template=PromptTemplate("Write what the assistant says to carry out the actions.", "Actions", "Assistant"),
    sentences=("Restaurants, Find and book a table && confirm City of the restaurant = Leeds",
               "Trains, Look up and buy tickets && request Day of the journey"),
    answer="You would like a table in Leeds, is that right?",
    tokens={"input": 40, "output": 18},
    task_type="generation",
    is_input=is_input, values=values,
    toy_corpus="toy_corpora.dialogues",
    citation="Rastogi et al. 2020", licence="CC BY-SA 4.0",
    source={"repository": {
        "url": "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue.git",
        "commit": "e852981ae34990f4358979625854259302feaa78", "folder": ".", "parts": SPLITS}},
)}
