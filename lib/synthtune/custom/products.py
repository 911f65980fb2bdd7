"""What a user takes away: the augmented rows, the model's card, predictions, and rows to label next, in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from synthtune import __version__, experiment
from synthtune.custom import deployed, page, record
from synthtune.custom.checks import runs
from synthtune.custom.confidence import Confidence, OfLabels
from synthtune.custom.rows import pair_of
from synthtune.custom.study import TEACHER, Outcome
from synthtune.files import atomic_path, digest, remove
from synthtune.settings import AnnotateSettings, GenerateSettings, Settings
from synthtune.tasks.example import divided

KINDS = {"classification": "A task of text classification.", "nlg": "A task of text-to-text generation."}
MADE_BY = ("made with [synthtune](https://arxiv.org/abs/2310.01119)'s recipe: a language model fine-tuned on the labelled "
           "rows labels others and writes new ones (Kaddour and Liu 2023, arXiv 2310.01119)")


def write(outcome: Outcome, folder: str | Path) -> dict[str, Path]:
    """Write everything; each file or folder is replaced whole.

    Returns
    -------
    dict
        Path of each product by its name, in the order in which a reader wants them.

    Raises
    ------
    StageError
        Another run is working in the folder or has worked there since the study, or it cannot be written.
    """
    folder = Path(folder)
    with record.working(folder):
        record.check(outcome.own, outcome.settings, folder)
        return written(outcome, folder)


def written(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """What `write` does, for one who keeps other runs out of the folder."""
    with record.offline(outcome.settings):
        _write(outcome, folder)
    found = {name: folder / file for name, file in record.PRODUCTS.items() if (folder / file).exists()}
    record.finish(outcome.own, outcome.settings, found.values(), folder)
    return found


def _write(outcome: Outcome, folder: Path) -> None:
    rows = augmented(outcome)
    _write_augmented(outcome, rows, folder / "augmented")
    model = deployed.save(outcome, folder / "model")
    if outcome.settings.custom.export == "onnx":
        deployed.to_onnx(model, outcome.own.labels)
    predicted, to_label = deployed.predictions(outcome, model)
    _write_text(model / "README.md", _model_card(outcome))
    for name, table in (("predictions.csv", predicted), ("to_label.csv", to_label)):
        if len(table):
            write_csv(table, folder / name, outcome.own.labels)
        else:
            remove(folder / name)
    _write_text(folder / "report.html", page.html(outcome, rows, predicted, to_label))


def augmented(outcome: Outcome) -> pd.DataFrame:
    """Gold, annotated and generated rows in one table.

    Returns
    -------
    DataFrame
        source ("gold", "annotated", "generated"), row (in the user's file; missing for generated ones), text and text_pair
        (as the user's file has them; generated ones as the teacher wrote them), output, log_probability (the annotating
        teacher's, of the output; missing for gold), asked_for (the output that a generated pair was sampled with), dropped
        (why it is not trained on, or ""), used (whether the model that is shipped was trained on it).
    """
    own = outcome.own
    names, columns = pair_of(own), ["text", "text_pair"] if pair_of(own) else ["text"]
    gold = own.gold[[*columns, "output", "row"]].assign(source="gold", dropped="", used=True)
    tables = [gold]
    if len(outcome.annotated):
        texts = own.unlabelled.set_index("row")
        numbers = outcome.annotated["id"].str.removeprefix("unlabelled-").astype(int)
        tables.append(texts.loc[numbers, columns].reset_index().assign(
            source="annotated", output=list(outcome.annotated["output"]), dropped=list(outcome.annotated["dropped"]),
            log_probability=list(outcome.annotated["log_probability"])))
    made = outcome.generated
    written = [divided(names, text) or (text, *[""] * (len(columns) - 1)) for text in made["text"]]
    tables.append(pd.DataFrame(written, columns=columns).assign(
        source="generated", output=list(made["output"].where(made["output"].notna(), made["sampled"])),
        asked_for=list(made["sampled"]), dropped=list(made["dropped"]), log_probability=list(made["agreement"])))
    table = pd.concat(tables, ignore_index=True)
    table["row"] = table["row"].astype("Int64")
    for source, number in experiment.shares(outcome.cell).items():
        mine = table.index[(table["source"] == source) & (table["dropped"] == "")]
        table.loc[mine, "used"] = np.arange(len(mine)) < number
    table["used"] = table["used"].eq(True)
    order = ["source", "row", *columns, "output", "log_probability", "asked_for", "dropped", "used"]
    return table.reindex(columns=order)


def _write_augmented(outcome: Outcome, rows: pd.DataFrame, folder: Path) -> None:
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        rows[rows["dropped"] == ""].to_parquet(temporary / "train.parquet", index=False)
        rows[rows["dropped"] != ""].to_parquet(temporary / "dropped.parquet", index=False)
        write_csv(rows, temporary / "augmented.csv", outcome.own.labels)
        (temporary / "README.md").write_text(_data_card(outcome, rows), "utf-8")


def write_csv(table: pd.DataFrame, path: Path, labels: Sequence[str] = ()) -> None:
    """Write a table for spreadsheets: cells that would be run as formulas are escaped with a ' in front.

    Numbers, single signs and the task's labels are not escaped: a user's own table is joined on them.
    """
    escaped = table.copy()
    for name in escaped:
        if not pd.api.types.is_numeric_dtype(escaped[name]):
            escaped[name] = [f"'{cell}" if isinstance(cell, str) and cell not in labels and runs(cell) else cell
                             for cell in escaped[name]]
    with atomic_path(path) as temporary:
        escaped.to_csv(temporary, index=False)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def _data_card(outcome: Outcome, rows: pd.DataFrame) -> str:
    own, settings = outcome.own, outcome.settings
    # `datasets` caches by the folder's name and the configuration's: of two tasks, and of two runs of one, the latter must differ.
    header = {"configs": [{"config_name": f"rows-{digest(rows.to_json(orient='values'))[:12]}", "data_files": [
        {"split": "train", "path": "train.parquet"}, {"split": "dropped", "path": "dropped.parquet"}]}]}
    counts = rows.assign(kept=rows["dropped"] == "").groupby("source", sort=False)["kept"].agg(["size", "sum"])
    reasons = rows.loc[rows["dropped"] != "", ["source", "dropped"]].value_counts()
    lines = [
        f"# {_plain(own.task.name)}: labelled rows and synthetic ones", "",
        f"{_plain(own.task.description or KINDS[own.kind])} The rows were {MADE_BY}.", "",
        "Load it with `datasets.load_dataset(\"path/of/this/folder\")`; `augmented.csv` has the same rows, with cells that a "
        "spreadsheet would run escaped by a ' in front.", "",
        "| source | rows | kept |", "|---|---|---|",
        *(f"| {source} | {row['size']:,} | {row['sum']:,} |" for source, row in counts.iterrows()), "",
        "Columns: source; row, its number in your file; the texts; output; log_probability, of the output by the annotating "
        "teacher; asked_for, the output that a generated row was sampled with; dropped, why it is not trained on; used, "
        "whether the model beside this folder was trained on it.", "",
        *(["Dropped: " + "; ".join(f"{number:,} {source}, {reason}" for (source, reason), number in reasons.items()) + ".", ""]
          if len(reasons) else []),
        "Outputs of annotated and generated rows are a model's, not people's: " + _quality(outcome), "",
        f"Annotated by {_teacher(settings.annotate, settings)}, generated by {_teacher(settings.generate, settings)}. Generated rows: temperature "
        f"{settings.generate.temperature:g}, nucleus {settings.generate.top_p:g}; label: {settings.generate.labels}. "
        f"synthtune {__version__}, seed {settings.seed}.",
    ]
    return "---\n" + yaml.safe_dump(header, sort_keys=False) + "---\n" + "\n".join(lines) + "\n"


def _teacher(section: AnnotateSettings | GenerateSettings, settings: Settings) -> str:
    if section.source == "endpoint":
        return f"{settings.endpoint.model}, prompted with up to {max(settings.endpoint.shots, default=0)} gold rows"
    return f"{settings.teacher.model}, fine-tuned on the gold rows"


def _quality(outcome: Outcome) -> str:
    teacher = outcome.score(TEACHER)
    return (f"on rows held out ({outcome.held_out}) the annotating teacher's {page.metric_name(outcome)} is "
            f"{teacher['value']:.1f} ({teacher['low']:.1f} to {teacher['high']:.1f}).")


def _model_card(outcome: Outcome) -> str:
    own, settings = outcome.own, outcome.settings
    classification = own.kind == "classification"
    header: dict[str, Any] = {"library_name": "transformers", "tags": ["synthtune"]}
    if classification:
        header["pipeline_tag"] = "text-classification"
    names = pair_of(own)
    sample = f"{names[0]}: … {names[1]}: …" if names else "…"
    several = ", top_k=None" if own.columns.separator else ""
    use = (f'from transformers import pipeline\n\nclassify = pipeline("text-classification", "path/of/this/folder")\n'
           f'classify("{sample}", truncation=True{several})') if classification else (
        'from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\ntokenizer = AutoTokenizer.from_pretrained('
        '"path/of/this/folder")\nmodel = AutoModelForSeq2SeqLM.from_pretrained("path/of/this/folder")\n'
        f'read = tokenizer("{sample}", return_tensors="pt", truncation=True)\n'
        'print(tokenizer.decode(model.generate(**read)[0], skip_special_tokens=True))')
    onnx = ("`model.onnx` is the same model for other runtimes: input_ids and attention_mask in, logits out, in the order of "
            "`id2label` in `config.json`.") if classification else (
        "`encoder_model.onnx` and `decoder_model.onnx` are the same model for other runtimes, named as optimum names them. The "
        "first reads input_ids and attention_mask; the second the word pieces written so far (input_ids), and what the first "
        "gave and read (encoder_hidden_states, encoder_attention_mask), and gives the logits of the next one. "
        "Writing starts with `decoder_start_token_id` and ends at `eos_token_id` of `generation_config.json`.")
    rows = [f"| {row.system} | {row.value:.1f} | {row.low:.1f} to {row.high:.1f} |" for row in outcome.scores.itertuples()]
    lines = [
        f"# {_plain(own.task.name)}", "",
        f"{_plain(own.task.description or '')} A small student ({settings.students.model}), {MADE_BY}.".strip(), "",
        f"Trained on: {outcome.winner}. {page.verdict(outcome)}", "", "```python", use, "```", "",
        *([onnx, ""] if settings.custom.export == "onnx" else []),
        *([f"Labels: {', '.join(map(_plain, sorted(own.report.labels)))}.", ""] if classification else []),
        f"## Measured on rows held out ({outcome.held_out})", "",
        f"| system | {page.metric_name(outcome)} | {100 * settings.figures.confidence:g} % interval |",
        "|---|---|---|", *rows, "",
        "A label has a probability of its own; said is the likeliest set of those that labelled rows have." if several else
        _calibration(outcome.confidence), "",
        "## Training data", "",
        f"{len(own.gold):,} labelled rows of `{own.task.rows}`; the folder `augmented` beside this one has them and the "
        "synthetic ones, and says which were used.", "",
        "## Limits", "",
        f"It reads the first {settings.students.max_tokens} word pieces of a text. It was tested on rows like those it was "
        "trained on; on others it may be worse. Synthetic rows repeat the mistakes and the bias of the language model that "
        "wrote them.", "",
        "## Settings", "", "```json",
        json.dumps({name: settings.model_dump(mode="json")[name] for name in
                    ("profile", "seed", "teacher", "annotate", "generate", "students")}, indent=1), "```",
    ]
    return "---\n" + yaml.safe_dump(header, sort_keys=False) + "---\n" + "\n".join(lines) + "\n"


def _calibration(by: Confidence) -> str:
    if isinstance(by, OfLabels):
        return f"Calibration: divide logits by {by.temperature:.3f} before the softmax."
    return (f"Calibration: of a text whose word pieces have the mean log-probability m, a chrF of "
            f"100 / (1 + exp({-by.slope:.3f} m {-by.intercept:+.3f})) is to be expected.")


def _plain(text: str) -> str:
    """A user's words inside Markdown: on one line, and nothing in them that is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in " ".join(text.split()))
