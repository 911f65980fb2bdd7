"""Readers of the official formats, on small files made here and, where they are at hand, on real corpora."""

import json
import os
from pathlib import Path

import pytest
from synthtune import settings, tasks
from synthtune.errors import CorpusError, SettingsError
from synthtune.task_list import SPECS
from synthtune.tasks import banking77, formats, sgd, splits, webnlg
from synthtune.tasks.example import divided

SHARED = Path(os.environ.get("SYNTHTUNE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))

ENTRY = """
    <entry category="City" eid="Id1" size="2">
      <modifiedtripleset>
        <mtriple>New_Town | cityServed | Old_Port</mtriple>
        <mtriple>New_Town | elevation_(in_metres) | "12.0"</mtriple>
      </modifiedtripleset>
      <lex comment="good" lid="Id1">New Town, 12 metres up,
        serves Old Port.</lex>
      <lex comment="good" lid="Id2">Old Port is served by New Town.</lex>
    </entry>"""


def write_webnlg(folder, entries, head="<?xml version='1.0' encoding='utf-8'?>"):
    path = folder / "train" / "2triples" / "City.xml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{head}\n<benchmark>\n  <entries>{entries}\n  </entries>\n</benchmark>\n", "utf-8")
    return path


def test_webnlg_entry(tmp_path):
    write_webnlg(tmp_path, ENTRY)
    [example] = webnlg.read(tmp_path, "train")
    assert example.text == "New Town | city served | Old Port && New Town | elevation (in metres) | 12.0"
    assert example.target == "New Town, 12 metres up, serves Old Port."
    assert example.references == (example.target, "Old Port is served by New Town.")
    assert example.id == "train/2triples/City/Id1"


def test_webnlg_entries_without_text_are_left_out(tmp_path):
    bare = ENTRY[: ENTRY.index("<lex")].replace("Id1", "Id2") + "</entry>"
    write_webnlg(tmp_path / "webnlg" / "release_v2", ENTRY + bare)
    assert len(webnlg.read(tmp_path, "train")) == 1
    assert webnlg.read(tmp_path, "train", max_triples=1) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</entry>", "", r"City.xml, line 1[34]: not well-formed XML"),
        (
            "New_Town | cityServed | Old_Port",
            "New_Town | cityServed",
            r"City.xml, line 6: 'New_Town \| cityServed' is not",
        ),
        ('eid="Id1"', "", r"City.xml, line 4: this entry has no attribute 'eid'"),
        ("modifiedtripleset", "tripleset", r"City.xml, line 4: entry 'Id1' has no <modifiedtripleset>"),
    ],
)
def test_webnlg_malformed_files_are_named_with_their_line(tmp_path, old, new, message):
    write_webnlg(tmp_path, ENTRY.replace(old, new))
    with pytest.raises(CorpusError, match=message):
        webnlg.read(tmp_path, "train")


