"""What notebooks display: tables, whose texts are escaped and not interpreted as HTML, and small plots."""

import html
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthtune import annotate, teacher
from synthtune.analysis import figures
from synthtune.analysis.results import Results, lowered
from synthtune.context import Context
from synthtune.metrics import METRICS
from synthtune.models.language_model import LanguageModel
from synthtune.settings import Settings
from synthtune.tasks import Example, Task
from synthtune.teacher import Adapter

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#777777"


def table(rows: pd.DataFrame | list[dict], digits: int = 1) -> None:
    """Show rows as a table: texts escaped and whole, line ends marked ⏎, numbers rounded, no empty columns.

    Parameters
    ----------
    rows : DataFrame or list of dict
    digits : int
        Digits after the point of numbers that are not whole.
    """
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    if frame.empty:
        display({"text/markdown": "*Nothing.*", "text/plain": "Nothing."}, raw=True)
        return
    right = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    shown = frame.map(lambda value: _cell(value, digits)).rename(columns=lambda name: str(name).replace("_", " "))
    lines = [_html_row("th", shown.columns, right), *(_html_row("td", row, right) for row in shown.itertuples(index=False))]
    display({"text/html": "<table>\n" + "\n".join(lines) + "\n</table>", "text/plain": shown.to_string(index=False)}, raw=True)


def _html_row(tag: str, cells: Iterable[str], right: list[bool]) -> str:
    """A row of a table, numbers aligned right. Some viewers also align text right unless told otherwise."""
    row = "".join(f'<{tag} style="text-align: {"right" if number else "left"}">{html.escape(cell)}</{tag}>'
                  for cell, number in zip(cells, right, strict=True))
    return f"<tr>{row}</tr>"


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\n", " ⏎ ")
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else f"{value:,.{digits}f}"
    return str(value)


def facts(record: dict[str, Any], digits: int = 1) -> None:
    """Show a record as a table of two columns; entries that are records themselves on one line."""
    rows = []
    for name, value in record.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {_cell(entry, digits)}" for key, entry in value.items())
        if value not in (None, ""):
            rows.append({"what": name.replace("_", " "), "value": _cell(value, digits)})
    table(rows)


