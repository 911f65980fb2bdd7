"""report.html of a custom task: did synthetic data help, by how much, and what to do next."""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from synthtune import __version__, metrics, mixture
from synthtune.analysis import figures, report
from synthtune.conditions import CONDITIONS, GOLD
from synthtune.custom.baselines import NEAREST, SETFIT, TFIDF
from synthtune.custom.parts import cut_in_words
from synthtune.custom.report import printable
from synthtune.custom.study import TEACHER, Outcome

# Labels up to which confusions are drawn as a matrix; of more, the commonest are listed.
SHOWN_LABELS = 20

# Characters of a text that the page shows.
SHOWN_CHARACTERS = 300

BASELINES = (TFIDF, SETFIT, NEAREST)

_COLOURS = {TEACHER: "#D55E00", TFIDF: "#777777", NEAREST: "#777777", SETFIT: "#56B4E9"}


def metric_name(outcome: Outcome) -> str:
    """Name of the metric, as sentences use it."""
    return metrics.METRICS[outcome.whole.task.metric].title


def verdict(outcome: Outcome) -> str:
    """Did synthetic data help, and is the model what to use? A few sentences with the numbers."""
    return f"{instead(outcome)} {_helped(outcome)}".strip()


def instead(outcome: Outcome) -> str:
    """A sentence on the baseline that is clearly better than the model; empty if there is none."""
    tried = outcome.scores[outcome.scores["system"].isin(BASELINES) & (outcome.scores["lead_low"] > 0)]
    if not len(tried):
        return ""
    best = tried.loc[tried["value"].idxmax()]
    return (f"Use another model: {best['system']}, trained on the labelled rows alone, reaches {best['value']:.1f} on the rows held "
            f"out, and the model made here {outcome.score(outcome.winner)['value']:.1f}.")


def _helped(outcome: Outcome) -> str:
    unit = "points of accuracy" if outcome.own.task_type == "classification" else "BLEU points"
    gold, best = outcome.score(GOLD)["value"], outcome.score(outcome.winner)
    if outcome.verdict == "does not help":
        return (f"Synthetic data does not help here: no condition is better on average than the labelled rows alone "
                f"({gold:.1f}). The model is trained on the labelled rows only.")
    gain, low, high = best[["gain", "gain_low", "gain_high"]] - outcome.optimism
    said = (f"{gold:.1f} with the labelled rows alone, {gold + gain:.1f} with {outcome.winner.removeprefix('gold+')} rows added: "
            f"{gain:+.1f} {unit} ({low:+.1f} to {high:+.1f})")
    said += f", corrected by {-outcome.optimism:.1f} for choosing it on the same rows" if round(outcome.optimism, 1) else ""
    if outcome.verdict == "helps":
        return f"Synthetic data helps: {said}."
    return (f"Whether synthetic data helps is not decided: {said}. The interval includes zero; the model is the one that was "
            "better on average.")


def advice(scores: pd.DataFrame, winner: str) -> list[str]:
    """What the scores of the teacher and of what a user would try first mean for the model that is shipped."""
    of, found = scores.set_index("system")["value"], []
    gold, best = of[GOLD], of[winner]
    if of[TEACHER] <= gold:
        found.append(f"The teacher itself reaches {of[TEACHER]:.1f}, no more than the small model that learned from your rows alone "
                     f"({gold:.1f}): rows that it labels or writes have little to teach. A larger teacher (teacher.model) or more "
                     "labelled rows are worth more here than more synthetic ones.")
    elif of[TEACHER] > best:
        found.append(f"The teacher itself reaches {of[TEACHER]:.1f}, the model {best:.1f}: more annotated rows (annotate.inputs, "
                     "with more unlabelled rows in your file) may bring it closer.")
    better = of[[name for name in BASELINES if name in of.index and of[name] > best]]
    if len(better):
        found.append(f"{better.idxmax()} reaches {better.max():.1f} on the same rows, more than the model's {best:.1f}, and takes no "
                     "teacher: consider it instead.")
    return found


def nothing_kept(rows: pd.DataFrame) -> list[str]:
    """Name each route of which no row was kept, and why."""
    return [f"None of the {len(group):,} {source} rows was kept ({_reasons(group)}), so that there is no condition with them."
            for source, group in rows.groupby("source", sort=False) if (group["dropped"] != "").all()]


