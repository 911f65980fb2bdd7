"""A task: a data set, its text format and its metric, split into gold, unlabelled, development and test examples."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import pandas as pd

from synthtune import metrics, task_list
from synthtune.errors import CorpusError, SettingsError, SynthtuneError
from synthtune.files import atomic_path, digest, locked, read_json, write_json
from synthtune.settings import Settings, is_task_file, official_corpora, seed_for
from synthtune.task_list import SPECS
from synthtune.tasks import official, splits
from synthtune.tasks.example import Example, PromptTemplate, divided
from synthtune.tasks.formats import SPLITS
from synthtune.tasks.spec import Corpus, Spec

# Share of a budget that a pool must have: what a corpus has is then the budget, as RTE's 2,490 examples are of 2,500.
ENOUGH = 0.9


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
    name, title, task_type : str
        `task_type` is "classification" or "generation".
    labels : tuple of str
        The label texts, sorted; empty for NLG.
    template : PromptTemplate
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
    task_type: str
    labels: tuple[str, ...]
    template: PromptTemplate
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
        """Measure predictions against true outputs; see `synthtune.metrics`."""
        if self.task_type == "classification":
            truth = [example.target for example in examples]
            return metrics.multi_label(truth, predicted, self.separator) if self.separator else metrics.classification(truth, predicted)
        return metrics.generation([example.references or (example.target,) for example in examples], predicted)

    def is_input(self, text: str) -> bool:
        """Whether a text has the form of the task's inputs: triples, actions, a pair. Single texts may have any."""
        spec = SPECS.get(self.name)
        return spec.is_input(text) if spec and spec.is_input else divided(self.pair, text) is not None

    def values(self, text: str) -> list[str]:
        """Values that the output of an NLG input has to mention; [] for tasks that name none."""
        spec = SPECS.get(self.name)
        return spec.values(text) if spec and spec.values else []

    def missing_slots(self, text: str, output: str) -> list[str]:
        """Values of an NLG input that an output does not mention: its slot errors (Wen et al. 2015); [] for labels.

        Compared in lower case and without punctuation, so "10 May" is found in "on 10 May." and not in "on May 10".
        """
        values = self.values(text)
        said = f" {splits.normalised(output)} "
        return [value for value in values if f" {splits.normalised(value)} " not in said]

    @property
    def classes(self) -> tuple[str, ...]:
        """The single labels, sorted."""
        return metrics.classes_of(self.labels, self.separator)

    @property
    def metric(self) -> str:
        """Name of the metric that figures show."""
        return metrics.main_metric(self.task_type)


def load(name: str, settings: Settings) -> Task:
    """Prepare a task, given by its name or its file, or read it if this run has prepared it before.

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
    folder = settings.folder / name / "data"
    made_from = {"version": 1, "seed": settings.seed, "pool_size": settings.pool_size, "dev_size": settings.dev_size,
                 "test_size": _test_size(spec, settings), "max_characters": settings.max_characters,
                 "smallest_budget": settings.budgets[0],
                 "data_root": str(settings.data_root or "") if spec.task_type == "generation" or spec.public else ""}
    if spec.rows:
        made_from["rows"] = spec.rows
    kept = folder / "task.json"
    with locked(folder.parent):  # notebooks of two budgets may be the first to ask for a task, at the same moment
        if not kept.exists() or read_json(kept)["made_from"] != made_from:
            _store(name, spec, settings, folder, made_from)
    stored = read_json(kept)
    read = [_read(folder / f"{split}.parquet") for split in ("pool", "dev", "test")]
    labels = tuple(sorted({example.target for example in read[0]})) if spec.task_type == "classification" else ()
    return Task(name, task_list.title(name, settings.data_root), spec.task_type, labels, spec.template, *read, stored["report"],
                stored["digest"], spec.pair, spec.sentences, spec.answer, spec.separator)


def spec_of(name: str, settings: Settings) -> Spec:
    """What is said of a task in its module or, of a custom task, in its file and rows.

    Raises
    ------
    SettingsError, RowsError
        The task file or its rows cannot be used.
    """
    if name in SPECS:
        spec = SPECS[name]
        # Examples beside a file may change; what is published, or in assets.yaml, has a digest of its own.
        beside = spec.file is not None and not (spec.asset or spec.source)
        return replace(spec, rows=digest([spec.rows, repr(_corpus(spec, spec.file.parent))])) if beside else spec
    from synthtune.custom import study_task  # reading rows takes more than other tasks need

    return study_task.spec(settings.task_files[name])


def prepare(name: str, settings: Settings) -> None:
    """Make sure that the official files of a task exist; fetch them if `data_root` says so.

    Raises
    ------
    AssetError, CorpusError
        They cannot be fetched, or are not in the folder that was given.
    """
    if name not in SPECS or not SPECS[name].source or not settings.data_root:
        return
    if settings.data_root == official_corpora():
        official.fetch(name)
    folder = settings.data_root / name
    if missing := [file for file in SPECS[name].files if not (folder / file).is_file()]:
        raise CorpusError(f"{folder} has no {' and no '.join(missing)}: put the official files of {name} there, or give "
                          "another folder as data_root (--data-root DIR).")


def _test_size(spec: Spec, settings: Settings) -> int:
    return settings.test_size if spec.task_type == "classification" else settings.nlg_test_size


def _store(name: str, spec: Spec, settings: Settings, folder: Path, made_from: dict) -> None:
    """Read a corpus, split it, and write the task's folder."""
    prepare(name, settings)
    corpus = _corpus(spec, _corpus_folder(name, spec, settings))
    split = _drawn if corpus.dev is None else _as_published
    pool, dev, test, report = split(name, spec, corpus, settings)
    report |= {"pool": len(pool), "dev": len(dev), "test": len(test)}
    test_size = _test_size(spec, settings)
    # An official test set may be smaller than asked for: RTE's has 277 examples.
    if len(test) < (1 if corpus.test else test_size) or len(pool) < ENOUGH * settings.budgets[-1]:
        raise SettingsError(f"{name}: {len(pool)} pool and {len(test)} test examples are left, fewer than the largest "
                            f"budget ({settings.budgets[-1]}) or {'' if spec.task_type == 'classification' else 'nlg_'}test_size "
                            f"({test_size}); lower one of them. {report.get('near_duplicates', 0)} near-duplicates were dropped.")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for part, examples in (("pool", pool), ("dev", dev), ("test", test)):
            pd.DataFrame([asdict(example) for example in examples], columns=[
                "id", "text", "target", "references"]).to_parquet(temporary / f"{part}.parquet")
        contents = [[asdict(example) for example in part] for part in (pool, dev, test)]
        contents += [spec.rows] if spec.rows else []
        write_json(temporary / "task.json", {"made_from": made_from, "report": report, "digest": digest(contents)})


