"""P(X,Y): the fine-tuned teacher generates new pairs, which are filtered and audited (Kaddour & Liu 2023, "generation")."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synthtune import metrics, mixture, teacher
from synthtune.annotate import INCOMPLETE, NO_OUTPUT, by_label
from synthtune.context import Context
from synthtune.files import cached, read_json, write_json, write_table
from synthtune.models import decoding
from synthtune.models.language_model import LanguageModel
from synthtune.scale import workers
from synthtune.scale.workers import Shards
from synthtune.settings import Settings
from synthtune.tasks import splits

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

DISAGREES = "teacher disagrees"
# Why a sampled pair is dropped, in the order in which it is checked.
REASONS = ("empty", "unfinished", "malformed", "duplicate", "copied from gold", DISAGREES, NO_OUTPUT, INCOMPLETE)

FEWEST_WORDS = 2


def generate(generator: LanguageModel | Prompted, annotator: LanguageModel | Prompted, context: Context) -> pd.DataFrame:
    """Sample new pairs, or read the pairs that are cached with the same fingerprint.

    In classification every label is requested equally often, and the text is generated after the label. In NLG the input is
    generated first, and the output after it.

    Parameters
    ----------
    generator, annotator : LanguageModel or Prompted
        The teacher of P(X,Y) and that of P(Y|X) (`teacher.ready`).
    context : Context
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
    record, path = context.folder / "generated.json", context.folder / "generated.parquet"
    # The labels void tables of an earlier version, which lack the columns of label probabilities.
    fingerprint = {"generator_digest": generator.digest, "annotator_digest": annotator.digest,
                   "data_digest": context.task.digest, "budget": context.budget, "labels": list(context.task.labels),
                   "settings": context.settings_of("generate")}
    if record.exists() and path.exists():
        stored = read_json(record)
        if _but_for_labels(stored["made_from"]) == _but_for_labels(fingerprint) and stored["made_from"] != fingerprint:
            # Sampled and annotated outputs do not depend on which of the two is used.
            write_table(path, _labelled(pd.read_parquet(path), context), {**stored, "made_from": fingerprint})
    table = cached(path, fingerprint, lambda: _generated(generator, annotator, context))
    workers.remove_shards(context.folder, "sampled", "relabelled")
    return table


def _generated(generator: LanguageModel | Prompted, annotator: LanguageModel | Prompted, context: Context) -> pd.DataFrame:
    table = sample(generator, context)
    table["dropped"] = _malformed(table, context)
    judged = _relabelled(annotator, table, context).done(relabel_share, context, context.settings.generate.processes)
    judged = judged.set_index(table.index[table["dropped"] == ""])
    if mixture.wanted(context):
        combined = mixture.combine(judged.assign(text=table["text"]), context)
        judged = combined.rename(columns={"output": "relabelled", "log_probability": "agreement"})
    return _labelled(table.join(judged), context)


def sample_share(context: Context, rank: int, processes: int) -> None:
    """Do one process's share of sampling, with the teacher that this run has fine-tuned."""
    lm = teacher.base(context.settings)
    _sampled(teacher.ready(lm, context, "generate", copied=False), context).do(rank, processes)


def relabel_share(context: Context, rank: int, processes: int) -> None:
    """Do one process's share of annotating what has been sampled."""
    lm = teacher.base(context.settings)
    # Only the generator's digest matters here: its texts are already on disk.
    made = teacher.trained(lm, context, "generate")
    table = _sampled(replace(lm, digest=made.digest) if isinstance(made, teacher.Adapter) else made, context).union()
    table["dropped"] = _malformed(table, context)
    _relabelled(teacher.ready(lm, context, "annotate", copied=False), table, context).do(rank, processes)