def html(outcome: Outcome, rows: pd.DataFrame, predicted: pd.DataFrame, to_label: pd.DataFrame) -> str:
    """The page, with everything it shows inside; what texts and labels hold is shown and not run as HTML."""
    own, number = outcome.own, outcome.settings.custom.examples
    classification = own.task_type == "classification"
    return report.rendered(
        "page.html.jinja",
        outcome=outcome, own=own, verdict=verdict(outcome), metric=metric_name(outcome),
        confidence=f"{100 * outcome.settings.figures.confidence:g} %", picture=_svg(scores_picture(outcome)), scores=_scores(outcome),
        labels=_labels(outcome) if classification else None, reliability=_reliability(outcome),
        confusion=_svg(confusion_picture(outcome)) if classification and len(own.labels) <= SHOWN_LABELS else None,
        confused=_confused(outcome) if classification and len(own.labels) > SHOWN_LABELS else None,
        **{name: _shown(outcome.tested.sort_values("confidence", ascending=name == "least", kind="stable").head(number),
                        "text", "truth", "predicted", "confidence") for name in ("surest", "least")},
        annotator=annotator(outcome), counts=_counts(rows),
        synthetic=_shown(_generated(rows, number), "text", "output", "asked for"),
        dropped=_shown(rows[rows["dropped"] != ""].groupby(["source", "dropped"], sort=False).head(2).head(number),
                       "source", "why", "text", "output"),
        advice=[*nothing_kept(rows), *advice(outcome.scores, outcome.winner)], optimism=f"{outcome.optimism:.1f}",
        to_label=_shown(to_label, "row", "text", "predicted", "confidence") if len(to_label) else None, predicted=len(predicted),
        cut=cut_in_words(own, outcome.settings), covered=covered(outcome), version=__version__,
        settings=outcome.settings.model_dump_json(indent=1, exclude={"run_dir", "plan", "cluster", "per_task", "data_root"}))


def annotator(outcome: Outcome) -> str:
    """Who labelled the synthetic rows, where it is not the teacher alone; "" where there are none to label."""
    whole = outcome.whole
    labelled = len(outcome.annotated) or outcome.generated["relabelled"].notna().any()
    if not labelled or not mixture.wanted(whole):
        return ""
    return mixture.sentence(mixture.weigh(whole))


def covered(outcome: Outcome) -> str:
    """What chance the intervals take into account, and what they do not."""
    seeds = int(outcome.scores["seeds"].max())
    over = f" and over the {seeds} seeds of each student" if seeds > 1 else ""
    fixed = [*([] if len(outcome.own.test) else ["another division of the rows into folds"]),
             *([] if seeds > 1 else ["another seed of a student (each was trained once)"]), "another training of the teachers"]
    return f"The intervals are of a bootstrap over those rows{over}; what {' or '.join(fixed)} would give is not in them."


def _scores(outcome: Outcome) -> list[list[Any]]:
    macro = ["macro-F1"] if outcome.own.task_type == "classification" else []
    table = [["system", metric_name(outcome), "interval", *macro, "against gold alone", "interval"]]
    for row in outcome.scores.itertuples():
        gain = ("", "") if np.isnan(row.gain) else (f"{row.gain:+.1f}", f"{row.gain_low:+.1f} to {row.gain_high:+.1f}")
        table.append([row.system, f"{row.value:.1f}", f"{row.low:.1f} to {row.high:.1f}", *(f"{row.macro_f1:.1f}" for _ in macro), *gain])
    return table