def picture(figure: Figure, alt: str) -> Image:
    """A figure as a PNG at its print size, which every viewer can display, with alternative text."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200, bbox_inches="tight", facecolor="white")
    return Image(png.getvalue(), width=int(110 * figure.get_size_inches()[0]), alt=alt)


def _small_axes(width: float = 4.2, height: float = 2.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.5)
    return figure, axes


def losses(adapters: dict[str, Adapter]) -> Image:
    """Training loss of adapters, given by objective, at each step, with the mean of each epoch as a thick line."""
    names_of = {"annotate": "annotate, P(Y|X)", "generate": "generate, P(X,Y)"}
    figure, axes = _small_axes(5.2)
    for (name, adapter), color in zip(adapters.items(), (BLUE, GREEN), strict=False):
        steps = adapter.losses
        axes.plot(steps["step"], steps["loss"], color=color, linewidth=0.7, alpha=0.6)
        epochs = steps.groupby("epoch").agg(first=("step", "min"), last=("step", "max"), loss=("loss", "mean"))
        axes.hlines(epochs["loss"], epochs["first"] - 0.5, epochs["last"] + 0.5, color=color, linewidth=2, label=names_of[name])
    axes.legend(frameon=False)
    axes.set(xlabel="optimizer step", ylabel="loss a target token (nats)", ylim=(0, None))
    return picture(figure, "Training loss of the teacher against optimizer steps, one line for each objective.")


def label_shares(shares: dict[str, pd.Series]) -> Image:
    """Share of each label in several sets of examples, in percent, side by side."""
    shares = {name: 100 * labels.value_counts(normalize=True) for name, labels in shares.items() if len(labels)}
    frame = pd.DataFrame(shares).fillna(0)
    figure, axes = _small_axes(6.2)
    colors = (ORANGE, BLUE, GREEN, GREY)[:len(frame.columns)]
    frame.plot.bar(ax=axes, width=0.8, color=colors, rot=0 if len(frame) < 5 else 25, xlabel="", ylabel="share (%)")
    axes.legend(frameon=False)
    return picture(figure, "Share of each label in " + ", ".join(frame.columns) + ".")


def words(texts: dict[str, pd.Series]) -> Image:
    """How many words texts have, one outline for each set."""
    figure, axes = _small_axes(5.2)
    lengths = {name: column.str.split().str.len() for name, column in texts.items() if len(column)}
    bins = np.arange(0, max(np.percentile(each, 99) for each in lengths.values()) + 4, 3)
    for (name, each), color in zip(lengths.items(), (ORANGE, BLUE, GREEN), strict=False):
        axes.hist(each, bins=bins, weights=np.full(len(each), 100 / len(each)), histtype="step", color=color, linewidth=1.5,
                  label=f"{name} (median {each.median():.0f})")
    axes.set(xlabel="words in a text", ylabel="share of texts (%)")
    axes.legend(frameon=False)
    return picture(figure, "Histograms of words in a text: " + ", ".join(lengths) + ".")


def confidence(annotated: pd.DataFrame, context: Context, bins: int = 5) -> Image:
    """Quality of annotations in groups of equal size, from the least to the most confident.

    Classification: accuracy against the mean probability of the chosen label, with the line on which they are
    equal (a reliability diagram). NLG: the task's metric against the mean log-probability per word, which has
    no such line.
    """
    task, (figure, axes) = context.task, _small_axes()
    if annotated["log_probability"].isna().all():
        why = "the model does not say how sure it is" if len(annotated) else "nothing was annotated: every input has its label"
        axes.set_title(why)
        return picture(figure, f"Empty: {why}.")
    if task.task_type == "classification":
        shown = annotate.reliability(annotated, context, bins)
        x, y = 100 * shown["confidence"], shown["accuracy"]
        low = min(x.min(), y.min()) - 3
        axes.plot([low, 100], [low, 100], color=GREY, linestyle=":", label="as sure as right")
        axes.legend(frameon=False)
        axes.set(xlabel="teacher's probability of its label (%)")
    else:
        x, y = _quality_by_confidence(annotated, context, bins)
        axes.set(xlabel="teacher's log-probability a word (nats)")
    axes.plot(x, y, color=BLUE, marker="o")
    metric = METRICS[task.metric]
    axes.set(ylabel=f"{metric.title} (%)" if metric.unit == "%" else metric.title)
    return picture(figure, f"{metric.title} of the annotations against the teacher's confidence in them.")


def _quality_by_confidence(annotated: pd.DataFrame, context: Context, bins: int) -> tuple[list[float], list[float]]:
    """Mean log-probability per word and the task's metric, in groups of equal size."""
    true = {example.id: example for example in context.task.pool[context.budget:]}
    a_word = annotated["log_probability"] / annotated["output"].str.split().str.len().clip(lower=1)
    x, y = [], []
    for part in np.array_split(np.argsort(a_word.to_numpy()), min(bins, len(annotated))):
        rows = annotated.iloc[part]
        x.append(float(a_word.iloc[part].mean()))
        y.append(context.task.score([true[name] for name in rows["id"]], list(rows["output"]))[context.task.metric])
    return x, y