def _corpus(spec: Spec, folder: Path) -> Corpus:
    try:
        return spec.read(folder)
    except Exception as error:
        if spec.file is None or isinstance(error, SynthtuneError):
            raise
        raise CorpusError(f"{spec.file}: its reader fails on {folder} ({type(error).__name__}: {error}); correct the reader or the "
                          "files.") from error


def _corpus_folder(name: str, spec: Spec, settings: Settings) -> Path:
    """Where a task's reader finds its corpus; one of ours is written, once per run."""
    if spec.asset:
        from synthtune.models import assets

        return assets.fetch(spec.asset)
    if spec.source and settings.data_root:
        return settings.data_root / name
    if not spec.toy_corpus:
        return spec.file.parent if spec.file else Path()  # of a custom task the reader knows its rows
    folder = settings.folder / name / "corpus"
    if not folder.exists():
        with atomic_path(folder) as temporary:
            import_module(spec.toy_corpus).write(temporary, seed=seed_for(settings, name, "corpus"),
                                                 sizes={"train": 2500, "dev": 300, "test": 300})
    return folder


def _read(path: Path) -> tuple[Example, ...]:
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is damaged ({error}); delete its folder and run again to prepare it anew.") from error
    return tuple(Example(row.id, row.text, row.target, tuple(row.references)) for row in rows.itertuples())


def _drawn(name: str, spec: Spec, corpus: Corpus, settings: Settings) -> tuple[list, list, list, dict]:
    """Draw test and development sets first, then a pool that shares no text with them."""
    seed = seed_for(settings, name, "split")
    test_size = _test_size(spec, settings)
    report = {**corpus.counted, "usable": len(corpus.train) + len(corpus.test or [])}
    rest, official_test = ([replace(example, text=splits.cut(example.text, settings.max_characters)) for example in each]
                           for each in (corpus.train, corpus.test or []))
    cut_texts = sum(len(a.text) != len(b.text) for a, b in zip(corpus.train, rest, strict=True))
    rest, report["exact_duplicates"] = splits.distinct(rest)
    random.Random(seed).shuffle(rest)
    if corpus.test is None:
        test, rest = rest[:test_size], rest[test_size:]
    else:
        test, dropped = splits.distinct(official_test)
        report["exact_duplicates"] += dropped
        random.Random(seed + 1).shuffle(test)
        test = test[:test_size]
    dev, rest = rest[: settings.dev_size], rest[settings.dev_size:]
    # Only as many candidates are compared as can be needed: near-duplicates are a few in a hundred.
    pool, near = _without_near(rest[: settings.pool_size + settings.pool_size // 2], test + dev)
    dev, near_dev = _without_near(dev, test)
    pool = pool[: settings.pool_size]
    report |= {"near_duplicates": near + near_dev, "cut_texts": cut_texts}
    if spec.task_type == "classification":
        report["pool_labels"] = dict(Counter(example.target for example in pool).most_common())
    return splits.ordered_for_budgets(pool, settings.budgets[0], seed), dev, test, report


def _without_near(examples: Sequence[Example], held: Sequence[Example]) -> tuple[list[Example], int]:
    near = splits.near_duplicates([example.text for example in examples], [example.text for example in held])
    return [example for example, drop in zip(examples, near, strict=True) if not drop], int(near.sum())


def _as_published(name: str, spec: Spec, corpus: Corpus, settings: Settings) -> tuple[list, list, list, dict]:
    """Keep a corpus's own three splits, without what is in two of them."""
    parts, report = {}, dict(corpus.counted)
    for split in SPLITS:
        read = getattr(corpus, split)
        parts[split], report[f"{split}_duplicates"] = splits.distinct(read)
        report[f"{split}_read"] = len(read)
        random.Random(seed_for(settings, name, "split")).shuffle(parts[split])
    test = parts["test"][: _test_size(spec, settings)]
    held = {splits.normalised(example.text) for example in test}
    dev = [example for example in parts["dev"] if splits.normalised(example.text) not in held][: settings.dev_size]
    held |= {splits.normalised(example.text) for example in dev}
    pool = [example for example in parts["train"] if splits.normalised(example.text) not in held]
    report["in_two_splits"] = len(parts["train"]) - len(pool)
    pool = pool[: settings.pool_size]
    report["references_per_test_input"] = round(sum(len(e.references) for e in test) / max(1, len(test)), 2)
    return pool, dev, test, report
