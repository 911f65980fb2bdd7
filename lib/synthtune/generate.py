"""P(X,Y): the fine-tuned teacher generates new pairs, which are filtered and audited (Kaddour & Liu 2023, "generation")."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synthtune import mixture, teacher
from synthtune.analysis import metrics
from synthtune.annotate import INCOMPLETE, NO_OUTPUT, by_label
from synthtune.files import read_json, write_json, write_table
from synthtune.models import language_model
from synthtune.models.language_model import LanguageModel
from synthtune.scale import workers
from synthtune.scale.workers import Shards
from synthtune.settings import Settings
from synthtune.tasks import Task, seed_for, splits

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

DISAGREES = "teacher disagrees"
REASONS = ("empty", "unfinished", "malformed", "duplicate", "copied from gold", DISAGREES, NO_OUTPUT, INCOMPLETE)
"""Why a sampled pair is dropped, in the order in which it is checked."""

FEWEST_WORDS = 2


def generate(generator: LanguageModel | Prompted, annotator: LanguageModel | Prompted, task: Task, budget: int,
             settings: Settings) -> pd.DataFrame:
    """Sample new pairs, or read the pairs of this run if they are cached with the same fingerprint.

    In classification every label is requested equally often, and the text is generated after the label. In NLG the input is
    generated first, and the output after it.

    Parameters
    ----------
    generator, annotator : LanguageModel or Prompted
        The teacher of P(X,Y) and that of P(Y|X) (`teacher.ready`).
    task : Task
    budget : int
    settings : Settings
        `settings.generate.labels` says which output a kept pair has: the sampled one ("raw"), the sampled one where
        the annotator agrees ("filtered"), or the annotator's ("relabelled"). With `settings.annotate.outputs`
        "complete", an NLG output with missing slots is not used: the sampled output replaces the annotator's if it is
        complete, and the pair is dropped if neither is.

    Returns
    -------
    DataFrame
        Every sampled pair, in the order of sampling: text, sampled (the generator's output), relabelled (the
        annotator's), output (the one to train on), log_probability (of the sample, in nats), agreement (annotator's
        log-probability of its own output; both NaN from a prompted model), dropped (a reason, or "") and, for
        classification, one column `log P(label)` per
        label: the annotator's distribution.
    """
    settings = settings.check(task.name, budget)
    folder = settings.folder_of(task.name, budget)
    # The labels void tables of an earlier version, which lack the columns of label probabilities.
    made_from = {"generator_digest": generator.digest, "annotator_digest": annotator.digest,
                 "data_digest": task.digest, "budget": budget, "labels": list(task.labels),
                 "settings": settings.for_stage("generate", task.name)}
    record, kept = folder / "generated.json", folder / "generated.parquet"
    if record.exists() and kept.exists():
        stored = read_json(record)
        if stored["made_from"] == made_from:
            return pd.read_parquet(kept)
        if _but_for_labels(stored["made_from"]) == _but_for_labels(made_from):
            # Sampled and annotated outputs do not depend on which of the two is used.
            table, seconds = _labelled(pd.read_parquet(kept), task, settings), stored["seconds"]
            write_table(kept, table, {"made_from": made_from, "seconds": seconds})
            return table
    start = time.perf_counter()
    table = _sample(generator, task, budget, settings)
    table["dropped"] = _malformed(table, task, budget)
    relabelled = _relabelled(annotator, table, task, budget, settings)
    judged = relabelled.done("relabel", task.name, budget, settings, settings.generate.processes)
    valid = table["dropped"] == ""
    judged = judged.set_index(table.index[valid])
    if mixture.wanted(task, settings):
        mixed = mixture.combine(judged.assign(text=table["text"]), task, budget, settings)
        judged = mixed.rename(columns={"output": "relabelled", "log_probability": "agreement"})
    table = table.join(judged)
    table = _labelled(table, task, settings)
    write_table(kept, table, {"made_from": made_from, "seconds": round(time.perf_counter() - start, 2)})
    for shards in (_sampled(generator, task, budget, settings), relabelled):
        shards.remove()
    return table


def generate_share(stage: workers.Stage, task: Task, budget: int, settings: Settings, rank: int, processes: int) -> None:
    """Do one process's share of sampling or relabelling, with the teachers that this run has fine-tuned."""
    settings = settings.check(task.name, budget)
    lm = language_model.load(settings.teacher.model, settings.format)
    prompted = settings.generate.source == "endpoint"
    generating = (teacher.ready if prompted else teacher.fine_tune)(lm, task, budget, "generate", settings)
    if stage == "sample":
        generator = teacher.with_adapter(lm, generating, copied=False)
        _sampled(generator, task, budget, settings).do(rank, processes)
        return
    annotating = teacher.fine_tune(lm, task, budget, "annotate", settings)
    # Only the generator's digest matters here: its texts are already on disk.
    table = _sampled(replace(lm, digest=generating.digest), task, budget, settings).union()
    table["dropped"] = _malformed(table, task, budget)
    annotator = teacher.with_adapter(lm, annotating, copied=False)
    _relabelled(annotator, table, task, budget, settings).do(rank, processes)


