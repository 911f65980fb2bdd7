"""One self-contained page with every figure, the table, the claims and their provenance."""

import base64
import contextlib
import importlib.metadata
import json
import platform
import re
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt
from markupsafe import Markup

from synthtune import __version__
from synthtune.analysis import figures
from synthtune.analysis.results import Results, computed, corpora_sentence, lowered, mixture, write_texts
from synthtune.errors import StageError
from synthtune.number_format import processor
from synthtune.scale.devices import cores

# Packages whose versions the page lists: those that numbers and figures, or the order of the stages, depend on.
PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "gguf", "datasets", "numpy", "pandas",
            "pyarrow", "scipy", "scikit-learn", "sacrebleu", "rouge-score", "matplotlib", "seaborn", "papermill", "snakemake")


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
        "report.html.jinja", profile=settings.profile, corpora=corpora_sentence(results.tasks(), settings),
        figures=_figures(folder, results), table_1=_html(folder / "table_1.md"), claims=_html(folder / "claims.md"), **_provenance(results))
    return write_texts(folder, {"report.html": page})[0]


def rendered(template: str, **values: Any) -> str:
    """Render a template of this package; in a page, values are escaped, not interpreted as HTML."""
    folders = [Path(__file__).parent, Path(__file__).parents[1] / "custom"]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True,
                              lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def _figures(folder: Path, results: Results) -> list[dict]:
    shown = []
    for number in figures.FIGURES:
        svg, table = folder / f"figure_{number}.svg", folder / f"figure_{number}.csv"
        if svg.exists() and table.exists():
            numbers = pd.read_csv(table, dtype=str, keep_default_na=False)
            shown.append({**figures.WORDS[number], "number": number, "caption": figures.caption(number, results),
                          "svg": base64.b64encode(svg.read_bytes()).decode("ascii"), "rows": _rows(numbers)})
    if not shown:
        raise StageError(f"{folder} has no figures yet: draw them (figures.draw_all) before the report.")
    return shown


def _html(path: Path) -> Markup:
    """A Markdown page of this package as HTML, with its headings one level lower than in the file."""
    if not path.exists():
        raise StageError(f"{path} is missing: write the table and the claims before the report.")
    page = MarkdownIt("commonmark", {"html": False}).enable("table").render(lowered(path))
    return Markup(re.sub("<th(?=[ >])", '<th scope="col"', page))


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
        "mixture": mixture(results), "versions": _versions(), "settings": json.dumps(said, indent=1, ensure_ascii=False)}


def _minutes(minutes: pd.DataFrame) -> dict[str, Any]:
    """Time and memory by stage and by notebook, and of all together; `stages` is None if no minutes were recorded."""
    if not len(minutes):
        return {"stages": None}
    stages = minutes.groupby("notebook").agg(number=("minutes", "size"), minutes=("minutes", "sum"), peak=("peak_rss_gib", "max"))
    stages = stages.assign(minutes=stages.minutes.map("{:.1f}".format), peak=stages.peak.map("{:.2f}".format)).reset_index()
    each = pd.DataFrame({
        "notebook": minutes.notebook, "task": minutes.task.fillna(""),
        "budget": minutes.budget.map(lambda budget: "" if pd.isna(budget) else f"{int(budget):,}"),
        "minutes": minutes.minutes.map("{:.2f}".format), "peak memory, GiB": minutes.peak_rss_gib.map("{:.2f}".format)})
    stages.columns = ["stage", "notebooks run", "minutes, all together", "peak memory of one, GiB"]
    return {"stages": _rows(stages), "notebooks": _rows(each), "all_minutes": f"{minutes.minutes.sum():.1f}",
            "largest": f"{minutes.peak_rss_gib.max():.2f}"}


def _digests(results: Results) -> list[list]:
    rows = pd.concat([results.students, results.teachers])
    seen = {("data", results.title(row.task), row.data_digest) for row in rows.itertuples()}
    seen |= {("model", row.model, row.model_digest) for row in rows.itertuples()}
    return [["kind", "name", "SHA-256"], *map(list, sorted(seen))]


def _versions() -> list[list]:
    versions = [["package", "version"], ["synthtune", __version__]]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append([name, importlib.metadata.version(name)])
    return versions
