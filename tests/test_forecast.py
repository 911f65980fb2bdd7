"""How long a run on custom data is said to take."""

from textwrap import wrap

import pytest
from synthtune import custom
from synthtune.custom import forecast
from synthtune.custom.forecast import REFERENCES, START_SECONDS
from synthtune.custom.parts import WORK, parts, settings_of
from synthtune.files import digest


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The parts of forty labelled rows and their settings; `rate` is this machine's, in operations a second."""
    texts = [" ".join(wrap(digest(number), 6)) for number in range(240)]  # none is like another
    labelled = [f"{text},{'good' if number % 2 else 'bad'}" for number, text in enumerate(texts[:40])]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *labelled]))
    (tmp_path / "more.csv").write_text("\n".join(["text", *texts[40:]]))
    (tmp_path / "task.yaml").write_text("rows: rows.csv\nunlabelled: more.csv\n")
    own = custom.read(tmp_path / "task.yaml")

    def seconds(rate: float, processes: int = 1, done: bool = False, overrides: tuple[str, ...] = ()) -> float:
        monkeypatch.setattr(forecast, "_rate", lambda _: rate)
        settings = settings_of(own, tmp_path / WORK, overrides)
        each = parts(own, settings)
        for part in each if done else []:
            answers = settings.folder / part.task.name / "answers"
            answers.mkdir(parents=True)
            (answers / "gold.parquet").touch()
        return forecast.seconds(each, settings, processes) - START_SECONDS

    return seconds


def test_it_goes_by_the_reference_whose_rate_is_nearest(work):
    fast, slow = (reference.rate for reference in REFERENCES)
    assert work(2 * fast) == pytest.approx(work(fast) / 2)
    assert work(slow / 2) == pytest.approx(work(slow) * 2)
    # What multiplies no matrices takes as long in both formats.
    assert work(fast) < work(slow) < work(fast) * fast / slow


def test_more_processes_take_less_and_more_inputs_more(work):
    rate = REFERENCES[0].rate
    assert work(rate, 4) < work(rate, 2) < work(rate) == pytest.approx(2 * work(rate, 2))
    assert work(rate, overrides=("generate.pairs=2000",)) > 1.5 * work(rate)


def test_what_is_done_takes_nothing(work):
    assert work(1e12) > 10 and work(1e12, done=True) == 0