def scores_picture(outcome: Outcome) -> Figure:
    """A dot with its interval for each system, those of students apart from what they are compared with."""
    shown = outcome.scores.iloc[::-1]
    with figures.style():
        figure = Figure(figsize=(figures.WIDTH, 0.27 * len(shown) + 0.6), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(shown.itertuples()):
            student = row.system in CONDITIONS
            axes.errorbar([row.value], [place], xerr=[[row.value - row.low], [row.high - row.value]], capsize=2, elinewidth=1,
                          markersize=7 if row.system == outcome.winner else 5, linestyle="",
                          marker=CONDITIONS[row.system].marker if student else "x",
                          color=CONDITIONS[row.system].color if student else _COLOURS[row.system])
        axes.set_yticks(range(len(shown)), [f"{system}, shipped" if system == outcome.winner else system for system in shown["system"]])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel(f"{metric_name(outcome)} on rows held out ({'percent' if outcome.own.labels else '0 to 100'})")
        axes.grid(axis="y", visible=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def confusion_picture(outcome: Outcome) -> Figure:
    """Rows: true labels; columns: what the winner said; numbers of rows held out."""
    labels = list(outcome.own.labels)
    counts = confusion_matrix(outcome.tested["truth"], outcome.tested["predicted"], labels=labels)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = min(figures.WIDTH, 1.8 + 0.36 * len(labels))
    with figures.style():
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.add_subplot()
        names = [printable(_cut(label, 24)).replace("$", r"\$") for label in labels]  # a bare $ would start a formula
        seaborn.heatmap(shares, vmin=0, vmax=1, cmap="Blues", cbar=False, square=True, annot=np.where(counts, counts.astype(str), ""),
                        fmt="", annot_kws={"fontsize": 7}, xticklabels=names, yticklabels=names, ax=axes)
        axes.set_xticks(axes.get_xticks(), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set(xlabel="predicted", ylabel="true label")
    return figure


def _svg(figure: Figure) -> str:
    with figures.style():
        page = io.BytesIO()
        figure.savefig(page, format="svg", metadata={"Date": None})
    return base64.b64encode(page.getvalue()).decode("ascii")


def _labels(outcome: Outcome) -> list[list[Any]]:
    tested, mark = outcome.tested, outcome.own.columns.separator
    labels = metrics.classes_of(outcome.own.labels, mark)
    sets = {column: metrics.label_sets(tested[column], labels, mark) for column in ("truth", "predicted", "by_gold")}
    measured = {column: precision_recall_fscore_support(sets["truth"], sets[column], zero_division=0) for column in sets}
    table = [["label", "labelled rows", "rows held out", "precision", "recall", "F1", "F1 of gold alone"]]
    for place, (label, number) in enumerate(zip(labels, measured["predicted"][3], strict=True)):
        shares = [measured["predicted"][of][place] for of in range(3)] + [measured["by_gold"][2][place]]
        table.append([label, outcome.own.report.labels[label], int(number), *(f"{100 * share:.0f}" for share in shares)])
    return table


def _confused(outcome: Outcome) -> list[list[Any]]:
    wrong = outcome.tested[outcome.tested["truth"] != outcome.tested["predicted"]]
    counts = wrong[["truth", "predicted"]].value_counts().head(SHOWN_LABELS)
    return [["true label", "predicted", "rows"], *([*pair, number] for pair, number in counts.items())]


def _reliability(outcome: Outcome, bins: int = 5) -> list[list[Any]]:
    tested = outcome.tested
    bins = min(bins, len(tested))
    groups = tested.groupby(pd.qcut(tested["confidence"].rank(method="first"), bins, labels=False))
    return [["rows held out", "mean confidence", "right" if outcome.own.task_type == "classification" else "mean chrF"],
            *([len(group), *(f"{100 * group[name].mean():.0f} %" for name in ("confidence", "quality"))] for _, group in groups)]


def _counts(rows: pd.DataFrame) -> list[list[Any]]:
    return [["source", "rows", "kept", "in the model", "dropped"],
            *([source, len(group), int((group["dropped"] == "").sum()), int(group["used"].sum()), _reasons(group)]
              for source, group in rows.groupby("source", sort=False))]


def _reasons(rows: pd.DataFrame) -> str:
    return "; ".join(f"{number:,} {reason}" for reason, number in rows.loc[rows["dropped"] != "", "dropped"].value_counts().items())


def _generated(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """Some generated rows, of as many outputs as there are."""
    kept = rows[(rows["source"] == "generated") & (rows["dropped"] == "")]
    spread = kept.groupby("output", sort=False).cumcount().sort_values(kind="stable").index if len(kept) else kept.index
    return kept.loc[spread].head(number)


def _shown(rows: pd.DataFrame, *header: str) -> list[list[Any]]:
    """Rows as a table with these columns; both texts of a pair are in one, and long ones are cut."""
    return [list(header), *([_cell(row, name) for name in header] for _, row in rows.iterrows())]


def _cell(row: pd.Series, name: str) -> Any:
    if name == "row":
        return int(row[name])
    if name == "confidence":
        return f"{100 * row[name]:.0f} %"
    if name == "text":
        return _cut(" | ".join(row[each] for each in ("text", "text_pair") if isinstance(row.get(each), str)))
    return _cut(row[{"why": "dropped", "asked for": "asked_for"}.get(name, name)])


def _cut(text: Any, most: int = SHOWN_CHARACTERS) -> str:
    text = text if isinstance(text, str) else ""
    return text if len(text) <= most else f"{text[: most - 1]}…"
