"""What figures, table and claims read of a run."""

import pandas as pd
import pytest
import synthetic_results
from synthetic_results import copied
from synthtune.analysis import claims, figures
from synthtune.analysis.results import FINE_TUNED, Results
from synthtune.errors import StageError
from synthtune.metrics import bleu_from


def test_no_results_is_said_plainly(tmp_path):
    with pytest.raises(StageError, match="No task has results"):
        figures.draw_all(tmp_path, synthetic_results.settings_for("smoke"))


def test_damaged_results_are_named(laptop, tmp_path):
    folder, settings = copied(laptop, tmp_path)
    (folder / "tweets" / "results.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StageError, match=r"tweets/results\.parquet cannot be read"):
        figures.draw_all(folder, settings)


def test_endpoint_asked_fewer_examples_is_compared_on_those(laptop, tmp_path):
    folder, settings = copied(laptop, tmp_path)
    path = folder / "webnlg" / "budget-125" / "teacher.parquet"
    rows = pd.read_parquet(path)
    row = rows[rows.system == "prompted, 5-shot"].iloc[0].copy()
    row["system"], row["per_example"] = "served, 5-shot", row.per_example[: 10 * 40]
    pd.concat([rows, row.to_frame().T], ignore_index=True).to_parquet(path)
    results = Results.read(folder, settings)
    shown = figures.table_of(4, results).set_index(["task", "system"])
    assert shown.loc["webnlg", "served, 5-shot"].test_examples == 40
    checked = claims.claims(results)
    found = checked[checked.quantity.str.contains("served")].iloc[0]
    teacher = results.teacher("webnlg", 125).per_example.iloc[0][: 10 * 40]
    assert found.test_examples == 40
    assert found.value == pytest.approx(bleu_from(teacher) - bleu_from(row.per_example))


def test_prompted_models_are_named_as_in_the_results(laptop):
    systems = figures.table_of(4, Results.read(*laptop)).system.unique()
    assert list(systems) == [FINE_TUNED, "prompted, 0-shot", "prompted, 5-shot"]