def _relabelled(annotator: LanguageModel | Prompted, table: pd.DataFrame, task: Task, budget: int, settings: Settings) -> Shards:
    """The annotator's output for every pair that is well formed, and its log-probability."""
    texts = list(table.loc[table["dropped"] == "", "text"])

    def make(_number: int, part: Sequence[str], doing: str) -> pd.DataFrame:
        outputs, log_probabilities, scores = [], [], None
        if part:
            outputs, log_probabilities, scores = teacher.answers(annotator, task, list(part), settings, description=doing)
        judged = pd.DataFrame({"relabelled": pd.Series(outputs, dtype=object),
                               "agreement": pd.Series(log_probabilities, dtype=float)})
        return judged if scores is None else judged.assign(**by_label(task, scores))

    made_from = {"annotator": annotator.digest, "texts": texts, "settings": settings.for_stage("generate", task.name)}
    return Shards.of(texts, _size(annotator, settings), settings.folder_of(task.name, budget), "relabelled",
                     made_from, make, "relabel")


def _but_for_labels(made_from: dict) -> dict:
    settings = made_from["settings"]
    return {**made_from, "settings": {**settings, "generate": {**settings["generate"], "labels": None},
                                      "annotate": {**settings["annotate"], "outputs": None}}}


def _labelled(table: pd.DataFrame, task: Task, settings: Settings) -> pd.DataFrame:
    """Choose the output to train on; drop pairs that the annotator disagrees with, or that have missing slots."""
    labels = settings.generate.labels
    judged = table["relabelled"].notna()
    table["dropped"] = table["dropped"].replace([DISAGREES, NO_OUTPUT, INCOMPLETE], "")
    table["output"] = table["relabelled"] if labels == "relabelled" else table["sampled"]
    if labels == "filtered":
        table.loc[judged & (table["relabelled"] != table["sampled"]), "dropped"] = DISAGREES
    if settings.annotate.outputs == "complete":
        for row in table[table["dropped"] == ""].itertuples():
            if task.left_out(row.text, row.output):
                whole = labels == "relabelled" and not task.left_out(row.text, row.sampled)
                table.loc[row.Index, ["output", "dropped"]] = (row.sampled, "") if whole else (row.output, INCOMPLETE)
    table.loc[(table["dropped"] == "") & (table["output"].str.strip() == ""), "dropped"] = NO_OUTPUT
    return table


