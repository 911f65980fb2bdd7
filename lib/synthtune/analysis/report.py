"""One self-contained page with every figure, the table, the claims and their provenance."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from synthtune import __version__
from synthtune.analysis import figures
from synthtune.analysis.results import Results, computed, corpora_sentence, mixture, write_texts
from synthtune.errors import StageError
from synthtune.number_format import processor
from synthtune.scale.machine import cores

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "gguf", "datasets", "numpy", "pandas",
            "pyarrow", "scipy", "scikit-learn", "sacrebleu", "rouge-score", "matplotlib", "seaborn", "papermill", "snakemake")
"""Packages whose versions the page lists: those that numbers and figures, or the order of the stages, depend on."""

_INTRODUCTION = (
    "A language model fine-tuned on a few labelled examples annotates further texts or "
    "generates new pairs, and a small model is trained on all of them: a reproduction of "
    "the method of Kaddour and Liu, arXiv 2310.01119, on a small scale and with other models. "
    "Figures 1, 2, 3, 5 and 6 follow the paper's captions; figures 4 and 7 and table 1 are our reading."
)

_TITLES = {
    1: "the method",
    2: "classification by number of labelled examples",
    3: "NLG by number of labelled examples",
    4: "fine-tuned teacher against prompted models",
    5: "amount of synthetic data",
    6: "annotation, generation and half of each",
    7: "what a score costs",
}

_ALTS = {
    1: "Diagram in three steps: gold examples fine-tune a teacher; the teacher annotates unlabelled texts or "
    "generates new pairs; gold and synthetic examples together train a student.",
    2: "Line charts, one for each classification task: accuracy against labelled examples for four "
    "training conditions.",
    3: "Line charts, one for each NLG task: BLEU against labelled examples for four training "
    "conditions.",
    4: "Dot chart: score of the fine-tuned teacher and of prompted models, a row for each task.",
    5: "Line charts, one for each NLG task: BLEU against the number of synthetic examples, logarithmic.",
    6: "Dot chart: gain over gold alone from annotated (with soft and with hard labels), generated and half-and-half "
    "data, a row for each task.",
    7: "Line charts, one for each task: score against the cost of labels and machine time, logarithmic.",
}


def write(run_dir: str | Path, settings: Any) -> Path:
    """Write `run_dir`/figures/report.html from the figures, table and claims beside it; return its path.

    Everything on the page except its section "Provenance" depends on the results only.

    Raises
    ------
    StageError
        If the figures, the table or the claims have not been written yet.
    """
    run_dir = Path(run_dir)
    folder = run_dir / "figures"
    results = Results.read(run_dir, settings)
    page = rendered(
        "report.html.jinja",
        profile=settings.profile,
        introduction=_INTRODUCTION,
        corpora=corpora_sentence(results.tasks(), settings),
        figures=_figures(folder, results),
        table_1=_html(folder / "table_1.md"),
        claims=_html(folder / "claims.md"),
        **_provenance(results),
    )
    return write_texts(folder, {"report.html": page})[0]


def rendered(template: str, **values: Any) -> str:
    """Render a template of this package; values are escaped, not interpreted as HTML."""
    folders = [Path(__file__).parent, Path(__file__).parents[1] / "custom"]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def _figures(folder: Path, results: Results) -> list[dict]:
    shown = []
    for number in figures.FIGURES:
        svg, table = folder / f"figure_{number}.svg", folder / f"figure_{number}.csv"
        if svg.exists() and table.exists():
            numbers = pd.read_csv(table, dtype=str, keep_default_na=False)
            shown.append({"number": number, "title": _TITLES[number], "alt": _ALTS[number],
                          "caption": figures.caption(number, results),
                          "svg": base64.b64encode(svg.read_bytes()).decode("ascii"), "rows": _rows(numbers)})
    if not shown:
        raise StageError(f"{folder} has no figures yet: draw them (figures.draw_all) before the report.")
    return shown


def _html(path: Path) -> Markup:
    """A Markdown page of this package as HTML, with its headings one level lower than in the file."""
    if not path.exists():
        raise StageError(f"{path} is missing: write the table and the claims before the report.")
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(path.read_text("utf-8"))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1]) + 1}"
        elif token.type == "th_open":
            token.attrSet("scope", "col")
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _rows(table: pd.DataFrame) -> list[list]:
    """A table as the page's template takes it: rows, the header first."""
    return [list(table.columns), *table.astype(object).to_numpy().tolist()]


def _provenance(results: Results) -> dict[str, Any]:
    """Contents of the section "Provenance"; tables are lists of rows, the header first."""
    settings = results.settings
    said = settings.model_dump(mode="json", exclude={"run_dir", "data_root", "plan"})
    said["data_root"] = "a folder of real corpora" if settings.data_root else None
    made_by = computed(results)
    made_by["task"] = made_by["task"].map(results.title)
    return {
        **_minutes(results.minutes),
        "machine": [["what", "value"], ["processor", processor()], ["cores this process may use", cores()],
                    ["memory, GiB", f"{psutil.virtual_memory().total / 2**30:.1f}"],
                    ["system", f"{platform.system()} {platform.machine()}"], ["Python", platform.python_version()]],
        "digests": _digests(results),
        "computed": _rows(made_by.rename(columns={"rows": "rows of", "number_format": "number format", "n": "rows"})),
        "mixture": mixture(results),
        "versions": _versions(),
        "settings": json.dumps(said, indent=1, ensure_ascii=False),
    }


def _minutes(minutes: pd.DataFrame) -> dict[str, Any]:
    """Time and memory by stage and by notebook, and a sentence on all together; None and "" if no minutes were recorded."""
    if not len(minutes):
        return {"stages": None, "notebooks": None, "minutes_sentence": ""}
    stages = minutes.groupby("notebook").agg(number=("minutes", "size"), minutes=("minutes", "sum"), peak=("peak_rss_gib", "max"))
    stages = stages.assign(minutes=stages.minutes.map("{:.1f}".format), peak=stages.peak.map("{:.2f}".format)).reset_index()
    each = pd.DataFrame({
        "notebook": minutes.notebook, "task": minutes.task.fillna(""),
        "budget": minutes.budget.map(lambda budget: "" if pd.isna(budget) else f"{int(budget):,}"),
        "minutes": minutes.minutes.map("{:.2f}".format), "peak memory, GiB": minutes.peak_rss_gib.map("{:.2f}".format)})
    stages.columns = ["stage", "notebooks run", "minutes, all together", "peak memory of one, GiB"]
    sentence = (f"{len(minutes)} notebooks took {minutes.minutes.sum():.1f} minutes together; several may have run side by side, "
                f"so the clock showed less. The largest needed {minutes.peak_rss_gib.max():.2f} GiB.")
    return {"stages": _rows(stages), "notebooks": _rows(each), "minutes_sentence": sentence}


def _digests(results: Results) -> list[list]:
    rows = pd.concat([table[["task", "data_digest", "model", "model_digest"]] for table in (results.students, results.teachers)
                      if "data_digest" in table])
    seen = {("data", results.title(row.task), row.data_digest) for row in rows.itertuples()}
    seen |= {("model", row.model, row.model_digest) for row in rows.itertuples()}
    return [["kind", "name", "SHA-256"], *map(list, sorted(seen))]


def _versions() -> list[list]:
    versions = [["package", "version"], ["synthtune", __version__]]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append([name, importlib.metadata.version(name)])
    return versions
