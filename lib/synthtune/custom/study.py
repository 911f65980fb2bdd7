"""The paper's recipe on custom data: teachers, synthetic examples, students, and what each is worth on rows held out.

    outcome = study.run(custom.read("my_task.yaml"), "my_task.results")

With a test file everything is trained once, on all labelled rows, and tested on that file. Without one the labelled rows
are divided into folds: each is held out once while teachers and students are trained on the others, so that every row is
tested by models that never saw it (Stone 1974, cross-validation); then all rows train the model to take away.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from synthtune import annotate, experiment, generate, metrics, student, teacher
from synthtune.analysis import statistics
from synthtune.conditions import CONDITIONS, GOLD
from synthtune.context import Context
from synthtune.custom import baselines, forecast, record
from synthtune.custom.confidence import Confidence, OfLabels, OfTexts
from synthtune.custom.parts import WHOLE, WORK, parts, settings_of
from synthtune.custom.rows import CustomData
from synthtune.errors import RowsError
from synthtune.experiment import Cell
from synthtune.files import atomic_path, digest, remove
from synthtune.models.language_model import LanguageModel
from synthtune.models.students import StudentTrainer
from synthtune.progress import duration, progress
from synthtune.scale import machine, workers
from synthtune.settings import Settings
from synthtune.tasks import Example

TEACHER = "teacher itself"
Verdict = Literal["helps", "does not help", "not decided"]


@dataclass(frozen=True)
class Outcome:
    """What came of custom data.

    Attributes
    ----------
    own : CustomData
    settings : Settings
    whole : Context
        All labelled rows, with the settings that its stages ran with.
    scores : DataFrame
        One row a system, in the order of trying: system, value, low, high (accuracy or BLEU in percent, and its interval),
        macro_f1 (classification), gain, gain_low, gain_high (points over the student of gold alone; NaN for itself), lead,
        lead_low and lead_high (points over the winner; NaN for itself).
    winner : str
        The condition whose student is the one to take away: the best on average.
    optimism : float
        Points that the winner's gain owes to being chosen on the rows that measure it; see `statistics.of_the_best`.
    verdict : str
        Whether synthetic examples help: "helps" if the interval of the winner's gain, less the optimism, is above zero, "does
        not help" if no condition is above gold alone, "not decided" otherwise.
    tested : DataFrame
        Rows held out, in their order: id, text, truth; predicted by the winner and its confidence; quality, 1 if that is
        right and 0 if not, or its chrF, between 0 and 1; by_gold, the student of gold alone.
    held_out : str
        How they were held out, in words.
    confidence : Confidence
        From the winner's scores, calibrated on the rows held out.
    annotated, generated : DataFrame
        Of all labelled rows, dropped ones included; empty where there are no unlabelled rows.
    """

    own: CustomData
    settings: Settings
    whole: Context
    scores: pd.DataFrame
    winner: str
    optimism: float
    verdict: Verdict
    tested: pd.DataFrame
    held_out: str
    confidence: Confidence
    annotated: pd.DataFrame
    generated: pd.DataFrame

    def score(self, system: str) -> pd.Series:
        """The row of a system in `scores`."""
        return self.scores.set_index("system").loc[system]

    @property
    def cell(self) -> Cell:
        """The winner, trained on all labelled rows with the first of the seeds."""
        return next(cell for cell in cells(self.whole) if cell.condition == self.winner)


def run(own: CustomData, folder: str | Path, overrides: Sequence[str] = ()) -> Outcome:
    """Do what has not been done, and say what came of it. What every stage makes is kept in the folder `work` of `folder`.

    In a folder where something has been made before, what has changed since and what is made again is printed.

    Parameters
    ----------
    own : CustomData
        Without errors.
    folder : path
    overrides : sequence of str
        Changes to the profile, such as "annotate.inputs=400".

    Raises
    ------
    RowsError
        The rows have errors, or are too few.
    StageError
        Another run is working in the folder, or it cannot be written.
    """
    if own.report.errors:
        raise RowsError(f"{own.task.path.name}: errors ({len(own.report.errors)}) are to be solved before anything is "
                        f"trained; the first: {own.report.errors[0]}")
    with record.working(folder):
        settings = settings_of(own, Path(folder) / WORK, overrides)
        torch.set_num_threads(settings.threads)
        each = parts(own, settings)
        before, again = record.stamps(each), record.begin(own, settings)
        stages = [(part, _stages(part)) for part in each]
        processes = machine.processes(settings, sum(max(map(len, groups)) for _, groups in stages))
        takes = duration(forecast.seconds(each, settings, processes))
        print(f"This takes about {takes} on this machine, in the number format {settings.format}.", flush=True)
        with record.offline(settings):
            outcome = _measured(own, settings, each, _made(stages, settings, processes))
        if again:
            record.say_made(before, record.stamps(each))
        return outcome


# What is done for a part: groups of stages, of which those of one can be done side by side.
Stages = list[list[Callable]]


def _made(stages: list[tuple[Context, Stages]], settings: Settings, processes: int) -> dict[str, list[Any]]:
    """What `_synthetic` and, where a part holds rows out, `_answers` give, by the part's name."""
    if processes < 2:
        lm = teacher.base(settings)
        return {part.task.name: [_synthetic(lm, part), *([_answers(lm, part, seeds(part))] if part.task.test else [])]
                for part, _ in progress(stages, desc="parts", unit="part")}
    found: dict[str, list[Any]] = {part.task.name: [] for part, _ in stages}
    number = sum(len(groups) for _, groups in stages)
    with workers.pool(processes, settings) as pool:
        for part, given in progress(_done(pool, stages), total=number, desc="teachers and students", unit="stage"):
            found[part.task.name] += [one for one in given if one is not None]
    return found