def students(results: pd.DataFrame, task: Task) -> Image:
    """Students as dots, a row for each condition, amount and budget; the mean over seeds as a line."""
    groups = results.groupby(["budget", "condition", "amount"], sort=False)[task.metric]
    figure, axes = _small_axes(7.6, 0.5 + 0.2 * len(groups))
    for number, (_, scores) in enumerate(groups):
        axes.plot(scores, [number] * len(scores), "o", color=BLUE, markersize=4, alpha=0.7)
        axes.plot([scores.mean()] * 2, [number - 0.3, number + 0.3], color="black", linewidth=1.5)
    names = [f"{condition}{f' ({amount:,})' if amount else ''}, {budget:,}" for (budget, condition, amount), _ in groups]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=f"{METRICS[task.metric].title} on the test set ({'%' if task.metric == 'accuracy' else '0 to 100'})")
    return picture(figure, f"{METRICS[task.metric].title} of every student by condition and budget.")


def outputs(sets: dict[str, pd.Series], task: Task) -> Image:
    """The outputs in several sets of examples: shares of the labels, or for NLG words of a text."""
    return label_shares(sets) if task.task_type == "classification" else words(sets)


def objectives(task: Task) -> None:
    """An example of our own, or a custom task's first, as the teacher is trained on it, for both objectives, as a table."""
    ours = Example("ours", task.sentences[0], task.answer)
    rows = []
    for objective in get_args(teacher.Objective):
        read, learned = teacher.training_text(task, ours, objective)
        rows.append({"objective": objective, "reads": read, "learns to write": learned.strip()})
    table(rows)


def prompted(annotated: pd.DataFrame | None, context: Context) -> None:
    """How good the annotations of `annotate.beside` are; nothing where there are none."""
    if annotated is not None:
        facts({"by the prompted model": context.settings.endpoint.model, **annotate.right(annotated, context)})


def diversity(report: dict[str, Any]) -> None:
    """Diversity of generated texts and of equally many gold texts, from the report of `generate.audit`."""
    names = {"distinct-1": "distinct_1", "distinct-2": "distinct_2", "self-BLEU": "self_bleu"}
    table([{"texts": texts} | {name: report[key + suffix] for name, key in names.items()}
           for texts, suffix in (("generated", ""), ("gold", "_gold"))], digits=2)


def answers(models: dict[str, LanguageModel], context: Context, prefix: str = "") -> None:
    """Models' answers to our own sentences for a task (a custom task's first texts), with their probabilities, as a table.

    Classification: the probability of each label among the labels. NLG: the text and its log-probability in
    nats.
    """
    task, texts, rows = context.task, context.task.sentences, []
    for name, lm in models.items():
        written, log_probabilities, scores = teacher.answers(lm, context, texts, prefix)
        for number, text in enumerate(texts):
            row = {"model": name, task.template.input.lower(): text, task.template.output.lower(): written[number]}
            if scores is None:
                row["log-probability"] = log_probabilities[number]
            else:
                row |= {f"P({label})": float(scores[number, place].exp()) for place, label in enumerate(task.labels)}
            rows.append(row)
    table(rows, digits=2)


def figure(number: int, settings: Settings) -> Image | Markdown:
    """A figure that this run has drawn, with its caption; a sentence if there is nothing for it to show."""
    path = settings.folder / "figures" / f"figure_{number}.png"
    if not path.exists():
        return Markdown(f"*Figure {number} has nothing to show: the notebooks it draws from have not been run.*")
    caption = figures.caption(number, Results.read(settings.folder, settings))
    display(Image(path.read_bytes(), width=int(110 * figures.WIDTH), alt=caption))
    return Markdown(f"*Figure {number}. {caption}*")


def markdown(path: Path) -> Markdown:
    """A Markdown file of this run without its title and with its headings one level lower."""
    return Markdown(re.sub(r"\A## .*\n", "", lowered(path)))


def files(paths: list[Path], settings: Settings) -> None:
    """Names of files of this run and their formats; paths are relative to the run's folder."""
    rows: dict[str, list[str]] = {}
    for path in paths:
        rows.setdefault(str(path.relative_to(settings.folder).with_suffix("")), []).append(path.suffix[1:])
    table([{"file": name, "formats": ", ".join(formats)} for name, formats in rows.items()])
