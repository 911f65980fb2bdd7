"""What a user would try first on the same labelled rows."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthtune.custom import baselines
from synthtune.models import assets
from synthtune.tasks import Example

GOLD = [Example("1", "what time is it", "asks"), Example("2", "what does it cost", "asks"),
        Example("3", "it costs two pounds", "informs"), Example("4", "it is noon", "informs")]


@pytest.fixture
def installed(monkeypatch):
    """A stand-in for the package SetFit, which says what it is given and answers with the first label."""
    seen = {}

    class Model:
        @classmethod
        def from_pretrained(cls, path, labels):
            seen.update(path=path, labels=labels)
            return cls()

        def predict(self, texts):
            return np.array([seen["labels"][0]] * len(texts))

    class Trainer:
        def __init__(self, model, args, train_dataset):
            seen.update(args=args, rows=list(train_dataset), model=model)

        def train(self):
            Path(seen["args"]["output_dir"], "trained").touch()

    module = ModuleType("setfit")
    module.__spec__ = ModuleSpec("setfit", None)
    module.SetFitModel, module.Trainer, module.TrainingArguments = Model, Trainer, dict
    monkeypatch.setitem(sys.modules, "setfit", module)
    return seen


def test_setfit_is_one_of_them_where_it_is_installed(installed, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = tiny(tmp_path / "run")
    systems = baselines.systems("classification", settings)
    assert list(systems) == [baselines.TFIDF, baselines.SETFIT]
    assert systems[baselines.SETFIT](GOLD, ["when", "how"]) == ["asks", "asks"]
    assert installed["labels"] == ["asks", "informs"]
    assert installed["rows"] == [{"text": example.text, "label": example.target} for example in GOLD]
    assert installed["path"] == str(assets.model_path(settings.students.model))
    assert installed["args"]["seed"] == settings.seed and installed["args"]["report_to"] == "none"
    assert not list(tmp_path.iterdir()), "nothing is left where the user stands"
    assert not Path(installed["args"]["output_dir"]).exists()


def test_without_it_there_is_a_plain_baseline(monkeypatch, tiny, tmp_path):
    monkeypatch.setitem(sys.modules, "setfit", None)
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda _: None)
    assert list(baselines.systems("classification", tiny(tmp_path))) == [baselines.TFIDF]
    tfidf = baselines.systems("classification", None)[baselines.TFIDF]
    assert tfidf(GOLD, ["what time does it open", "it is two"]) == ["asks", "informs"]


def test_a_text_gets_the_output_of_the_row_most_like_it(tiny, tmp_path):
    [answer] = baselines.systems("generation", tiny(tmp_path)).values()
    assert answer(GOLD, ["the time is noon", "cost of it: two pounds"]) == ["informs", "informs"]