def _stages(part: Context) -> Stages:
    groups: Stages = [[_labelled, _sampled], [_synthetic]]
    return [*groups, [partial(_answers, of=[seed]) for seed in seeds(part)]] if part.task.test else groups


def _done(pool: ProcessPoolExecutor, stages: list[tuple[Context, Stages]]) -> Iterator[tuple[Context, list[Any]]]:
    """Do the groups of each part, one after the other, and say what the stages of each gave; then the next one waits its turn."""
    waiting: dict[Future, tuple[Context, list[Future], Stages]] = {}

    def begin(part: Context, groups: Stages) -> None:
        begun = [pool.submit(_work, stage, part) for stage in groups[0]]
        waiting.update({future: (part, begun, groups[1:]) for future in begun})

    for part, groups in stages:
        begin(part, groups)
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            part, group, later = waiting.pop(future)
            future.result()
            if waiting.keys().isdisjoint(group):
                if later:
                    begin(part, later)
                yield part, [each.result() for each in group]


# The model that is fine-tuned, once a process that does the work of parts has loaded it.
_loaded: list[LanguageModel | None] = []


def _work(stage: Callable, part: Context) -> Any:
    torch.set_num_threads(part.settings.threads)
    with record.offline(part.settings):
        if not _loaded:
            _loaded.append(teacher.base(part.settings))
        return stage(_loaded[0], part)


def _measured(own: CustomData, settings: Settings, each: list[Context], made: dict[str, list[Any]]) -> Outcome:
    tested = [part for part in each if part.task.test]
    there = conditions(each[0], tested)
    answers = pd.concat([_complete(pd.concat(made[part.task.name][1:]), there) for part in tested], ignore_index=True)
    held = [example for part in tested for example in part.task.test]
    scores, winner, optimism = _scores(answers, held, tested[0], settings)
    verdict = decided(scores, winner, optimism)
    seed = answers.loc[answers["system"] == winner, "seed"].min()
    best, gold = (answers[(answers["system"] == system) & (answers["seed"] == seed)] for system in (winner, GOLD))
    said, scored = list(best["output"]), np.stack(list(best["scores"]))
    if own.task_type == "classification":
        quality = np.array([output == example.target for output, example in zip(said, held, strict=True)], dtype=float)
        places = {label: place for place, label in enumerate(own.labels)}
        sure: Confidence = OfLabels.fit(scored, [places.get(example.target, -1) for example in held])
        confidence = sure.of(scored, [places.get(output, -1) for output in said])
    else:
        quality = metrics.chrf_of_each([[example.target] for example in held], said)
        sure = OfTexts.fit(scored, quality)
        confidence = sure.of(scored)
    table = pd.DataFrame({"id": [example.id for example in held], "text": [example.text for example in held],
                          "truth": [example.target for example in held], "predicted": said,
                          "confidence": confidence, "quality": quality, "by_gold": list(gold["output"])})
    words = "the test file" if len(each) == 1 else f"{len(tested)} folds"
    annotated, generated = made[WHOLE][0]
    return Outcome(own, settings, each[0], scores, winner, optimism, verdict, table, words, sure, annotated, generated)


