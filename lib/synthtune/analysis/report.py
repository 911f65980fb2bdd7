"""One self-contained page with every figure, the table, the claims and their provenance."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
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
from synthtune.analysis.results import Results, corpora_sentence
from synthtune.errors import StageError
from synthtune.files import atomic_path

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "gguf",
    "datasets",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "sacrebleu",
    "rouge-score",
    "matplotlib",
    "seaborn",
    "papermill",
    "snakemake",
)
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
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, "utf-8")
    return path


def rendered(template: str, **values: Any) -> str:
    """Render a template of this package; values are escaped, not interpreted as HTML."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1] / "custom"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def _figures(folder: Path, results: Results) -> list[dict]:
    shown = []
    for number in figures.FIGURES:
        svg, table = folder / f"figure_{number}.svg", folder / f"figure_{number}.csv"
        if svg.exists() and table.exists():
            numbers = pd.read_csv(table, dtype=str, keep_default_na=False)
            shown.append(
                {
                    "number": number,
                    "title": _TITLES[number],
                    "alt": _ALTS[number],
                    "caption": figures.caption(number, results),
                    "svg": base64.b64encode(svg.read_bytes()).decode("ascii"),
                    "rows": [list(numbers.columns), *numbers.values.tolist()],
                }
            )
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


def _provenance(results: Results) -> dict[str, Any]:
    """Contents of the section "Provenance"; tables are lists of rows, the header first."""
    settings = results.settings
    minutes = results.minutes
    stages = notebooks = None
    sentence = ""
    if len(minutes):
        by_stage = minutes.groupby("notebook").agg(
            notebooks=("minutes", "size"), minutes=("minutes", "sum"), peak=("peak_rss_gib", "max")
        )
        stages = [
            ["stage", "notebooks run", "minutes, all together", "peak memory of one, GiB"],
            *(
                [name, row.notebooks, f"{row.minutes:.1f}", f"{row.peak:.2f}"]
                for name, row in zip(by_stage.index, by_stage.itertuples())
            ),
        ]
        notebooks = [
            ["notebook", "task", "budget", "minutes", "peak memory, GiB"],
            *(
                [
                    row.notebook,
                    "" if pd.isna(row.task) else row.task,
                    "" if pd.isna(row.budget) else f"{int(row.budget):,}",
                    f"{row.minutes:.2f}",
                    f"{row.peak_rss_gib:.2f}",
                ]
                for row in minutes.itertuples()
            ),
        ]
        sentence = (
            f"{len(minutes)} notebooks took {minutes.minutes.sum():.1f} minutes together; several "
            "may have run side by side, so the clock showed less. The largest needed "
            f"{minutes.peak_rss_gib.max():.2f} GiB."
        )
    return {
        "machine": _machine(),
        "stages": stages,
        "notebooks": notebooks,
        "minutes_sentence": sentence,
        "digests": _digests(results),
        "computed": _computed(results),
        "mixture": results.mixture(),
        "versions": _versions(),
        "settings": json.dumps(
            settings.model_dump(mode="json", exclude={"run_dir", "data_root", "plan"})
            | {"data_root": "a folder of real corpora" if settings.data_root else None},
            indent=1,
            ensure_ascii=False,
        ),
    }


def _machine() -> list[list]:
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text("utf-8").splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        ["what", "value"],
        ["processor", cpu],
        ["cores this process may use", cores],
        ["memory, GiB", f"{psutil.virtual_memory().total / 2**30:.1f}"],
        ["system", f"{platform.system()} {platform.machine()}"],
        ["Python", platform.python_version()],
    ]


def _computed(results: Results) -> list[list]:
    rows = results.computed()
    return [["task", "rows of", "number format", "device", "rows"],
            *([results.title(row.task), row.rows, row.number_format, row.device, row.n] for row in rows.itertuples())]


def _digests(results: Results) -> list[list]:
    seen = {}
    for rows in (results.students, results.teachers):
        for row in rows.itertuples():
            seen["data", results.title(row.task), row.data_digest] = None
            seen["model", row.model, row.model_digest] = None
    return [["kind", "name", "SHA-256"], *(list(key) for key in sorted(seen))]


def _versions() -> list[list]:
    versions = [["package", "version"], ["synthtune", __version__]]
    for name in PACKAGES:
        try:
            versions.append([name, importlib.metadata.version(name)])
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