def _sample(generator: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> pd.DataFrame:
    return _sampled(generator, task, budget, settings).done("sample", task.name, budget, settings,
                                                           settings.generate.processes)


def _sampled(generator: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> Shards:
    """The generator's samples: text, output, log-probability, and whether the model ended the text itself."""
    chosen = settings.generate
    seed = seed_for(settings, task.name, budget, "sample")

    def make(number: int, part: Sequence[int], doing: str) -> pd.DataFrame:
        if not isinstance(generator, LanguageModel):
            return generator.pairs(len(part))
        labels = [task.labels[place % len(task.labels)] for place in part] if task.labels else None
        prompts = [teacher.generation_prompt(task, label) for label in labels or [None] * len(part)]
        written, sums, finished = language_model.write(
            generator, prompts, chosen.max_new_tokens, batch_size=chosen.batch_size, temperature=chosen.temperature,
            top_p=chosen.top_p, seed=seed + number, engine=chosen.engine, description=doing)
        if task.kind == "classification":
            # A line break means that the generator went on to another example.
            whole = [text.split("\n")[0].strip() for text in written]
            texts, outputs = [splits.cut(text, settings.max_characters) for text in whole], labels
            # The task cuts its own texts at this length, so a sample that reaches it counts as finished.
            finished = [done or len(text) > settings.max_characters for done, text in zip(finished, whole, strict=True)]
        else:
            divided = [text.partition(f"\n{task.wording.output}:") for text in written]
            texts, outputs = [pieces[0].strip() for pieces in divided], [pieces[2].strip() for pieces in divided]
        return pd.DataFrame({"text": texts, "sampled": outputs, "log_probability": sums, "finished": finished})

    made_from = {"generator": generator.digest, "task": task.digest, "budget": budget,
                 "settings": settings.for_stage("generate", task.name)}
    return Shards.of(range(chosen.pairs), _size(generator, settings), settings.folder_of(task.name, budget), "sampled",
                     made_from, make, "generate")


def _size(lm: LanguageModel | Prompted, settings: Settings) -> int | None:
    """Pairs a shard; all in one where answers are kept one by one."""
    return settings.generate.shard_size if isinstance(lm, LanguageModel) else None


def _malformed(table: pd.DataFrame, task: Task, budget: int) -> list[str]:
    """Reason to drop each pair before the annotator sees it, or ""."""
    gold = {splits.normalised(example.text) for example in task.gold(budget)}
    seen, reasons = set(), []
    for text, output, finished in zip(table["text"], table["sampled"], table["finished"], strict=True):
        form = splits.normalised(text)
        if pd.isna(output):  # of a prompted model
            reasons.append("malformed")
        elif len(form.split()) < FEWEST_WORDS or not output:
            reasons.append("empty" if finished else "unfinished")
        elif not finished:
            reasons.append("unfinished")
        elif "\n" in text or "\n" in output or not task.is_input(text):
            reasons.append("malformed")
        elif form in gold:
            reasons.append("copied from gold")
        elif form in seen:
            reasons.append("duplicate")
        else:
            reasons.append("")
        seen.add(form)
    # Near-duplicates of gold count as copied as well: the student would see the same sentence twice.
    clean = [number for number, reason in enumerate(reasons) if not reason]
    if task.kind == "classification":
        texts = list(table["text"])
        near = splits.near_duplicates([texts[number] for number in clean],
                                      [example.text for example in task.gold(budget)])
        for number, copied in zip(clean, near, strict=True):
            if copied:
                reasons[number] = "copied from gold"
    return reasons


def audit(generated: pd.DataFrame, generator: LanguageModel | Prompted, task: Task, budget: int, settings: Settings) -> dict:
    """Count what was dropped and measure diversity, novelty and label agreement; write `generation.json`.

    Distinct-n (Li et al. 2016) and self-BLEU (Zhu et al. 2018) measure diversity, on equally many generated and gold
    texts. The longest sequence of words that a text shares with a gold text measures novelty.
    """
    settings = settings.check(task.name, budget)
    folder = settings.folder_of(task.name, budget)
    kept = generated[generated["dropped"] == ""]
    texts, gold = list(kept["text"]), [example.text for example in task.gold(budget)]
    seed = seed_for(settings, task.name, budget, "audit")
    same_number = random.Random(seed).sample(texts, min(len(texts), len(gold)))
    copied = metrics.longest_copied_ngram(texts, gold)
    judged = generated[generated["relabelled"].notna()]
    counts = Counter(generated.loc[generated["dropped"] != "", "dropped"])
    report = {
        "task": task.name, "budget": budget, "requested": settings.generate.pairs, "sampled": len(generated),
        "kept": len(kept), "dropped": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "distinct_1": metrics.distinct_n(same_number, 1), "distinct_2": metrics.distinct_n(same_number, 2),
        "distinct_1_gold": metrics.distinct_n(gold, 1), "distinct_2_gold": metrics.distinct_n(gold, 2),
        "self_bleu": metrics.self_bleu(same_number, seed), "self_bleu_gold": metrics.self_bleu(gold, seed),
        "longest_copied_ngram": {"mean": float(np.mean(copied or [0])), "max": int(max(copied, default=0))},
        "label_agreement": 100.0 * float((judged["relabelled"] == judged["sampled"]).mean())
        if task.kind == "classification" and len(judged) else None,
        "by_label": dict(Counter(kept["output"])) if task.kind == "classification" else {},
        "temperature": settings.generate.temperature, "top_p": settings.generate.top_p,
        "labels": settings.generate.labels, "seconds": read_json(folder / "generated.json")["seconds"],
        "model_digest": generator.digest, "data_digest": task.digest,
        "settings_digest": settings.stage_digest("generate", task.name, budget)}
    write_json(folder / "generation.json", report)
    return report


def examples_of(table: pd.DataFrame, per_output: int = 3, seed: int = 0) -> pd.DataFrame:
    """A few kept pairs to show in a notebook, some for every label."""
    kept = table[table["dropped"] == ""].assign(words=lambda rows: rows["text"].str.split().str.len())
    kept = kept[kept["words"].between(4, 30)]
    if kept["output"].nunique() > max(10, len(kept) // 10):
        return kept.sample(min(len(kept), 2 * per_output), random_state=seed)[["text", "output"]]
    return (kept.sample(frac=1, random_state=seed).groupby("output").head(per_output)
            .sort_values("output", kind="stable")[["text", "output"]].reset_index(drop=True))
