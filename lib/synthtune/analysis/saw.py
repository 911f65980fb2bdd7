"""What a notebook saw, in one paragraph whose numbers are computed from its own results."""

from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown

from synthtune import annotate, mixture
from synthtune.analysis import statistics
from synthtune.analysis.results import FINE_TUNED
from synthtune.conditions import CONDITIONS, FULL, GOLD
from synthtune.context import Context
from synthtune.metrics import METRICS
from synthtune.settings import Settings
from synthtune.tasks import Task


def _paragraph(*sentences: str) -> Markdown:
    return Markdown("**What we saw.** " + " ".join(filter(None, sentences)))


def _metric(task: Task) -> str:
    return METRICS[task.metric].in_sentences


def _examples(row: pd.Series, task: Task) -> int:
    return len(statistics.examples_of(task.task_type, row["per_example"]))


def teacher(measured: pd.DataFrame, task: Task) -> Markdown:
    """Notebook 01: the fine-tuned teacher beside the same model prompted. `measured` is what `teacher.save` returns."""
    tuned = measured[measured["system"] == FINE_TUNED].iloc[0]
    own = measured[(measured["system"] != FINE_TUNED) & (measured["model"] == tuned["model"])]
    said = (f"Fine-tuned on {tuned['budget']} gold examples, the teacher reaches {tuned[task.metric]:.1f} {_metric(task)} on "
            f"{_examples(tuned, task)} test examples.")
    if own.empty:
        return _paragraph(said)
    shots = ", ".join(f"{row[task.metric]:.1f} ({row['system'].removeprefix('prompted, ')})" for _, row in own.iterrows())
    return _paragraph(said, f"The same model, prompted, reaches {shots} on the first {_examples(own.iloc[0], task)}.")


def annotation(report: dict[str, Any], annotated: pd.DataFrame, context: Context) -> Markdown:
    """Notebook 02: how good the annotations are. `report` is what `annotate.check` returns."""
    if not report["n"]:
        return _paragraph("The whole pool is gold: nothing was left to annotate.")
    task = context.task
    if task.task_type == "classification":
        said = f"Of {report['n']:,} annotated texts {report['value']:.1f} % have the true label."
        said += f" {mixture.sentence(report['annotator'])}" if "annotator" in report else ""
        if annotated["log_probability"].isna().any():
            return _paragraph(said)
        right = annotate.reliability(annotated, context)["accuracy"]
        least, most = right.iloc[0], right.iloc[-1]
        if most <= least:
            return _paragraph(said, "Its confidence does not tell right labels from wrong ones.")
        return _paragraph(said, f"The annotator knows when it guesses: in the fifth of the texts where it is most confident {most:.0f} % "
                          f"are right, in the fifth where it is least confident {least:.0f} %.")
    said = f"The {report['n']:,} annotated texts reach {report['value']:.1f} {_metric(task)} against the true ones."
    dropped = report["n"] - report["kept"]
    if not dropped:
        return _paragraph(said, "None is dropped.")
    return _paragraph(said, f"{dropped:,} of them ({100 * dropped / report['n']:.0f} %) are dropped, as outputs with missing slots are.")


def generation(report: dict[str, Any]) -> Markdown:
    """Notebook 03: how many pairs are kept, and how new they are. `report` is what `generate.audit` returns."""
    said = f"Of {report['sampled']:,} sampled pairs {report['kept']:,} ({100 * report['kept'] / report['sampled']:.0f} %) are kept."
    reasons = sorted(report["dropped"].items(), key=lambda item: -item[1])
    why = f"The most common reason to drop one is “{reasons[0][0]}” ({reasons[0][1]:,})." if reasons else ""
    if not report["kept"]:
        return _paragraph(said, why)
    agreed = report["label_agreement"]
    return _paragraph(
        said, why, f"The annotating teacher agrees with the label that was asked for in {agreed:.0f} % of the well-formed pairs."
        if agreed is not None else "", f"Distinct-2 is {report['distinct_2']:.2f}, for gold {report['distinct_2_gold']:.2f}; a text "
        f"shares {report['longest_copied_ngram']['mean']:.1f} words in a row with a gold text on average, "
        f"{report['longest_copied_ngram']['max']} at most.")


def students(results: pd.DataFrame, task: Task, settings: Settings) -> Markdown:
    """Notebook 04: what each kind of synthetic examples adds at the smallest budget, with intervals over seeds and test examples.

    `results` is what `student.run_cells` returns.
    """
    budget, chosen = settings.budgets[0], settings.figures
    there = results[(results["budget"] == budget) & results["condition"].isin(CONDITIONS)]
    there = there[there["amount"] == there.groupby("condition")["amount"].transform("max")]
    cells = {condition: {row.seed: statistics.examples_of(task.task_type, row.per_example) for row in rows.itertuples()}
             for condition, rows in there.groupby("condition", sort=False)}
    drawn = statistics.resample(cells, chosen.resamples, settings.seed, f"saw {task.name}")
    gains = []
    for condition in [name for name in CONDITIONS if name in cells and name != GOLD]:
        gain = statistics.estimate(drawn[condition] - drawn[GOLD], chosen.confidence)
        number = int(there.loc[there["condition"] == condition, "amount"].max())
        gains.append(f"{number:,} {CONDITIONS[condition].examples} add {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})")
    full = results.loc[results["condition"] == FULL, task.metric].mean()
    ceiling = "" if np.isnan(full) else f" All {len(task.pool):,} true examples give {full:.1f}."
    base = there.loc[there["condition"] == GOLD, task.metric].mean()
    return _paragraph(f"With {budget} gold examples alone the student has {base:.1f} {_metric(task)}. In points, and with a "
                      f"{100 * chosen.confidence:g} % interval, {'; '.join(gains)}." if gains else
                      f"With {budget} gold examples alone the student has {base:.1f} {_metric(task)}; nothing was added.", ceiling.strip())


def claims(settings: Settings) -> Markdown:
    """Notebook 05: which of the paper's claims hold on the means over tasks."""
    table = pd.read_csv(settings.folder / "figures" / "claims.csv")
    means = table[table["scope"] == "mean"]
    found = [f"{verdict}: {', '.join(sorted(set(rows['claim'])))}" for verdict, rows in means.groupby("verdict")]
    return _paragraph(f"Of {len(means)} checks of the paper's claims on means over tasks, {(means['verdict'] == 'holds').sum()} hold. By "
                      f"claim ({'; '.join(found)}); a claim is listed twice where its checks differ.")
