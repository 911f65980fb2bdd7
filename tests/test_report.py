"""The page of a run, from made-up results."""

import re

import pandas as pd
import pytest
from synthetic_results import copied
from synthtune.analysis import claims, figures, report, table
from synthtune.errors import StageError


def test_report_is_one_self_contained_accessible_page(laptop):
    folder, _ = laptop
    page = (folder / "figures" / "report.html").read_text()
    assert '<html lang="en">' in page and page.count("<h1") == 1
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 7 and all("data:image/svg+xml;base64," in image for image in images)
    assert all(re.search(r'alt="[^"]{40,}"', image) for image in images)
    assert (
        not re.search(r"""(src|href)=["'](?!data:|#)""", page)
        and "<script" not in page
        and "@import" not in page
    )
    for text in ("Provenance", "torch", "peak memory", "d" * 64, "not decided"):
        assert text in page
    assert str(folder) not in page
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_report_escapes_what_the_results_name(smoke, tmp_path):
    folder, settings = copied(smoke, tmp_path)
    for path in folder.glob("*/budget-*/teacher.parquet"):
        rows = pd.read_parquet(path)
        rows.loc[rows.system == "prompted, 0-shot", ["system", "model"]] = ["<script>x</script>", "<b>"]
        rows.to_parquet(path)
    figures.draw_all(folder, settings)
    table.write(folder, settings)
    claims.write(folder, settings)
    page = report.write(folder, settings).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_report_asks_for_figures_first(smoke, tmp_path):
    folder, settings = copied(smoke, tmp_path)
    with pytest.raises(StageError, match="draw them"):
        report.write(folder, settings)
