"""What a user takes away: the augmented rows, the model's card, predictions, and rows to label next, in one folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from synthtune import __version__, experiment
from synthtune.analysis.results import write_texts
from synthtune.custom import deployed, page, record
from synthtune.custom.checks import runs
from synthtune.custom.rows import pair_of
from synthtune.custom.study import TEACHER, Outcome
from synthtune.files import atomic_path, digest, remove
from synthtune.settings import AnnotateSettings, GenerateSettings, Settings
from synthtune.tasks.example import divided

HERE = Path(__file__).parent
TYPES = {"classification": "A task of text classification.", "generation": "A task of text-to-text generation."}
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
        with record.offline(outcome.settings):
            _write(outcome, folder)
        found = {name: folder / file for name, file in record.PRODUCTS.items() if (folder / file).exists()}
        record.note(outcome.settings.folder / record.RECORD, record.made_from(outcome.own, outcome.settings), folder, found.values())
        return found


def _write(outcome: Outcome, folder: Path) -> None:
    rows = augmented(outcome)
    _write_augmented(outcome, rows, folder / "augmented")
    model = deployed.save(outcome, folder / "model")
    if outcome.settings.custom.export == "onnx":
        deployed.to_onnx(model, outcome.own.labels)
    predicted, to_label = deployed.predictions(outcome, model)
    write_texts(model, {"README.md": f"{_model_card(outcome)}\n"})
    for name, table in (("predictions.csv", predicted), ("to_label.csv", to_label)):
        if len(table):
            write_csv(table, folder / name, outcome.own.labels)
        else:
            remove(folder / name)
    write_texts(folder, {"report.html": page.html(outcome, rows, predicted, to_label)})


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
        (temporary / "README.md").write_text(f"{_data_card(outcome, rows)}\n", "utf-8")


def write_csv(table: pd.DataFrame, path: Path, labels: Sequence[str] = ()) -> None:
    """Write a table for spreadsheets: cells that would be run as formulas are escaped with a ' in front.

    Numbers, single signs and the task's labels are not escaped: a user's own table is joined on them.
    """
    escaped = table.copy()
    for name in escaped:
        if not pd.api.types.is_numeric_dtype(escaped[name]):
            escaped[name] = [f"'{cell}" if isinstance(cell, str) and cell not in labels and runs(cell) else cell for cell in escaped[name]]
    with atomic_path(path) as temporary:
        escaped.to_csv(temporary, index=False)


def _data_card(outcome: Outcome, rows: pd.DataFrame) -> DatasetCard:
    own, settings = outcome.own, outcome.settings
    # `datasets` caches by the folder's name and the configuration's: of two tasks, and of two runs of one, the latter must differ.
    config = {"config_name": f"rows-{digest(rows.to_json(orient='values'))[:12]}", "data_files": [
        {"split": "train", "path": "train.parquet"}, {"split": "dropped", "path": "dropped.parquet"}]}
    reasons = rows.loc[rows["dropped"] != "", ["source", "dropped"]].value_counts()
    return DatasetCard.from_template(
        DatasetCardData(configs=[config]), template_path=str(HERE / "data_card.md.jinja"), outcome=outcome, settings=settings,
        name=_plain(own.task.name), introduction=f"{_plain(own.task.description or TYPES[own.task_type])} The rows were {MADE_BY}.",
        counts=rows.assign(kept=rows["dropped"] == "").groupby("source", sort=False)["kept"].agg(["size", "sum"]),
        dropped="; ".join(f"{number:,} {source}, {reason}" for (source, reason), number in reasons.items()),
        metric=page.metric_name(outcome), teacher=outcome.score(TEACHER), version=__version__,
        annotator=_teacher(settings.annotate, settings), generator=_teacher(settings.generate, settings))


def _teacher(section: AnnotateSettings | GenerateSettings, settings: Settings) -> str:
    if section.source == "endpoint":
        return f"{settings.endpoint.model}, prompted with up to {max(settings.endpoint.shots, default=0)} gold rows"
    return f"{settings.teacher.model}, fine-tuned on the gold rows"


def _model_card(outcome: Outcome) -> ModelCard:
    own, settings, names = outcome.own, outcome.settings, pair_of(outcome.own)
    stored = settings.model_dump(mode="json")
    return ModelCard.from_template(
        ModelCardData(library_name="transformers", tags=["synthtune"],
                      pipeline_tag="text-classification" if own.task_type == "classification" else None),
        template_path=str(HERE / "model_card.md.jinja"), outcome=outcome, settings=settings, name=_plain(own.task.name),
        introduction=f"{_plain(own.task.description or '')} A small student ({settings.students.model}), {MADE_BY}.".strip(),
        verdict=page.verdict(outcome), labels=list(map(_plain, sorted(own.report.labels))), several=bool(own.columns.separator),
        sample=f"{names[0]}: … {names[1]}: …" if names else "…", metric=page.metric_name(outcome),
        chosen=json.dumps({name: stored[name] for name in ("profile", "seed", "teacher", "annotate", "generate", "students")},
                          indent=1))


def _plain(text: str) -> str:
    """A user's words inside Markdown: on one line, and nothing in them that is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in " ".join(text.split()))