def test_webnlg_refuses_entities(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("private")
    head = f'<?xml version="1.0"?>\n<!DOCTYPE benchmark [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    write_webnlg(tmp_path, ENTRY.replace("serves", "&x;"), head)
    with pytest.raises(CorpusError, match="document type declaration"):
        webnlg.read(tmp_path, "train")


def test_webnlg_missing_or_unknown_split(tmp_path):
    with pytest.raises(CorpusError, match="No WebNLG corpus in .* under release_v2/ or webnlg/ or"):
        webnlg.read(tmp_path, "train")
    with pytest.raises(CorpusError, match="no WebNLG split 'validation'"):
        webnlg.read(tmp_path, "validation")


SCHEMA = [
    {
        "service_name": "Ferries_2",
        "description": "Boats across the lake. Runs daily.",
        "slots": [{"name": "port_name", "description": "Port to leave from."}],
        "intents": [{"name": "BookFerry", "description": "book a ferry"}],
    }
]


def action(act, slot="", *values):
    return {"act": act, "slot": slot, "values": list(values), "canonical_values": list(values)}


def turn(utterance, *actions, speaker="SYSTEM"):
    return {
        "speaker": speaker,
        "utterance": utterance,
        "frames": [{"service": "Ferries_2", "actions": list(actions)}],
    }


def write_sgd(folder, turns, schema=SCHEMA):
    split = folder / "train"
    split.mkdir(parents=True)
    (split / "schema.json").write_text(json.dumps(schema), "utf-8")
    path = split / "dialogues_001.json"
    path.write_text(json.dumps([{"dialogue_id": "1_00007", "turns": turns}], indent=1), "utf-8")
    return path


def test_sgd_turns_with_the_same_actions_are_one_example(tmp_path):
    write_sgd(
        tmp_path / "sgd",
        [
            turn("Hello.", action("INFORM", "port_name", "Bay"), speaker="USER"),
            turn(
                "It leaves from Bay.",
                action("INFORM", "port_name", "Bay"),
                action("OFFER_INTENT", "intent", "BookFerry"),
            ),
            turn("From Bay or Cape?", action("REQUEST", "port_name", "Bay", "Cape")),
            turn(
                "Bay is the port.",
                action("INFORM", "port_name", "Bay"),
                action("OFFER_INTENT", "intent", "BookFerry"),
            ),
            turn("I found 4.", action("INFORM_COUNT", "count", "4"), action("REQ_MORE")),
        ],
    )
    first, second, third = sgd.read(tmp_path, "train")
    assert first.text == (
        "Ferries, Boats across the lake && inform Port to leave from = Bay && offer intent book a ferry"
    )
    assert first.target == "It leaves from Bay." and first.references == (
        "It leaves from Bay.",
        "Bay is the port.",
    )
    assert second.text.endswith("&& request Port to leave from = Bay or Cape")
    assert third.text.endswith("&& inform count = 4 && req more")
    assert first.id == "train/1_00007/1"


def test_sgd_leaves_out_turns_with_more_actions(tmp_path):
    write_sgd(tmp_path, [turn("A.", *[action("INFORM", "port_name", str(number)) for number in range(4)])])
    assert sgd.read(tmp_path, "train") == [] and len(sgd.read(tmp_path, "train", max_actions=4)) == 1


def test_sgd_broken_json_is_named_with_its_line(tmp_path):
    path = write_sgd(tmp_path, [turn("Bye.", action("GOODBYE"))])
    path.write_text(path.read_text().replace('"speaker": "SYSTEM",', '"speaker": "SYSTEM"'))
    with pytest.raises(CorpusError, match=r"dialogues_001.json, line 7: not JSON"):
        sgd.read(tmp_path, "train")


@pytest.mark.parametrize("key", ["speaker", "utterance", "frames"])
def test_sgd_missing_key_is_named_with_dialogue_and_turn(tmp_path, key):
    broken = turn("Bye.", action("GOODBYE"))
    del broken[key]
    write_sgd(tmp_path, [turn("Hi.", action("REQ_MORE")), broken])
    with pytest.raises(
        CorpusError, match=rf"001.json, dialogue 1_00007, turn 1: the key '{key}' is missing"
    ):
        sgd.read(tmp_path, "train")


def test_sgd_unknown_service_and_missing_files(tmp_path):
    path = write_sgd(tmp_path, [turn("Bye.", action("GOODBYE"))], schema=[])
    with pytest.raises(
        CorpusError, match="dialogue 1_00007, turn 0: the service 'Ferries_2' is not in"
    ):
        sgd.read(tmp_path, "train")
    path.unlink()
    with pytest.raises(CorpusError, match=r"no file like dialogues_\*.json"):
        sgd.read(tmp_path, "train")
    with pytest.raises(CorpusError, match="No Schema-Guided Dialogue corpus"):
        sgd.read(tmp_path, "dev")


needs_real = pytest.mark.skipif(
    not (SHARED / "webnlg").is_dir() or not (SHARED / "sgd").is_dir(),
    reason=f"the real corpora are not in {SHARED} (say where with SYNTHTUNE_SHARED_DATA)",
)


@needs_real
@pytest.mark.parametrize(
    ("split", "entries", "texts"), [("train", 12_876, 34_352), ("dev", 1_619, 4_316), ("test", 1_600, 4_224)]
)
def test_real_webnlg_counts(split, entries, texts):
    every = webnlg.read(SHARED, split, max_triples=7)
    assert (len(every), sum(len(example.references) for example in every)) == (entries, texts)
    examples = webnlg.read(SHARED, split)
    assert all(1 <= len(example.text.split(" && ")) <= 3 for example in examples)
    assert len({example.id for example in examples}) == len(examples)


@needs_real
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_real_sgd(split):
    examples = sgd.read(SHARED, split)
    assert len(examples) > 300
    assert all(
        2 <= len(example.text.split(" && ")) <= 4 and sgd.is_input(example.text) for example in examples
    )
    assert max(len(example.references) for example in examples) > 10


# -- public classification corpora -----------------------------------------------------------------

OFFICIAL = {
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tIt \"rained\" all day.\tThe day was wet.\tentailment\n"
            "1\tIt rained.\tIt snowed.\tnot_entailment\n", "Claim: The day was wet. Text: It \"rained\" all day.", ["yes", "no"]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t12\t13\tHe left early.\tHe went early.\n"
             "0\t14\t15\tShe said \"no.\tShe came.\n", "First: He left early. Second: He went early.", ["yes", "no"]),
    "boolq": ('{"question": "is rain wet", "title": "Rain", "answer": true, "passage": "Rain is water."}\n\n'
              '{"question": "is ice hot", "title": "Ice", "answer": false, "passage": "Ice is frozen water."}\n',
              "Question: is rain wet? Passage: Rain is water.", ["yes", "no"]),
    "banking77": ('text,category\n"My card,\nwhere is it?",card_arrival\nWhat is the rate?,exchange_rate\n',
                  "My card, where is it?", ["card arrival", "exchange rate"]),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_public_corpora_in_their_official_form(name, tmp_path):
    contents, first, targets = OFFICIAL[name]
    for file in SPECS[name].files:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text(contents, "utf-8")
    train, test, *_ = SPECS[name].read(tmp_path / name)
    assert train[0].text == test[0].text == first and [example.target for example in train] == targets
    assert len({example.id for example in train + test}) == 4
    assert all(divided(SPECS[name].pair, example.text) for example in train)
    assert (divided(SPECS[name].pair, first.split(": ", 1)[-1]) is not None) == (name == "banking77")


@pytest.mark.parametrize(("name", "old", "new", "message"), [
    ("rte", "\tentailment", "\tmaybe", r"train.tsv, line 2: label 'maybe' is none of 0, entailment"),
    ("rte", "sentence2", "claim", r"train.tsv, line 1: expected a header with sentence1, sentence2 and label"),
    ("rte", "\tIt snowed.", "", r"train.tsv, line 3: 3 columns, not 4"),
    ("mrpc", "1\t12", "2\t12", r"msr_paraphrase_train.txt, line 2: quality '2' is neither 0 nor 1"),
    ("mrpc", "He went early.", " ", r"msr_paraphrase_train.txt, line 2: a text is empty"),
    ("boolq", "true", '"yes"', r"train.jsonl, line 1: the answer is 'yes', neither true nor false"),
    ("boolq", '"passage": "Ice', '"text": "Ice', r"train.jsonl, line 3: expected a JSON object with question, passage"),
    ("boolq", '{"question": "is ice', '"is ice', r"train.jsonl, line 3: expected a JSON object"),
    ("banking77", ",exchange_rate", "", r"train.csv, line 4: 1 columns, not 2"),
    ("banking77", "exchange_rate", "", r"train.csv, line 4: the label is empty"),
])
def test_a_malformed_public_corpus_names_the_file_and_the_line(name, old, new, message, tmp_path):
    contents, _, _ = OFFICIAL[name]
    assert old in contents
    (tmp_path / SPECS[name].files[0]).write_text(contents.replace(old, new, 1), "utf-8")
    with pytest.raises(CorpusError, match=message):
        SPECS[name].read(tmp_path)


def test_a_missing_public_corpus_says_which_files_to_put_where(tmp_path):
    with pytest.raises(CorpusError, match=r"rte has no train.tsv and no dev.tsv: put the official files of rte there"):
        tasks.prepare("rte", settings.load("laptop", run_dir=tmp_path / "run", data_root=tmp_path))
    path = tmp_path / "train.csv"
    path.write_bytes(b"text,category\n\xff\xfe,card_arrival\n")
    with pytest.raises(CorpusError, match=r"train.csv: cannot be read \(.*utf-8"):
        formats.read(path, banking77.rows)


@pytest.mark.parametrize(("name", "sizes", "labels"), [("rte", (2490, 277), 2), ("banking77", (10003, 3080), 77)])
def test_real_public_corpora_have_their_published_sizes(name, sizes, labels, tmp_path):
    if not (SHARED / name).exists():
        pytest.skip(f"the real {name} is not at hand in {SHARED}")
    train, test, *_ = SPECS[name].read(SHARED / name)
    assert (len(train), len(test)) == sizes
    assert len({example.target for example in train}) == len({example.target for example in test}) == labels
    assert all("\n" not in example.text and divided(SPECS[name].pair, example.text) for example in train + test)
    chosen = settings.load("laptop", run_dir=tmp_path, data_root=SHARED)
    task = tasks.load(name, chosen)
    assert len(task.labels) == labels and len(task.test) == min(500, len(test)) and len(task.gold(125)) == 125
    assert {example.target for example in task.gold(125)} == set(task.labels)
    assert not {splits.normalised(e.text) for e in task.pool} & {splits.normalised(e.text) for e in task.test}


@pytest.mark.parametrize(("name", "pool", "test"), [
    ("rte", 2456, 277), ("banking77", 2500, 1000), ("webnlg", 2500, 1000), ("sgd", 2124, 355)])
def test_real_corpora_hold_every_budget_of_the_paper(name, pool, test, tmp_path):
    if not (SHARED / name).exists():
        pytest.skip(f"the real {name} is not at hand in {SHARED}")
    # Of SGD only 8 of 127 files are at hand: they hold the budgets up to 50 %.
    fewer = {"budgets": [125, 250, 500, 1250]} if name == "sgd" else {}
    chosen = settings.load("paper", fewer, run_dir=tmp_path, data_root=SHARED).check(name)
    task = tasks.load(name, chosen)
    assert (len(task.pool), len(task.test)) == (pool, test)
    for budget in chosen.budgets:
        assert len(task.gold(budget)) == min(budget, pool) and len(task.unlabelled(budget)) == max(0, pool - budget)
    with pytest.raises(SettingsError, match=f"budget: 2800 labelled examples, but the pool of {name} has {pool}"):
        task.gold(2800)