def decided(scores: pd.DataFrame, winner: str, optimism: float) -> Verdict:
    """Whether the synthetic examples of the winner help; see `Outcome`."""
    if winner == GOLD:
        return "does not help"
    return "helps" if scores.set_index("system").loc[winner, "gain_low"] > optimism else "not decided"


def _annotated(lm: LanguageModel | None, part: Context) -> tuple[Any, pd.DataFrame]:
    """What annotates a part, and its annotated examples."""
    annotator = teacher.ready(lm, part, "annotate")
    return annotator, annotate.annotate(annotator, part) if part.unlabelled else pd.DataFrame()


def _labelled(lm: LanguageModel | None, part: Context) -> None:
    """A part of what `_synthetic` does; no model is handed on to another process."""
    _annotated(lm, part)


def _sampled(lm: LanguageModel | None, part: Context) -> None:
    """Another part of what `_synthetic` does, which keeps no samples once it is done."""
    if not (part.folder / "generated.parquet").exists():
        generate.sample(teacher.ready(lm, part, "generate"), part)


def _synthetic(lm: LanguageModel | None, part: Context) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Annotated and generated examples of a part."""
    annotator, annotated = _annotated(lm, part)
    return annotated, generate.generate(teacher.ready(lm, part, "generate"), annotator, part)


def cells(part: Context) -> list[Cell]:
    """What students are trained on: gold alone, with what each route gave, and with half of each.

    A route of which nothing was kept is no condition.
    """
    there = {route: len(experiment.synthetic(part.folder / f"{route}.parquet")) if part.unlabelled or route == "generated" else 0
             for route in experiment.ROUTES.values()}
    return [Cell(part.budget, condition, amount, seed) for seed in seeds(part)
            for condition, amount in experiment.amounts(there).items() if amount or condition == GOLD]


def conditions(whole: Context, tested: Sequence[Context]) -> list[str]:
    """What is compared: the conditions for which all labelled rows, and those of at least one fold, gave synthetic rows."""
    found = {cell.condition for part in tested for cell in cells(part)}
    return [cell.condition for cell in cells(whole) if cell.condition in found and cell.seed == seeds(whole)[0]]


def _complete(answers: pd.DataFrame, there: Sequence[str]) -> pd.DataFrame:
    """The answers of baselines, teacher and the conditions that are compared.

    Where a fold has no synthetic rows for a condition, that condition's student is the one of gold alone.
    """
    known = [system for system in answers["system"].unique() if system not in CONDITIONS or system in there]
    gold = answers[answers["system"] == GOLD]
    return pd.concat([answers[answers["system"].isin(known)],
                      *(gold.assign(system=condition) for condition in there if condition not in known)])


def seeds(part: Context) -> list[int]:
    """Seeds of the students: folds differ in their training rows already, a single test does not."""
    return part.settings.students.seeds if part.task.name == WHOLE else part.settings.students.seeds_larger


def _answers(lm: LanguageModel | None, part: Context, of: Sequence[int]) -> pd.DataFrame:
    """Outputs of the students of some seeds for the rows that a part holds out: system, seed, id, output, scores.

    With those of the first seed are the outputs of what has none, the baselines and the teacher.
    """
    test, gold = list(part.task.test), part.gold
    texts = [example.text for example in test]
    about = {"test": [[example.id, example.text] for example in test], "task": part.task.digest}
    tables = []

    def by_teacher() -> pd.DataFrame:
        outputs, sums, scores = teacher.answers(teacher.ready(lm, part, "annotate"), part, texts)
        return _table(outputs, sums if scores is None else scores.tolist())

    if seeds(part)[0] in of:
        for system, answer in baselines.systems(part.task.task_type, part.settings).items():
            tables.append(_kept(part, system, {**about, "settings": part.settings.students.model},
                                lambda answer=answer: _table(answer(gold, texts))))
        taught = teacher.trained(lm, part, "annotate")
        tables.append(_kept(part, TEACHER, {**about, "digest": taught.digest, "settings": part.settings_of("annotate")}, by_teacher))
    wanted = [cell for cell in cells(part) if cell.seed in of]
    rows = {cell: experiment.training_rows(part, cell)[0] for cell in wanted}
    trainer: StudentTrainer | None = None
    for cell in wanted:
        def by_student(cell: Cell = cell) -> pd.DataFrame:
            nonlocal trainer
            if trainer is None:
                # All texts in one order, whatever has been kept: in other batches a text's last digits differ.
                trainer = student.trainer(part)
                trainer.read([row.text for each in rows.values() for row in each])
            outputs, scores = trainer.predict(trainer.train(rows[cell], cell), texts, scored=True)
            return _table(outputs, scores.tolist())

        made_from = {**about, **depends_on(part, cell, rows[cell])}
        tables.append(_kept(part, cell.condition, made_from, by_student, cell.seed))
    return pd.concat([table.assign(id=[example.id for example in test]) for table in tables], ignore_index=True)


def depends_on(part: Context, cell: Cell, rows: Sequence[experiment.Row]) -> dict[str, Any]:
    """What a student of a part depends on: a seq2seq student also on the unlabelled rows, whose word pieces it knows."""
    pool = [example.text for example in part.task.pool] if part.task.task_type == "generation" else []
    return {**student.depends_on(part, cell, rows), "pool": digest(pool)}


def _table(outputs: Sequence[str], scores: Sequence[Any] | None = None) -> pd.DataFrame:
    scores = [None] * len(outputs) if scores is None else scores
    return pd.DataFrame({"output": list(outputs), "scores": [None if each is None else np.atleast_1d(each) for each in scores]})


def _kept(part: Context, system: str, made_from: dict, make: Callable[[], pd.DataFrame], seed: int = 1) -> pd.DataFrame:
    """A system's answers, read back if they were made from the same; named by the digest of what they are made from."""
    folder = part.settings.folder / part.task.name / "answers"
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{system}-{seed}")
    path = folder / f"{name}-{digest(made_from)[:16]}.parquet"
    if not path.exists():
        table = make()
        for older in folder.glob(f"{name}-{'?' * 16}.parquet"):
            remove(older)
        with atomic_path(path) as temporary:
            table.to_parquet(temporary)
    return pd.read_parquet(path).assign(system=system, seed=seed)


