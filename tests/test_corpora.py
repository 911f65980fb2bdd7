"""The package's own corpora: format, sizes, what is held out, and that they are made the same each time."""

import json
import re

import corpus_measures
import pytest
from lxml import etree
from synthtune.errors import CorpusError
from synthtune.files import digest
from synthtune.tasks import sgd, webnlg
from toy_corpora import almanac, dialogues, facts

SPLITS = ("train", "dev", "test")
SMALL = {"train": 60, "dev": 20, "test": 20}


@pytest.fixture(scope="module")
def facts_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "facts"
    facts.write(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def dialogues_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "dialogues"
    dialogues.write(folder, seed=0)
    return folder


@pytest.fixture(params=["facts", "dialogues"])
def corpus(request, facts_folder, dialogues_folder):
    """Give the module of a corpus, its examples by split and what is measured of it."""
    module, folder, reader = {
        "facts": (facts, facts_folder, webnlg),
        "dialogues": (dialogues, dialogues_folder, sgd),
    }[request.param]
    measure = {"facts": corpus_measures.of_facts, "dialogues": corpus_measures.of_dialogues}[request.param]
    return module, {split: reader.read(folder, split) for split in SPLITS}, measure(folder)


def test_sizes_are_exact(corpus):
    module, examples, _ = corpus
    assert {split: len(examples[split]) for split in SPLITS} == module.SIZES
    for split in SPLITS:
        assert len({example.id for example in examples[split]}) == len(examples[split])


def test_no_set_of_facts_or_actions_is_there_twice(corpus):
    _, examples, _ = corpus
    inputs = [frozenset(example.text.split(" && ")) for split in SPLITS for example in examples[split]]
    assert len(set(inputs)) == len(inputs)


def test_test_and_dev_have_three_references_or_more_all_different(corpus):
    _, examples, _ = corpus
    for split in ("dev", "test"):
        for example in examples[split]:
            assert len({text.lower() for text in example.references}) == len(example.references) >= 3, example
            assert example.target == example.references[0]


def test_two_texts_of_an_entry_are_the_most_in_training(facts_folder):
    assert {len(example.references) for example in webnlg.read(facts_folder, "train")} == {1, 2}


def test_test_set_holds_out_combinations_and_entities(corpus):
    _, examples, report = corpus
    assert report["held-out share"] >= 0.4
    assert report["held-out combinations"]
    only = report.get("subjects only in test") or report["names only in test"]
    assert len(only) >= 5
    assert not any(f"| {name} |" in example.text for name in only for example in examples["train"])


def test_domains_lengths_and_vocabulary(corpus):
    module, _, report = corpus
    assert report["domains"] >= 6
    assert report["words"] <= 2500
    for split in report["splits"].values():
        assert split["shortest text"] >= module.SHORTEST and split["longest text"] <= module.LONGEST
        assert 9 <= split["target words"] <= 15
        assert split["input words"] <= 30


def test_one_to_three_facts_and_actions(corpus):
    module, examples, _ = corpus
    for split in SPLITS:
        parts = [len(example.text.split(" && ")) - (module is dialogues) for example in examples[split]]
        assert set(parts) == {1, 2, 3}
        assert min(parts.count(number) for number in (1, 2, 3)) > 0.15 * len(parts)


def test_english_is_clean(corpus):
    _, examples, _ = corpus
    for split in SPLITS:
        for example in examples[split]:
            for text in example.references:
                assert text[0].isupper() or text[0].isdigit(), text
                assert text[-1] in ".?!" and not re.search(r" [.,?]|,,|\.\.|\{|\}|  ", text), text
                assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
                assert not re.search(r"\ba [aeio]\w|\ban [^aeiouAEIOU]", text), text


def test_every_fact_is_told_in_every_text(facts_folder):
    for split in ("dev", "test"):
        for example in webnlg.read(facts_folder, split):
            for triple in example.text.split(" && "):
                subject, _, value = triple.split(" | ")
                for text in example.references:
                    assert subject.lower() in text.lower() and value in text, (example.text, text)


def test_every_value_is_told_in_every_text(dialogues_folder):
    for split in ("dev", "test"):
        for example in sgd.read(dialogues_folder, split):
            for values in re.findall(r" = (.*?)(?: &&|$)", example.text):
                assert all(value in text for value in values.split(" or ") for text in example.references), (
                    example
                )


def test_training_sees_each_common_subject_eight_times(facts_folder):
    counts = {}
    for example in webnlg.read(facts_folder, "train"):
        subject = example.text.split(" | ")[0]
        counts[subject] = counts.get(subject, 0) + 1
    assert min(counts.values()) >= 8


@pytest.mark.parametrize(("module", "published"), [(facts, "eafacaabd5e030df"), (dialogues, "64f2d958612574ee")])
def test_same_seed_same_bytes(module, published, tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        module.write(tmp_path / name, seed, SMALL)
    content = {
        name: {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in sorted((tmp_path / name).rglob("*.*"))
        }
        for name in ("one", "two", "other")
    }
    assert content["one"] == content["two"] != content["other"]
    assert digest({name: file.decode() for name, file in content["one"].items()})[:16] == published, "results are cached by these bytes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "two"]


def test_more_entries_than_the_tables_hold_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="ask for fewer"):
        facts.write(tmp_path / "facts", 0, {"train": 60_000})
    assert not list(tmp_path.iterdir())


def test_facts_have_the_release_format(facts_folder):
    paths = sorted(facts_folder.glob("*/*triples/*.xml"))
    assert {path.stem for path in paths} == set(facts.DOMAINS)
    for path in paths:
        root = etree.parse(str(path)).getroot()
        assert root.tag == "benchmark" and [child.tag for child in root] == ["entries"]
        for number, entry in enumerate(root[0], 1):
            assert entry.get("eid") == f"Id{number}" and entry.get("category") == path.stem
            assert [child.tag for child in entry][:2] == ["originaltripleset", "modifiedtripleset"]
            triples = entry.findall("modifiedtripleset/mtriple")
            assert f"{len(triples)}triples" == path.parent.name == f"{entry.get('size')}triples"
            assert entry.get("shape").count("(") == len(triples) + 1
            assert all(" " not in part for triple in triples for part in triple.text.split(" | "))


def test_dialogues_have_the_release_format(dialogues_folder):
    for split in SPLITS:
        schema = {
            service["service_name"]: service
            for service in json.loads((dialogues_folder / split / "schema.json").read_text("utf-8"))
        }
        ids = []
        for path in sorted((dialogues_folder / split).glob("dialogues_*.json")):
            for dialogue in json.loads(path.read_text("utf-8")):
                ids.append(dialogue["dialogue_id"])
                check_dialogue(dialogue, schema)
        assert len(set(ids)) == len(ids)


def check_dialogue(dialogue, schema):
    turns = dialogue["turns"]
    assert [turn["speaker"] for turn in turns] == ["USER", "SYSTEM"] * (len(turns) // 2)
    assert turns[-1]["frames"][0]["actions"][-1]["act"] == "GOODBYE"
    for turn in turns:
        [frame] = turn["frames"]
        service = schema[frame["service"]]
        slots = {slot["name"]: slot for slot in service["slots"]}
        intents = {intent["name"] for intent in service["intents"]}
        assert dialogue["services"] == [frame["service"]] and turn["utterance"]
        for action in frame["actions"]:
            assert (
                action["slot"] in ("", "intent", "count", *slots)
                and action["values"] == action["canonical_values"]
            )
            if action["slot"] == "intent":
                assert set(action["values"]) <= intents
            if slots.get(action["slot"], {}).get("is_categorical"):
                assert set(action["values"]) <= set(slots[action["slot"]]["possible_values"])
        for span in frame["slots"]:
            assert not slots[span["slot"]]["is_categorical"]
            value = turn["utterance"][span["start"] : span["exclusive_end"]]
            assert value in [value for action in frame["actions"] for value in action["values"]]
        if turn["speaker"] == "USER":
            state = frame["state"]
            assert state["active_intent"] in intents and set(state["requested_slots"]) <= set(slots)
            assert all(slot in slots and len(values) == 1 for slot, values in state["slot_values"].items())
        elif "service_call" in frame:
            assert frame["service_call"]["method"] in intents and frame["service_results"]


def test_almanac_rows_name_their_columns():
    for domain in facts.FOLLOWED.values():
        rows = almanac.rows(domain.table)
        assert len({row["name"] for row in rows}) == len(rows)
        assert all(set(row) <= {"name", *domain.phrases} for row in rows)
