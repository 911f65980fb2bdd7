"""What a user would try first on the same labelled rows: no teacher, no synthetic examples."""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from synthtune.models import assets
from synthtune.settings import Settings
from synthtune.tasks import Example

TFIDF = "TF-IDF and logistic regression"
NEAREST = "output of the nearest labelled row"
SETFIT = "SetFit"

# From labelled examples and texts to an output for each text.
Answer = Callable[[Sequence[Example], Sequence[str]], list[str]]


def systems(task_type: str, settings: Settings) -> dict[str, Answer]:
    """The baselines for a type of task, by name; SetFit only where that package is installed."""
    if task_type == "generation":
        return {NEAREST: nearest}
    models: dict[str, Callable[[Sequence[Example]], Any]] = {TFIDF: tfidf_model}
    if importlib.util.find_spec("setfit"):
        models[SETFIT] = lambda gold: setfit_model(gold, settings)
    return {name: lambda gold, texts, fit=fit: list(map(str, fit(gold).predict(list(texts)))) for name, fit in models.items()}


def _vectorizer() -> TfidfVectorizer:
    """Words and word pairs of a text, weighted by how rare they are; one letter is a word too."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")


def tfidf_model(gold: Sequence[Example]) -> Pipeline:
    """Logistic regression on the words and word pairs of a text, weighted by how rare they are (scikit-learn)."""
    model = make_pipeline(_vectorizer(), LogisticRegression(C=10.0, max_iter=2000))
    return model.fit([example.text for example in gold], [example.target for example in gold])


def nearest(gold: Sequence[Example], texts: Sequence[str]) -> list[str]:
    """The output of the labelled row whose input shares most with a text, by cosine of TF-IDF."""
    vectorizer = _vectorizer()
    known = vectorizer.fit_transform([example.text for example in gold])
    best = (vectorizer.transform(list(texts)) @ known.T).toarray().argmax(1)
    return [gold[place].target for place in best]


def setfit_model(gold: Sequence[Example], settings: Settings) -> Any:
    """SetFit (Tunstall et al. 2022) on the students' own pretrained model, with the paper's 20 pairs of each kind a row."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    labels = sorted({example.target for example in gold})
    model: Any = SetFitModel.from_pretrained(str(assets.model_path(settings.students.model)), labels=labels)
    rows = Dataset.from_dict({"text": [example.text for example in gold], "label": [example.target for example in gold]})
    with tempfile.TemporaryDirectory(prefix="synthtune-") as folder:  # its default is a folder where the user stands
        arguments = TrainingArguments(output_dir=folder, seed=settings.seed, num_epochs=1, num_iterations=20, report_to="none",
                                      save_strategy="no", show_progress_bar=False)
        Trainer(model=model, args=arguments, train_dataset=rows).train()
    return model