def _scores(answers: pd.DataFrame, held: list[Example], part: Context, settings: Settings) -> tuple[pd.DataFrame, str, float]:
    """Scores of all systems on all rows held out, with intervals by a paired bootstrap over rows and seeds; winner and optimism."""
    metric, records, found = part.task.metric, {}, {}
    for (system, seed), group in answers.groupby(["system", "seed"], sort=False):
        scores = part.task.score(held, list(group["output"]))
        records.setdefault(system, {})[seed] = statistics.examples_of(part.task.task_type, scores["per_example"])
        found.setdefault(system, []).append(scores)
    chosen = settings.figures
    drawn = statistics.resample(records, chosen.resamples, settings.seed, "own rows")
    students = {condition: records[condition] for condition in CONDITIONS if condition in records}
    winner = max(students, key=lambda condition: drawn[condition][0])
    gained = drawn[winner][0] - drawn[GOLD][0]
    optimism = max(0.0, gained - statistics.of_the_best(students, GOLD, chosen.resamples, settings.seed))
    rows = []
    for system, scores in found.items():
        row: dict[str, Any] = {"system": system, "seeds": len(scores)}
        for name, prefix, over in (("value", "", None), ("gain", "gain_", GOLD), ("lead", "lead_", winner)):
            if system != over:
                interval = statistics.estimate(drawn[system] - drawn[over] if over else drawn[system], chosen.confidence)
                row |= {name: interval.value, f"{prefix}low": interval.low, f"{prefix}high": interval.high}
            if name == "value" and metric == "accuracy":
                row["macro_f1"] = float(np.mean([each["macro_f1"] for each in scores]))
        rows.append(row)
    return pd.DataFrame(rows), winner, optimism
