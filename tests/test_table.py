"""Table 1, from made-up results."""

import numpy as np
import pandas as pd
import pytest
from synthtune.analysis.results import Results
from synthtune.conditions import ANNOTATED, BOTH, GENERATED, GOLD


def test_table_1(laptop):
    folder, settings = laptop
    paths = [folder / "figures" / f"table_1.{suffix}" for suffix in ("csv", "md", "tex")]
    shown = pd.read_csv(paths[0])
    line = shown[(shown.task == "tweets") & (shown.metric == "Accuracy")].iloc[0]
    rows = Results.read(folder, settings).rows("tweets", 125, GOLD)
    assert line[GOLD] == pytest.approx(rows.accuracy.mean(), abs=1e-3)
    # Half the t interval of three seeds is 4.30 standard errors.
    assert line[f"{GOLD} ±"] == pytest.approx(4.3027 * rows.accuracy.std() / np.sqrt(3), rel=1e-3)
    assert line.best == max((GOLD, ANNOTATED, GENERATED, BOTH), key=lambda name: line[name])
    text = paths[1].read_text()
    assert f"**{line[line.best]:.1f} ± " in text and "Written for this package" in text
    assert "The student has 22 million parameters and takes 4 s for 1,000 texts, the teacher 135 million and " in text
    latex = paths[2].read_text()
    assert latex.count(r"\textbf{") == len(shown) and latex.count("&") == 7 * (len(shown) + 1)