def _relabelled(annotator: LanguageModel | Prompted, table: pd.DataFrame, context: Context) -> Shards:
    """The annotator's output for every pair that is well formed, and its log-probability."""
    texts = list(table.loc[table["dropped"] == "", "text"])

    def make(_number: int, part: Sequence[str], doing: str) -> pd.DataFrame:
        outputs, log_probabilities, scores = [], [], None
        if part:
            outputs, log_probabilities, scores = teacher.answers(annotator, context, list(part), description=doing)
        judged = pd.DataFrame({"relabelled": pd.Series(outputs, dtype=object), "agreement": pd.Series(log_probabilities, dtype=float)})
        return judged if scores is None else judged.assign(**by_label(context.task, scores))

    fingerprint = {"annotator": annotator.digest, "texts": texts, "settings": context.settings_of("generate")}
    return Shards(texts, _size(annotator, context.settings), context.folder, "relabelled", fingerprint, make, "relabel")


def _but_for_labels(made_from: dict) -> dict:
    settings = made_from["settings"]
    return {**made_from, "settings": {**settings, "generate": {**settings["generate"], "labels": None},
                                      "annotate": {**settings["annotate"], "outputs": None}}}


def _labelled(table: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Choose the output to train on; drop pairs that the annotator disagrees with, or that have missing slots."""
    task, settings = context.task, context.settings
    labels = settings.generate.labels
    judged = table["relabelled"].notna()
    table["dropped"] = table["dropped"].replace([DISAGREES, NO_OUTPUT, INCOMPLETE], "")
    table["output"] = table["relabelled"] if labels == "relabelled" else table["sampled"]
    if labels == "filtered":
        table.loc[judged & (table["relabelled"] != table["sampled"]), "dropped"] = DISAGREES
    if settings.annotate.outputs == "complete":
        for row in table[table["dropped"] == ""].itertuples():
            if task.missing_slots(row.text, row.output):
                whole = labels == "relabelled" and not task.missing_slots(row.text, row.sampled)
                table.loc[row.Index, ["output", "dropped"]] = (row.sampled, "") if whole else (row.output, INCOMPLETE)
    table.loc[(table["dropped"] == "") & (table["output"].str.strip() == ""), "dropped"] = NO_OUTPUT
    return table


def sample(generator: LanguageModel | Prompted, context: Context) -> pd.DataFrame:
    """Sample new pairs: what `generate` begins with. They are kept until `generate` has annotated and kept them."""
    return _sampled(generator, context).done(sample_share, context, context.settings.generate.processes)


def _sampled(generator: LanguageModel | Prompted, context: Context) -> Shards:
    """The generator's samples: text, output, log-probability, and whether the model ended the text itself."""
    task, settings, chosen = context.task, context.settings, context.settings.generate
    seed = context.seed("sample")

    def make(number: int, part: Sequence[int], doing: str) -> pd.DataFrame:
        if not isinstance(generator, LanguageModel):
            return generator.pairs(len(part))
        labels = [task.labels[place % len(task.labels)] for place in part] if task.labels else None
        prompts = [teacher.generation_prompt(task, label) for label in labels or [None] * len(part)]
        prefix, prompts = teacher.addressed(generator, context, prompts)
        generated, sums, finished = decoding.decode(
            generator, prompts, chosen.max_new_tokens, prefix, batch_size=chosen.batch_size, temperature=chosen.temperature,
            top_p=chosen.top_p, seed=seed + number, engine=chosen.engine, description=doing)
        if task.task_type == "classification":
            # A line break means that the generator went on to another example.
            whole = [text.split("\n")[0].strip() for text in generated]
            texts, outputs = [splits.cut(text, settings.max_characters) for text in whole], labels
            # The task cuts its own texts at this length, so a sample that reaches it counts as finished.
            finished = [done or len(text) > settings.max_characters for done, text in zip(finished, whole, strict=True)]
        else:
            divided = [text.partition(f"\n{task.template.output}:") for text in generated]
            texts, outputs = [pieces[0].strip() for pieces in divided], [pieces[2].strip() for pieces in divided]
        return pd.DataFrame({"text": texts, "sampled": outputs, "log_probability": sums, "finished": finished})

    fingerprint = {"generator": generator.digest, "task": task.digest, "budget": context.budget,
                   "settings": context.settings_of("generate")}
    return Shards(range(chosen.pairs), _size(generator, settings), context.folder, "sampled", fingerprint, make, "generate")


def _size(lm: LanguageModel | Prompted, settings: Settings) -> int | None:
    """Pairs a shard; all in one where answers are kept one by one."""
    return settings.generate.shard_size if isinstance(lm, LanguageModel) else None


def _malformed(table: pd.DataFrame, context: Context) -> list[str]:
    """Reason to drop each pair before the annotator sees it, or ""."""
    task, gold = context.task, {splits.normalised(example.text) for example in context.gold}
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
    if task.task_type == "classification":
        texts = list(table["text"])
        near = splits.near_duplicates([texts[number] for number in clean], [example.text for example in context.gold])
        for number, copied in zip(clean, near, strict=True):
            if copied:
                reasons[number] = "copied from gold"
    return reasons


def audit(generated: pd.DataFrame, generator: LanguageModel | Prompted, context: Context) -> dict:
    """Count what was dropped and measure diversity, novelty and label agreement; write `generation.json`.

    Distinct-n (Li et al. 2016) and self-BLEU (Zhu et al. 2018) measure diversity, on equally many generated and gold
    texts. The longest sequence of words that a text shares with a gold text measures novelty.
    """
    task, settings = context.task, context.settings
    kept = generated[generated["dropped"] == ""]
    texts, gold = list(kept["text"]), [example.text for example in context.gold]
    seed = context.seed("audit")
    same_number = random.Random(seed).sample(texts, min(len(texts), len(gold)))
    copied = metrics.longest_copied_ngram(texts, gold)
    judged = generated[generated["relabelled"].notna()]
    counts = Counter(generated.loc[generated["dropped"] != "", "dropped"])
    report = {
        "task": task.name, "budget": context.budget, "requested": settings.generate.pairs, "sampled": len(generated),
        "kept": len(kept), "dropped": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "distinct_1": metrics.distinct_n(same_number, 1), "distinct_2": metrics.distinct_n(same_number, 2),
        "distinct_1_gold": metrics.distinct_n(gold, 1), "distinct_2_gold": metrics.distinct_n(gold, 2),
        "self_bleu": metrics.self_bleu(same_number, seed), "self_bleu_gold": metrics.self_bleu(gold, seed),
        "longest_copied_ngram": {"mean": float(np.mean(copied or [0])), "max": int(max(copied, default=0))},
        "label_agreement": 100.0 * float((judged["relabelled"] == judged["sampled"]).mean())
        if task.task_type == "classification" and len(judged) else None,
        "by_label": dict(Counter(kept["output"])) if task.task_type == "classification" else {},
        "temperature": settings.generate.temperature, "top_p": settings.generate.top_p,
        "labels": settings.generate.labels, "seconds": read_json(context.folder / "generated.json")["seconds"],
        "model_digest": generator.digest, **context.digests("generate")}
    write_json(context.folder / "generation.json", report)
    return report


def examples_of(table: pd.DataFrame, per_output: int = 3, seed: int = 0) -> pd.DataFrame:
    """A few kept pairs to show in a notebook, some for every label."""
    kept = table[table["dropped"] == ""].assign(words=lambda rows: rows["text"].str.split().str.len())
    kept = kept[kept["words"].between(4, 30)]
    if kept["output"].nunique() > max(10, len(kept) // 10):
        return kept.sample(min(len(kept), 2 * per_output), random_state=seed)[["text", "output"]]
    return (kept.sample(frac=1, random_state=seed).groupby("output").head(per_output)
            .sort_values("output", kind="stable")[["text", "output"]].reset_index(drop=True))
