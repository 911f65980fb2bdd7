"""Custom tasks: one file outside the package, of YAML or Python, is all that the whole study needs of a user's own benchmark."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from synthtune import custom, settings, task_list, tasks
from synthtune.analysis.results import corpora_sentence
from synthtune.conditions import CONDITIONS, FULL, PROMPTED
from synthtune.errors import CorpusError, RowsError, SettingsError
from synthtune.scale import planner
from test_any_model import ENCODERS, GROUPED, save

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = {"budgets": [16], "pool_size": 60, "test_size": 20, "dev_size": 10, "nlg_test_size": 10, "max_characters": 120,
        "teacher.epochs": 1, "teacher.frozen_layers": 28, "teacher.test_examples": 10, "annotate.inputs": 10, "annotate.max_new_tokens": 8,
        "generate.pairs": 12, "generate.max_new_tokens": 40, "students.steps": 2, "students.max_new_tokens": 4, "students.sweep": [],
        "figures.resamples": 100}
PLACES = ("hotel", "museum", "garden", "harbour", "library", "market", "station", "theatre")
CITIES = ("Porto", "Lund", "Kyoto", "Quito", "Bergen", "Ghent", "Izmir", "Perth", "Turin", "Accra")
WORDS = {"yes": ("lovely", "calm", "bright", "kind"), "no": ("dull", "noisy", "grim", "rude")}


def rows(number=120, seed=0):
    """Visits: place, city and an opinion, in words of this file."""
    draw = random.Random(seed)
    for visit in range(number):
        label = draw.choice(("yes", "no"))
        place, city, word, other = draw.choice(PLACES), draw.choice(CITIES), *draw.sample(WORDS[label], 2)
        yield {"visit": f"{visit} days in {city}, in a {word} {place} with {other} people and {draw.randrange(10**6)} steps.",
               "worth it": label, "facts": f"{place} | city | {city} | steps {draw.randrange(10**6)}",
               "sentence": f"We saw the {place} of {city}."}


TRIPS = '''
import json
from synthtune.tasks.example import Example, PromptTemplate
from synthtune.tasks.spec import Corpus, Spec


def read(folder):
    rows = list(map(json.loads, (folder / "trips.jsonl").read_text().splitlines()))
    pairs = [Example(str(number), row["facts"], row["sentence"], (row["sentence"],)) for number, row in enumerate(rows)]
    return Corpus(train=pairs[20:], dev=pairs[:10], test=pairs[10:20])


TASKS = {"trips": Spec(
    title="Trips", read=read, template=PromptTemplate("Say where we were.", "Facts", "Sentence"), task_type="generation",
    sentences=("pier | city | Hull", "gate | city | Bath"), answer="We saw the pier of Hull.", tokens={"input": 12, "output": 8},
    is_input=lambda text: text.count(" | ") == 3, values=lambda text: text.split(" | ")[0::2][:2])}
'''


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Small random models in the place of real ones."""
    folder = tmp_path_factory.mktemp("models")
    save(folder / "teacher", "Llama", GROUPED, "ForCausalLM", "")
    save(folder / "student", "Bert", ENCODERS["Bert"], "Model", "<s> $A </s>", cls_token="<s>", sep_token="</s>")
    return {"teacher.model": str(folder / "teacher"), "students.model": str(folder / "student"), "teacher.frozen_layers": 2,
            "teacher.vocabulary": None, "teacher.max_tokens": 200, "generate.max_new_tokens": 150}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two task files and their rows, one to classify and one to generate text; two Python files and theirs, one of each kind.

    The Python file of a task to classify is the one that the documentation shows.
    """
    folder = tmp_path_factory.mktemp("mine")
    table = pd.DataFrame(rows())
    table.to_csv(folder / "visits.csv", index=False)
    table.to_json(folder / "trips.jsonl", orient="records", lines=True)
    (folder / "visits.yaml").write_text("rows: visits.csv\ntext: visit\nlabel: worth it\nlabel_names: {yes: good, no: bad}\n"
                                        "description: Say whether the visit was good or bad.\n")
    (folder / "Trip-report.yaml").write_text("rows: trips.jsonl\ntext: facts\ntarget: sentence\n")
    [shown] = re.findall("```python\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text("utf-8"), re.DOTALL)
    (folder / "moods.py").write_text(shown)
    (folder / "trips.py").write_text(TRIPS)
    (folder / "moods.txt").write_text("".join(f"{'glad' if row['worth it'] == 'yes' else 'sad'} {row['visit']}\n" for row in rows()))
    with patch.dict(task_list.SPECS):
        yield folder


def load(folder, run_dir=None, **changes):
    given = {**TINY, "tasks": [str(folder / "visits.yaml"), str(folder / "Trip-report.yaml")], **changes}
    return settings.load("smoke", given, run_dir=run_dir or folder / "run")


def test_the_whole_study_runs_on_them(folder, small):
    run = folder / "run"
    changes = {**TINY, **small, "tasks": ["visits.yaml", "trips.py"], "run_dir": str(run), "jobs": 2}
    command = [sys.executable, "-m", "synthtune.run.reproduce", "--profile", "smoke",
               *(f"--set={name}={json.dumps(value)}" for name, value in changes.items())]

    def study(*more):
        return subprocess.run([*command, *more], cwd=folder, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "lib"), "SYNTHTUNE_STARTED_IN": str(folder)},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    said = study()
    assert said.returncode == 0, said.stdout
    every = {*CONDITIONS, FULL} - {PROMPTED}
    for task, conditions in (("visits", every), ("trips", {"gold", "gold+annotated", FULL})):
        results = pd.read_parquet(run / task / "results.parquet")
        assert conditions <= set(results["condition"])
    table = pd.read_csv(run / "figures" / "table_1.csv")
    assert {"Visits", "Trips"} <= set(table["title"])
    claims, report = ((run / "figures" / name).read_text() for name in ("claims.md", "report.html"))
    assert "Visits" in claims and "Custom tasks: Visits and Trips." in report
    assert (run / "figures" / "figure_2.png").exists() and (run / "figures" / "figure_3.png").exists()
    for task, shown in (("visits", "Visit: 0 days in"), ("trips", "pier | city | Hull")):
        tuned = json.loads((run / "notebooks" / f"{task}-16-01_teacher.ipynb").read_text())
        assert shown in json.dumps(tuned), "its sentences, or its first row, are what notebooks show"

    assert "Nothing to do" in study().stdout
    (folder / "visits.csv").write_text((folder / "visits.csv").read_text() + "One more grim day in Oslo.,no,,\n")
    again = study("--dry-run").stdout
    for said in ("run    01_teacher · visits", "reuse  01_teacher · trips"):
        assert said in again, "rows are part of what results are made from"
    assert "reuse  01_teacher · trips" in study("--dry-run", "--only", "trips").stdout
    assert "did you mean 'visits'" in study("--only", "visit").stdout


def test_they_are_planned_by_the_length_of_their_rows(folder):
    chosen = load(folder)
    plan = planner.plan(chosen)
    assert set(plan.table["task"]) == {"visits", "trip_report"}
    texts = planner.Texts.of("visits", chosen)
    assert texts.labels == 2 and 10 < texts.input < 25 and texts.output == 1
    assert planner.Texts.of("trip_report", chosen).labels == 0


def test_a_task_is_made_of_its_rows(folder, tmp_path):
    chosen = load(folder, tmp_path)
    visits, trips = (tasks.load(name, chosen) for name in chosen.tasks)
    assert (visits.name, visits.title, visits.task_type, visits.labels) == ("visits", "Visits", "classification", ("bad", "good"))
    assert visits.template == tasks.PromptTemplate("Say whether the visit was good or bad.", "Visit", "Worth it")
    assert (len(visits.pool), len(visits.dev), len(visits.test)) == (60, 10, 20)
    assert (trips.name, trips.task_type, trips.labels, len(trips.test)) == ("trip_report", "generation", (), 10)
    texts = [example.text for split in (visits.pool, visits.dev, visits.test) for example in split]
    assert len(set(texts)) == len(texts)
    assert tasks.load(str(folder / "visits.yaml"), settings.load("smoke", TINY, run_dir=tmp_path)) == visits, "a notebook's task"


def test_test_rows_of_a_file_are_the_test_set(folder, tmp_path):
    pd.DataFrame(rows(30, seed=1)).to_parquet(tmp_path / "held.parquet")
    (tmp_path / "visits.yaml").write_text(f"rows: {folder / 'visits.csv'}\ntest: held.parquet\ntext: visit\nlabel: worth it\n")
    task = tasks.load("visits", settings.load("smoke", {**TINY, "tasks": [str(tmp_path / "visits.yaml")]}, run_dir=tmp_path))
    assert {example.id.split("-")[0] for example in task.test} == {"test"} and len(task.test) == 20


def test_what_is_written_down_for_the_teacher_is_part_of_its_digest(folder, tmp_path):
    file = tmp_path / "visits.yaml"
    text = (folder / "visits.yaml").read_text().replace("visits.csv", str(folder / "visits.csv"))
    file.write_text(text)
    chosen = settings.load("smoke", {**TINY, "tasks": [str(file)]}, run_dir=tmp_path)
    before = tasks.load("visits", chosen).digest
    file.write_text(text.replace("good or bad", "bad or good"))
    assert tasks.load("visits", chosen).digest != before


def test_settings_of_its_type_and_its_own(folder):
    chosen = load(folder, **{"per_task.visits.teacher.epochs": 9, "per_task.trip_report.students.learning_rate": 0.5})
    assert chosen.for_task("visits").teacher.epochs == 9
    nlg = chosen.for_task("trip_report")
    assert nlg.teacher.learning_rate == chosen.custom.nlg["teacher.learning_rate"] and nlg.students.learning_rate == 0.5
    assert str(folder) not in json.dumps(chosen.for_stage("figures")), "a study that moves is the same study"


def test_a_python_file_is_a_task(folder, tmp_path):
    files = ["moods.py", "trips.py"]
    chosen = settings.load("smoke", {**TINY, "tasks": [str(folder / name) for name in files]}, run_dir=tmp_path)
    assert chosen.tasks == ["moods", "trips"] and set(planner.plan(chosen).table["task"]) == {"moods", "trips"}
    assert chosen.for_task("trips").teacher.learning_rate == chosen.custom.nlg["teacher.learning_rate"]
    assert corpora_sentence(chosen.tasks, chosen) == "Custom tasks: Moods and Trips."
    moods, trips = (tasks.load(name, chosen) for name in chosen.tasks)
    assert (moods.title, moods.task_type, moods.labels, moods.template.output) == ("Moods", "classification", ("glad", "sad"), "Mood")
    assert (len(moods.pool), len(moods.dev), len(moods.test)) == (60, 10, 20)
    assert trips.task_type == "generation" and trips.dev and trips.test
    assert all(int(each.id) < 10 for each in trips.dev) and all(10 <= int(each.id) < 20 for each in trips.test)
    assert trips.is_input(trips.pool[0].text) and not trips.is_input("a hotel")
    assert trips.missing_slots("pier | city | Hull | steps 3", "We saw the pier.") == ["Hull"]
    assert tasks.load(str(folder / "moods.py"), settings.load("smoke", TINY, run_dir=tmp_path)) == moods, "a notebook's task"
    with patch.dict(task_list.SPECS):  # as in another process, which is given settings alone
        del task_list.SPECS["moods"], task_list.SPECS["trips"]
        assert tasks.load("moods", settings.Settings(**chosen.model_dump(mode="json"))) == moods


def test_what_a_python_file_says_is_part_of_its_digest(folder, tmp_path):
    (tmp_path / "moods.txt").write_text((folder / "moods.txt").read_text())
    digests = set()
    for old, new in (("", ""), ("glad or sad", "sad or glad"), ('split(" ", 1)', "split(None, 1)")):
        (tmp_path / "feelings.py").write_text((folder / "moods.py").read_text().replace('"moods"', '"feelings"').replace(old, new))
        chosen = settings.load("smoke", {**TINY, "tasks": [str(tmp_path / "feelings.py")]}, run_dir=tmp_path)
        digests.add(tasks.load("feelings", chosen).digest)
    assert len(digests) == 3
    (tmp_path / "moods.txt").unlink()
    with pytest.raises(CorpusError, match=r"feelings.py: its reader fails on .*moods.txt.*correct the reader"):
        tasks.load("feelings", chosen)


@pytest.mark.parametrize(("content", "said"), [
    (None, "there is no file .*mine.py"),
    ("import nothing_of_that_name", r"mine.py cannot be run \(ModuleNotFoundError"),
    ("TASKS = {'mine': 'Mine'}", r"mine.py: a file of tasks says TASKS = .*docs/tasks.md"),
    (TRIPS.replace('"trips":', '"tweets":'), "the task's name 'tweets' is taken"),
    (TRIPS.replace('"trips":', '"My trips":'), "name 'My trips' .* other characters"),
    (TRIPS.replace('"trips":', '"figures":'), "a folder of the results, is called 'figures'"),
])
def test_a_python_file_that_is_no_task_is_refused(tmp_path, content, said):
    if content:
        (tmp_path / "mine.py").write_text(content)
    with patch.dict(task_list.SPECS), pytest.raises(SettingsError, match=said):
        settings.load("smoke", {"tasks": [str(tmp_path / "mine.py")]})


@pytest.mark.parametrize(("name", "content", "said"), [
    ("tweets.yaml", "rows: a.csv\nlabel: b\n", "another task, .* is called 'tweets'; rename the file"),
    ("mine.yaml", "rows: a.csv\n", "mine.yaml: .* add 'label: COLUMN'"),
    ("mine.yaml", "row: a.csv\nlabel: b\n", "line 1: unknown key 'row'; did you mean 'rows'"),
    ("mine.yaml", None, "there is no file .*mine.yaml"),
])
def test_a_task_file_that_is_none_is_refused(tmp_path, name, content, said):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=said):
        settings.load("smoke", {"tasks": [str(tmp_path / name)]})


def test_an_unkncustom_task_is_told_the_nearest_custom_one(folder):
    with pytest.raises(SettingsError, match="did you mean 'visits'"):
        load(folder).check("visit")
    with pytest.raises(SettingsError, match="per_task: unknown task 'vists'; did you mean 'visits'"):
        load(folder, **{"per_task.vists.teacher.epochs": 9})


def test_rows_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"text {n},same\n" for n in range(20)))
    (tmp_path / "mine.yaml").write_text("rows: rows.csv\nlabel: label\n")
    chosen = settings.load("smoke", {"tasks": [str(tmp_path / "mine.yaml")]}, run_dir=tmp_path)
    with pytest.raises(RowsError, match=re.escape("mine.yaml: rows.csv")):
        tasks.load("mine", chosen)


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset as the hub has them, with labels stored as numbers, and a client that asks a folder in its place."""
    import datasets
    import huggingface_hub

    named = datasets.Features({"visit": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    for split, number, seed in (("train", 120, 0), ("validation", 30, 1)):
        table = [{"visit": row["visit"], "label": int(row["worth it"] == "yes")} for row in rows(number, seed)]
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(table, features=named).to_parquet(tmp_path / "hub" / "data" / f"{split}-0.parquet")
    asked, load_dataset = [], datasets.load_dataset

    def local(path, name=None, *, split, revision):
        asked.append((path, name, split, revision))
        return load_dataset(str(tmp_path / "hub"), split=split, cache_dir=str(tmp_path / "cache"))

    def info(repository, revision=None):
        asked.append((repository, revision))
        return type("Info", (), {"sha": SHA})

    monkeypatch.setenv("SYNTHTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", local)
    monkeypatch.setattr(huggingface_hub, "dataset_info", info)
    (tmp_path / "visits.yaml").write_text("hub: me/visits\nconfig: small\nsplits: {rows: train, test: validation}\nlabel: label\n")
    return tmp_path / "visits.yaml", asked


def test_rows_of_a_dataset_on_the_hub(hub, tmp_path):
    file, asked = hub
    chosen = settings.load("smoke", {**TINY, "tasks": [str(file)]}, run_dir=tmp_path)
    assert chosen.hub_datasets() == ["visits"]
    task = tasks.load("visits", chosen)
    assert task.labels == ("no", "yes") and len(task.pool) == 60 and {example.id[:4] for example in task.test} == {"test"}
    assert task.report["revision"] == SHA
    assert asked[:3] == [("me/visits", None), ("me/visits", "small", "train", SHA), ("me/visits", "small", "validation", SHA)]
    assert asked.count(("me/visits", None)) == 1, "resolved once, and kept"
    asked.clear()
    file.write_text(file.read_text() + f"revision: {SHA[::-1]}\n")
    assert tasks.load("visits", chosen) == task, "the rows are the same"
    assert {each[-1] for each in asked} == {SHA[::-1]}, "what is pinned is not looked up"


def test_the_report_of_custom_names_the_revision(hub):
    own = custom.read(hub[0])
    assert not own.report.errors and f"revision: {SHA}" in str(own.report) and (len(own.gold), len(own.test)) == (120, 30)


@pytest.mark.parametrize(("error", "said"), [
    (ConnectionError("Couldn't reach 'me/visits' on the Hub (OfflineModeIsEnabled)"), "HF_HUB_OFFLINE forbids"),
    (ValueError("Unknown split \"train\". Should be one of ['test']."), "correct 'config:' or 'splits:'"),
    (FileNotFoundError("Dataset 'me/visits' is a gated dataset on the Hub."), "ask for access"),
    (FileNotFoundError("Dataset 'me/visits' doesn't exist on the Hub or cannot be accessed."), "correct 'hub:'"),
    (TimeoutError("timed out"), "check the connection"),
])
def test_a_hub_that_gives_nothing_is_one_sentence(hub, monkeypatch, error, said):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("datasets.load_dataset", refuse)
    problem, *_ = custom.read(hub[0]).report.errors
    assert said in str(problem) and "\n" not in str(problem)


@pytest.mark.parametrize(("content", "said"), [
    ("hub: me/visits\nrows: a.csv\nlabel: label\n", "hub takes the place of files"),
    ("hub: me/visits\nsplits: {test: validation}\nlabel: label\n", "name the splits"),
    ("hub: me/visits\nsplits: {rows: train, dev: validation}\nlabel: label\n", "splits"),
    ("hub: https://hub/me/visits\nlabel: label\n", "hub"),
    ("rows: a.csv\nconfig: small\nlabel: label\n", "config is for a dataset on the hub"),
])
def test_keys_of_hub_datasets_that_cannot_be_used(tmp_path, content, said):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(SettingsError, match=said):
        custom.read(tmp_path / "mine.yaml")
