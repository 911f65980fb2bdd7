"""The tasks that custom data make: one of all labelled rows and, where nothing else can test it, its folds."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from synthtune.context import Context
from synthtune.custom.report import listed
from synthtune.custom.rows import CustomData, examples, held_out, inputs, pair_of, template_of
from synthtune.files import digest
from synthtune.models import assets
from synthtune.settings import Settings, for_custom_data
from synthtune.tasks import Example, Task, seed_for

# The part that trains on all labelled rows; its student is the one to take away.
WHOLE = "whole"

# Folder of what the stages made, beside the results.
WORK = "work"

# Custom data are few: what is divided over processes is the parts (`study.run`). Each computes with one thread, so that
# results do not depend on how many cores there are.
ONE_PROCESS = {"jobs": 1, "threads": 1, "teacher.processes": 1, "teacher.sharding": "replicated", "annotate.processes": 1,
               "generate.processes": 1, "students.processes": 1}

# Students of a condition in each fold. A third makes the interval of the gain no narrower (docs/your_data.md).
SEEDS = 2

# Share of the texts that is to be read whole.
LONG = 0.95

# Texts that are counted at once: bounds memory.
CHUNK = 2_000


def settings_of(own: CustomData, run_dir: Any, overrides: Sequence[str] = ()) -> Settings:
    """The settings for custom data: the profile's, those of its type of task, and those that follow from how many and how long they are.

    Raises
    ------
    SettingsError
        An override names no setting, or has a value that cannot be used.
    """
    base = for_custom_data(own.task.profile, own.task_type, len(own.labels), {}, list(overrides), run_dir)
    measured: dict[str, Any] = {**ONE_PROCESS, "budgets": [len(own.gold)],
                                "pool_size": max(20, len(own.gold) + len(own.unlabelled)), **_lengths(own, base),
                                "students.seeds_larger": base.students.seeds_larger[:SEEDS], **_steps(own, base)}
    return for_custom_data(own.task.profile, own.task_type, len(own.labels), measured, list(overrides), run_dir).resolved()


def _lengths(own: CustomData, base: Settings) -> dict[str, Any]:
    """How many tokens are read and written, so that few texts are cut and none is padded for nothing."""
    tokenizer = AutoTokenizer.from_pretrained(assets.model_path(base.teacher.model))
    most = base.custom.max_tokens

    def long(texts: Sequence[str]) -> int:
        tokens = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
        return math.ceil(float(np.quantile(tokens, LONG)))

    def at_most(tokens: float) -> int:
        return int(min(most, max(32, 8 * math.ceil(tokens / 8))))

    template, names = template_of(own), pair_of(own)
    texts = inputs(own.gold, names)
    text, output = long(texts), long(list(own.gold["output"]))
    around = len(tokenizer(f"{template.input}: \n{template.output}: ")["input_ids"])
    written = at_most(1.25 * output + 8)
    return {
        "max_characters": max(300, max(map(len, texts))), "annotate.max_new_tokens": written, "students.max_new_tokens": written,
        "teacher.max_tokens": at_most(text + output + around + 2), "students.max_tokens": at_most(1.1 * text + 2),
        "generate.max_new_tokens": at_most(1.25 * text + 8 if own.task_type == "classification" else 1.25 * (text + output) + 12),
    }


def cut(own: CustomData, settings: Settings) -> dict[str, tuple[int, int]]:
    """Count the texts of which the student reads only the start, by its own tokenizer: `students.max_tokens` word pieces.

    Returns
    -------
    dict
        For "labelled", "unlabelled" and "test" rows, where there are any: how many are cut, and of how many.
    """
    tokenizer = AutoTokenizer.from_pretrained(assets.model_path(settings.students.model))
    most, names, found = settings.students.max_tokens, pair_of(own), {}
    for name, rows in (("labelled", own.gold), ("unlabelled", own.unlabelled), ("test", own.test)):
        texts, longer = inputs(rows, names), 0
        for start in range(0, len(texts), CHUNK):
            # One word piece more than is read tells as much as all of them.
            pieces = tokenizer(texts[start: start + CHUNK], truncation=True, max_length=most + 1)["input_ids"]
            longer += sum(len(each) > most for each in pieces)
        if texts:
            found[name] = (longer, len(texts))
    return found


def cut_in_words(own: CustomData, settings: Settings) -> str:
    """What `cut` counts as a sentence, with what to do about it."""
    most = settings.students.max_tokens
    longer = [f"{number:,} of {of:,} {name}" for name, (number, of) in cut(own, settings).items() if number]
    if not longer:
        return f"No text is longer than the {most} word pieces that are read of each."
    return (f"Of {listed(longer)} texts only the first {most} word pieces are read. If what follows matters, raise "
            f"students.max_tokens (now {most}) and teacher.max_tokens (now {settings.teacher.max_tokens}) with --set, "
            "which takes longer, or shorten the texts.")


def _steps(own: CustomData, base: Settings) -> dict[str, int]:
    """Steps of the students: the profile's for the most rows that any of them trains on, for all of them.

    What a gain owes to training longer cannot be told from what it owes to the rows, on however few rows it is measured.
    """
    synthetic = max(len(own.unlabelled[: base.annotate.inputs]), base.generate.pairs)
    labelled = math.ceil(base.custom.passes * len(own.gold) / base.students.batch_size)
    return {"students.steps": max(base.steps(len(own.gold) + synthetic), labelled), "students.passes": 0}


def parts(own: CustomData, settings: Settings) -> list[Context]:
    """All rows as one part, which tests on the test file if there is one, and after it the folds if there is none.

    Raises
    ------
    RowsError
        There are too few labelled rows, or too few that differ; see `held_out`.
    """
    folds, names = held_out(own, settings), pair_of(own)
    gold, test = examples(own.gold, names, "row"), examples(own.test, names, "test")
    unlabelled = examples(own.unlabelled, names, "unlabelled")
    random.Random(seed_for(settings, "unlabelled")).shuffle(unlabelled)
    found = [_part(WHOLE, own, gold, unlabelled, test, settings)]
    for number, held in enumerate(folds, 1):
        kept = [example for place, example in enumerate(gold) if place not in held]
        found.append(_part(f"fold-{number}", own, kept, unlabelled, [gold[place] for place in sorted(held)], settings))
    return found


def _part(name: str, own: CustomData, gold: list[Example], unlabelled: list[Example], test: list[Example],
          settings: Settings) -> Context:
    gold = list(gold)
    random.Random(seed_for(settings, name, "order")).shuffle(gold)
    template, names = template_of(own), pair_of(own)
    # Teachers depend on the gold examples only: what else changes does not train them again.
    made_from = [own.labels, [template.input, template.output], names, [[each.id, each.text, each.target] for each in gold]]
    made_from += [own.columns.separator] if own.columns.separator else []
    task = Task(name, own.task.name, own.task_type, own.labels, template, (*gold, *unlabelled), (), tuple(test), {},
                digest(made_from), names, separator=own.columns.separator)
    changed = settings.model_copy(update={"custom_task": name, "budgets": [len(gold)]})
    return Context(task, len(gold), changed)
