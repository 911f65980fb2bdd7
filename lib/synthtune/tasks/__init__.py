"""A task: a data set, its text format and its metric, split into gold, unlabelled, development and test examples."""

from __future__ import annotations

import importlib
import random
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd

from synthtune.analysis import metrics
from synthtune.errors import CorpusError, SettingsError
from synthtune.files import atomic_path, digest, locked, read_json, write_json
from synthtune.settings import Settings, is_task_file, official_corpora, seed_for
from synthtune.task_list import SPECS, Spec
from synthtune.task_list import title as title_of
from synthtune.tasks import official, public, splits
from synthtune.tasks.example import Example, Wording, divided

__all__ = ["Example", "Task", "Unlabelled", "Wording", "load", "seed_for"]


ENOUGH = 0.9
"""Share of a budget that a pool must have: what a corpus has is then the budget, as RTE's 2,490 examples are of 2,500."""


@dataclass(frozen=True)
class Unlabelled:
    """An input whose output is hidden: it has no attribute with the output."""

    id: str
    text: str


@dataclass(frozen=True)
class Task:
    """A prepared task.

    Attributes
    ----------
    name, title, kind : str
        `kind` is "classification" or "nlg".
    labels : tuple of str
        The label texts, sorted; empty for NLG.
    wording : Wording
        Field names and instruction for prompts.
    pool : tuple of Example
        All training examples in budget order: the gold examples of a budget are its first ones.
    dev, test : tuple of Example
        Development examples (for choosing settings) and test examples (for reporting only).
    report : dict
        What preparing the task counted and dropped.
    digest : str
        SHA-256 of all of the above texts and labels.
    pair : tuple of str
        Names of the two texts of an input, as they stand on its line; () for single texts.
    sentences : tuple of str
        Inputs that notebooks show.
    answer : str
        The right output of the first of them.
    separator : str
        What stands between several labels of an output; "" where it has one. `labels` are then the sets of labels that are there.
    """

    name: str
    title: str
    kind: str
    labels: tuple[str, ...]
    wording: Wording
    pool: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    report: dict
    digest: str
    pair: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    answer: str = ""
    separator: str = ""

    def gold(self, budget: int) -> list[Example]:
        """The labelled examples of a budget: all of the pool, if it has a few less (`ENOUGH`).

        Raises
        ------
        SettingsError
            If the pool is smaller than that.
        """
        if ENOUGH * budget > len(self.pool):
            raise SettingsError(f"budget: {budget} labelled examples, but the pool of {self.name} has "
                                f"{len(self.pool)}; choose at most that many.")
        return list(self.pool[:budget])

    def unlabelled(self, budget: int) -> list[Unlabelled]:
        """The inputs of the rest of the pool. Their labels are not part of what is returned."""
        return [Unlabelled(example.id, example.text) for example in self.pool[budget:]]

    def score(self, examples: list[Example], predicted: list[str]) -> dict:
        """Measure predictions against true outputs; see `synthtune.analysis.metrics`."""
        if self.kind == "classification":
            truth = [example.target for example in examples]
            return metrics.multi_label(truth, predicted, self.separator) if self.separator else metrics.classification(truth, predicted)
        return metrics.nlg([example.references or (example.target,) for example in examples], predicted)

    def is_input(self, text: str) -> bool:
        """Whether a text has the form of the task's inputs: triples, actions, a pair. Single texts may have any."""
        return divided(self.pair, text) is not None if self._reader is None else self._reader.is_input(text)

    def values(self, text: str) -> list[str]:
        """Values that the output of an NLG input has to mention; [] for other tasks."""
        return [] if self._reader is None else self._reader.values(text)

    def left_out(self, text: str, output: str) -> list[str]:
        """Values of an NLG input that an output does not mention: its slot errors (Wen et al. 2015); [] for labels.

        Compared in lower case and without punctuation, so "10 May" is found in "on 10 May." and not in "on May 10".
        """
        values = self.values(text)
        said = f" {splits.normalised(output)} "
        return [value for value in values if f" {splits.normalised(value)} " not in said]

    @property
    def _reader(self) -> ModuleType | None:
        """The module that reads the inputs of an NLG task of the study."""
        return _reader(self.name) if self.name in SPECS and SPECS[self.name].kind == "nlg" else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The single labels, sorted."""
        return metrics.classes_of(self.labels, self.separator)

    @property
    def metric(self) -> str:
        """Name of the metric that figures show."""
        return metrics.main_metric(self.kind)


def _reader(name: str) -> ModuleType:
    return importlib.import_module(f"synthtune.tasks.{SPECS[name].reader}")


def load(name: str, settings: Settings) -> Task:
    """Prepare a task, given by its name or its task file, or read it if this run has prepared it before.

    Fetches the corpus if it is not in the cache, drops duplicates, splits by the run's seed, and stores the result in
    the run folder under `<task>/data`.

    Raises
    ------
    SettingsError, AssetError, CorpusError, RowsError
        One sentence with the parameter, or the file and line.
    """
    settings = settings.check(name)
    name = settings.tasks[-1] if is_task_file(name) else name
    spec = spec_of(name, settings)
    kind = spec.kind
    folder = settings.folder / name / "data"
    made_from = {"version": 1, "seed": settings.seed, "pool_size": settings.pool_size, "dev_size": settings.dev_size,
                 "test_size": settings.test_size if kind == "classification" else settings.nlg_test_size,
                 "max_characters": settings.max_characters, "smallest_budget": settings.budgets[0],
                 "data_root": str(settings.data_root or "") if kind == "nlg" or spec.public else ""}
    if spec.rows:
        made_from["rows"] = spec.rows
    kept = folder / "task.json"
    with locked(folder.parent):  # notebooks of two budgets may be the first to ask for a task, at the same moment
        if not kept.exists() or read_json(kept)["made_from"] != made_from:
            prepare(name, settings)
            make = _nlg if kind == "nlg" and name in SPECS else _divided
            pool, dev, test, report = make(name, settings)
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                for split, examples in (("pool", pool), ("dev", dev), ("test", test)):
                    pd.DataFrame([asdict(example) for example in examples], columns=[
                        "id", "text", "target", "references"]).to_parquet(temporary / f"{split}.parquet")
                contents = [[asdict(example) for example in split] for split in (pool, dev, test)]
                contents += [spec.rows] if spec.rows else []
                write_json(temporary / "task.json", {"made_from": made_from, "report": report,
                                                     "digest": digest(contents)})
    stored = read_json(kept)
    read = [_read(folder / f"{split}.parquet") for split in ("pool", "dev", "test")]
    title = title_of(name, settings.data_root)
    labels = tuple(sorted({example.target for example in read[0]})) if kind == "classification" else ()
    wording = Wording(spec.instruction, spec.input, spec.output)
    return Task(name, title, kind, labels, wording, *read, stored["report"], stored["digest"], spec.pair, spec.sentences,
                spec.answer, spec.separator)


def spec_of(name: str, settings: Settings) -> Spec:
    """What is said of a task: its entry in task_list.yaml or, of a custom task, what its task file and rows say.

    Raises
    ------
    SettingsError, RowsError
        The task file or its rows cannot be used.
    """
    if name not in settings.task_files:
        return SPECS[name]
    from synthtune.custom import study_task  # reading rows takes more than other tasks need

    return study_task.spec(settings.task_files[name])


def prepare(name: str, settings: Settings) -> None:
    """Make sure that the official files of a task exist; fetch them if `data_root` says so.

    Raises
    ------
    AssetError, CorpusError
        They cannot be fetched, or are not in the folder that was given.
    """
    if settings.data_root == official_corpora() and name in official.sources():
        official.fetch(name)
    elif name in SPECS and SPECS[name].public:
        public.paths(name, settings.data_root)


def _read(path: Path) -> tuple[Example, ...]:
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is damaged ({error}); delete its folder and run again to prepare it anew.") from error
    return tuple(Example(row.id, row.text, row.target, tuple(row.references)) for row in rows.itertuples())


def _divided(name: str, settings: Settings) -> tuple[list, list, list, dict]:
    """Draw test and development sets first, then a pool that shares no text with them."""
    seed = seed_for(settings, name, "split")
    if name in SPECS:
        kind, (examples, official_test, report) = "classification", _reader(name).corpus(name, settings.data_root)
    else:
        from synthtune.custom import study_task

        kind, examples, official_test, report = study_task.corpus(settings.task_files[name])
    test_size = settings.test_size if kind == "classification" else settings.nlg_test_size
    report["usable"] = len(examples) + len(official_test or [])
    cut = [splits.shortened(example, settings.max_characters) for example in examples]
    rest, report["exact_duplicates"] = splits.distinct(cut)
    random.Random(seed).shuffle(rest)
    if official_test is None:
        test, rest = rest[:test_size], rest[test_size:]
    else:
        test, dropped = splits.distinct([splits.shortened(example, settings.max_characters)
                                         for example in official_test])
        report["exact_duplicates"] += dropped
        random.Random(seed + 1).shuffle(test)
        test = test[:test_size]
    dev, rest = rest[: settings.dev_size], rest[settings.dev_size:]
    # Only as many candidates are compared as can be needed: near-duplicates are a few in a hundred.
    candidates = rest[: settings.pool_size + settings.pool_size // 2]
    near = splits.near_duplicates([example.text for example in candidates], [example.text for example in test + dev])
    pool = [example for example, drop in zip(candidates, near, strict=True) if not drop][: settings.pool_size]
    near_dev = splits.near_duplicates([example.text for example in dev], [example.text for example in test])
    dev = [example for example, drop in zip(dev, near_dev, strict=True) if not drop]
    report |= {"near_duplicates": int(near.sum() + near_dev.sum()), "pool": len(pool), "dev": len(dev),
               "test": len(test),
               "cut_texts": sum(len(a.text) != len(b.text) for a, b in zip(examples, cut, strict=True))}
    if kind == "classification":
        report["pool_labels"] = dict(Counter(example.target for example in pool).most_common())
    # An official test set may be smaller than asked for: RTE's has 277 examples.
    if len(test) < (1 if official_test else test_size) or len(pool) < ENOUGH * settings.budgets[-1]:
        raise SettingsError(f"{name}: {len(pool)} pool and {len(test)} test examples are left, fewer than the largest "
                            f"budget ({settings.budgets[-1]}) or {'' if kind == 'classification' else 'nlg_'}test_size "
                            f"({test_size}); lower one of them. {report['near_duplicates']} near-duplicates were dropped.")
    return splits.ordered_for_budgets(pool, settings.budgets[0], seed), dev, test, report


def _nlg(name: str, settings: Settings) -> tuple[list, list, list, dict]:
    """Read a corpus in its official format: the user's under `data_root`, or the one this package writes."""
    reader = _reader(name)
    seed = seed_for(settings, name, "split")
    if settings.data_root:
        root = settings.data_root / name
    else:
        root = _own_corpus(name, settings)
    parts, report = {}, {}
    for split in ("train", "dev", "test"):
        read = reader.read(root, split)
        parts[split], duplicates = splits.distinct(read)
        report[f"{split}_read"], report[f"{split}_duplicates"] = len(read), duplicates
        random.Random(seed).shuffle(parts[split])
    test = parts["test"][: settings.nlg_test_size]
    held = {splits.normalised(example.text) for example in test}
    dev = [example for example in parts["dev"] if splits.normalised(example.text) not in held][: settings.dev_size]
    held |= {splits.normalised(example.text) for example in dev}
    pool = [example for example in parts["train"] if splits.normalised(example.text) not in held]
    report["in_two_splits"] = len(parts["train"]) - len(pool)
    pool = pool[: settings.pool_size]
    report |= {"pool": len(pool), "dev": len(dev), "test": len(test),
               "references_per_test_input": round(sum(len(e.references) for e in test) / max(1, len(test)), 2)}
    if len(pool) < ENOUGH * settings.budgets[-1] or not test:
        raise SettingsError(f"{name}: {len(pool)} pool and {len(test)} test inputs under {root}, fewer than the largest "
                            f"budget ({settings.budgets[-1]}); lower the budget or add files.")
    return pool, dev, test, report


def _own_corpus(name: str, settings: Settings) -> Path:
    """Write the package's own corpus in the official format, once per run."""
    from toy_corpora import (  # the grammars are large tables; readers of real corpora skip them
        dialogues,
        facts,
    )

    root = settings.folder / name / "corpus"
    writer = {"webnlg": facts, "sgd": dialogues}[name]
    if not root.exists():
        with atomic_path(root) as temporary:
            writer.write(temporary, seed=seed_for(settings, name, "corpus"),
                         sizes={"train": 2500, "dev": 300, "test": 300})
    return root
