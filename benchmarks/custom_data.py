"""125 labelled rows: what our small model reaches, side by side with what else a user could do with them.

    benchmarks/custom_data --data-root DIR            # custom_data.md and .csv; DIR has rte/ and banking77/
    benchmarks/custom_data --only tweets --out DIR

Every system of a task sees the same 125 rows, the same unlabelled inputs (their labels are not written to the files) and
the same test rows. TF-IDF and logistic regression; SetFit on the same MiniLM, where that package is installed, on the gold rows
and on gold and annotated ones (as many pairs in all); MiniLM fine-tuned on the gold rows; MiniLM self-trained: fine-tuned on gold and
on its own labels for the unlabelled inputs that our teacher annotates; the teacher itself; and what `./run_all.sh --task` ships.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import torch
import yaml
from synthtune import custom, experiment, number_format, settings, student, tasks, teacher
from synthtune.analysis import statistics
from synthtune.conditions import CONDITIONS, GOLD
from synthtune.context import Context
from synthtune.custom import baselines, parts, study
from synthtune.custom.products import write_csv
from synthtune.custom.rows import CustomData
from synthtune.errors import SynthtuneError
from synthtune.files import cached
from synthtune.models import assets, language_model
from synthtune.progress import progress
from synthtune.settings import TASKS
from synthtune.task_list import SPECS
from synthtune.tasks import Example, splits
from synthtune.tasks.example import divided

GOLD_ROWS, UNLABELLED, TEST = 125, 1000, 500
INTENTS = 15
"""Intents that BANKING77 is cut to, its commonest: of 77, 125 rows would have one or two of each."""
SELF_TRAINED = "MiniLM, self-trained"
SETFIT_MORE = "SetFit, gold and annotated"
COLUMNS = ["task", "system", "accuracy", "low", "high", "shipped", "megabytes", "training seconds", "seconds per 1,000 texts",
           "machine"]
NAMES = {GOLD: "MiniLM, gold alone", study.TEACHER: "teacher itself"}
ABOUT = {
    "film_reviews": "Say whether the film review is positive or negative.",
    "product_reviews": "Say whether the product review is positive or negative.",
    "tweets": "Say whether the tweet is positive or negative.",
    "reuters_r8": "Name the topic of the news item.",
    "rte": "Say whether the claim follows from the text.",
    "banking77": "Name what the customer wants.",
}


def rows_of(name: str, folder: Path, data_root: Path | None) -> Path:
    """Write a task's rows as a user would have them; the task file's path."""
    chosen = settings.load("laptop", [f"budgets=[{GOLD_ROWS}]"], folder / "prepared", data_root)
    if name == "banking77":
        train, test, *_ = SPECS[name].read(data_root / name)
        common = {label for label, _ in Counter(example.target for example in train).most_common(INTENTS)}
        train, test = ([example for example in each if example.target in common] for each in (train, test))
        draw = np.random.default_rng(chosen.seed)
        train, test = ([each[place] for place in draw.permutation(len(each))] for each in (train, test))
        train = splits.ordered_for_budgets(train, GOLD_ROWS, chosen.seed)
    else:
        task = tasks.load(name, chosen.check(name))
        train, test = list(task.pool), list(task.test)
    names = SPECS[name].pair
    template = SPECS[name].template  # columns with telling names, as the README advises
    labelled, rest, test = train[:GOLD_ROWS], train[GOLD_ROWS:][:UNLABELLED], test[:TEST]
    columns = list(names) or [template.input]
    for file, rows in (("labelled", labelled), ("unlabelled", rest), ("test", test)):
        table = pd.DataFrame([divided(names, row.text) for row in rows], columns=columns)
        outputs = {} if file == "unlabelled" else {template.output: [row.target for row in rows]}
        write_csv(table.assign(**outputs), folder / f"{file}.csv")
    lines = {"rows": "labelled.csv", "text": columns, "label": template.output, "unlabelled": "unlabelled.csv",
             "test": "test.csv", "description": ABOUT[name]}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(lines, sort_keys=False), "utf-8")
    return path


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def estimated(records: dict[int, np.ndarray], chosen: settings.Settings) -> statistics.Estimate:
    """Accuracy over seeds and test rows, with its interval."""
    return statistics.estimate(statistics.resample({0: records}, chosen.figures.resamples, chosen.seed)[0])


def measure(name: str, own: CustomData, folder: Path) -> pd.DataFrame:
    """One row a system: accuracy with its interval, size, seconds of one training and for 1,000 texts.

    The training seconds of what `./run_all.sh --task` makes are those of all it does: teacher, synthetic rows and every student.
    SetFit is hidden from it, and measured afterwards with every seed.
    """
    find = importlib.util.find_spec
    with mock.patch.object(baselines.importlib.util, "find_spec", lambda name: None if name == "setfit" else find(name)):
        outcome, ours = timed(lambda: study.run(own, folder / "results"))
    part, gold = outcome.whole, outcome.whole.task.gold(outcome.whole.budget)
    test = list(part.task.test)
    texts = [example.text for example in test]
    bench = student.trainer(Context.of(part.task, part.settings))
    cells = [cell for cell in study.cells(part) if cell.condition == GOLD]
    pseudo = [item.text for item in part.task.unlabelled(part.budget)[: part.settings.annotate.inputs]]
    rows = [experiment.Row(example.text, example.target) for example in gold]
    records: dict[int, np.ndarray] = {}
    training = dict.fromkeys((study.TEACHER, *CONDITIONS), ours)
    for cell in progress(cells, desc="self-training", unit="seed"):
        of_gold, training[GOLD] = timed(lambda cell=cell: bench.train(rows, cell))
        said, _ = bench.predict(of_gold, pseudo)
        more = rows + [experiment.Row(text, output) for text, output in zip(pseudo, said, strict=True)]
        trained = bench.train(more, experiment.Cell(cell.budget, "self-trained", len(pseudo), cell.seed))
        outputs, _ = bench.predict(trained, texts)
        records[cell.seed] = np.array(part.task.score(test, outputs)["per_example"])
    own_score = estimated(records, part.settings)
    small = assets.model_path(part.settings.students.model)
    size = (small / "model.safetensors").stat().st_size / 1e6
    speed, sizes = {}, {GOLD: size, baselines.SETFIT: size}
    fresh = student.trainer(Context.of(part.task, part.settings))
    speed[GOLD] = timed(lambda: fresh.predict(trained, texts))[1]
    lm = language_model.load(part.settings.teacher.model, part.settings.format)
    adapter = teacher.fine_tune(lm, Context.of(part.task, part.settings, part.budget), "annotate")
    annotator = teacher.with_adapter(lm, adapter)
    speed[study.TEACHER] = timed(lambda: teacher.answers(annotator, Context.of(part.task, part.settings), texts))[1]
    sizes[study.TEACHER] = sum(p.numel() * p.element_size() for p in annotator.model.parameters()) / 1e6
    model, training[baselines.TFIDF] = timed(lambda: baselines.tfidf_model(gold))
    speed[baselines.TFIDF] = timed(lambda: model.predict(texts))[1]
    sizes[baselines.TFIDF] = len(pickle.dumps(model)) / 1e6  # only measured: no pickle is stored
    by_setfit = {}
    if baselines.SETFIT in baselines.systems(part.task.task_type, part.settings):
        kept = outcome.annotated[outcome.annotated["dropped"] == ""]
        more = [*gold, *(Example(row.id, row.text, row.output) for row in kept.itertuples())]
        for system, trained_on in ((baselines.SETFIT, gold), (SETFIT_MORE, more)):
            answers = {}
            for cell in progress(cells, desc=system, unit="seed"):
                fitted, training[system] = timed(lambda cell=cell: baselines.setfit_model(
                    trained_on, part.settings.model_copy(update={"seed": cell.seed}), max(1, round(20 * len(gold) / len(trained_on)))))
                said, seconds = timed(lambda fitted=fitted: fitted.predict(texts))
                speed[system], sizes[system] = seconds, size
                answers[cell.seed] = np.array(part.task.score(test, [str(label) for label in said])["per_example"])
            by_setfit[system] = estimated(answers, part.settings)
    found = []
    for row in outcome.scores.itertuples():
        of = GOLD if row.system.startswith(GOLD) else row.system
        found.append({"task": name, "system": NAMES.get(row.system, row.system), "accuracy": row.value, "low": row.low,
                      "high": row.high, "shipped": row.system == outcome.winner, "megabytes": sizes.get(of),
                      "training seconds": training.get(row.system),
                      "seconds per 1,000 texts": 1000 * speed[of] / len(texts) if of in speed else None})
    found.append({**next(row for row in found if row["system"] == NAMES[GOLD]), "system": SELF_TRAINED, "shipped": False,
                  "training seconds": None, "accuracy": own_score.value, "low": own_score.low, "high": own_score.high})
    found += [{"task": name, "system": system, "accuracy": score.value, "low": score.low, "high": score.high, "shipped": False,
               "megabytes": sizes[system], "training seconds": training[system],
               "seconds per 1,000 texts": 1000 * speed[system] / len(texts)}
              for system, score in by_setfit.items()]
    machine = f"{number_format.device_name()}, {number_format.of_machine()}"
    return pd.DataFrame(found, columns=COLUMNS).assign(machine=machine)


def markdown(table: pd.DataFrame) -> str:
    """A table of accuracies, tasks across, and below it sizes and speeds."""
    lines = [f"# {GOLD_ROWS} labelled rows: our small model and what else they could be used for", "",
             f"Accuracy in percent on up to {TEST} test rows, with 95 % intervals over test rows and seeds (3 of each student); "
             f"BANKING77 is cut to its {INTENTS} commonest intents. **Bold**: the most accurate small model of a task (the "
             "teacher is not one). ◆: what `./run_all.sh --task` ships, the best of its conditions on these same test rows.", ""]
    names, systems = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["system"]))
    lines += ["| system | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system in systems:
        cells = []
        for name in names:
            row = table[(table["task"] == name) & (table["system"] == system)]
            if row.empty:
                cells.append("–")
                continue
            row = row.iloc[0]
            small = table[(table["task"] == name) & (table["system"] != NAMES[study.TEACHER])]
            value = f"{row['accuracy']:.1f}"
            value = f"**{value}**" if row["accuracy"] == small["accuracy"].max() and system != NAMES[study.TEACHER] else value
            cells.append(f"{value}{' ◆' if row['shipped'] else ''} ({row['low']:.1f}–{row['high']:.1f})")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    costs = table.groupby("system", sort=False)[["megabytes", "training seconds", "seconds per 1,000 texts"]].median().dropna(how="all")

    def shown(number: float, form: str) -> str:
        return "–" if np.isnan(number) else format(number, form)

    lines += ["", "Medians of the tasks. The seconds of training are one student's for MiniLM and SetFit; for what the teacher has part "
              "in, they are all that `./run_all.sh --task` does: teacher, synthetic rows, and every student.", "",
              "| system | size, MB | seconds of training | seconds for 1,000 texts |", "|---|---|---|---|",
              *(f"| {system} | {shown(row.iloc[0], ',.1f')} | {shown(row.iloc[1], ',.0f')} | {shown(row.iloc[2], '.2f')} |"
                for system, row in costs.iterrows()), "",
              f"Measured on: {'; '.join(table['machine'].unique())}.", ""]
    return "\n".join(lines)


def main(only: list[str], out: Path, data_root: Path | None, work: Path | None) -> None:
    names = only or [name for name in ABOUT if name in TASKS or data_root]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory(prefix="synthtune-custom-data-") as place:
        for name in progress(names, desc="tasks", unit="task"):
            folder = Path(work or place, name)
            folder.mkdir(parents=True, exist_ok=True)
            own = custom.read(rows_of(name, folder, data_root))
            whole = parts.parts(own, parts.settings_of(own, folder))[0]
            made_from = {"task": whole.task.digest, "settings": whole.settings.model_dump(mode="json")}
            found.append(cached(folder / "measured.parquet", made_from, functools.partial(measure, name, own, folder)))
            table = pd.concat(found, ignore_index=True)
            out.mkdir(parents=True, exist_ok=True)
            table.to_csv(out / "custom_data.csv", index=False, float_format="%.4f")
            (out / "custom_data.md").write_text(markdown(table), "utf-8")
    print((out / "custom_data.md").read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks/custom_data", description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", default=[], choices=list(ABOUT))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--data-root", type=Path, help="folder with the official files of RTE and BANKING77, in rte/, banking77/")
    parser.add_argument("--work", type=Path, help="folder that keeps what has been measured; a second run goes on from there")
    given = parser.parse_args()
    try:
        main(given.only, given.out, given.data_root, given.work)
    except SynthtuneError as error:
        sys.exit(str(error))
