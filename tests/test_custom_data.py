"""A user's own rows: what is read, what is refused and how, what is repaired, and that none is lost."""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from synthtune import custom
from synthtune.custom import command, gather, readers, repairs, task_file
from synthtune.errors import RowsError, SettingsError
from synthtune.run import reproduce
from synthtune.tasks import splits

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SYNTHTUNE_SHARED_DATA", ROOT.parent / "shared" / "data"))

GOOD = [
    ("The strap, soft as it looks, survived a rainy summer", "good"),
    ("Hinge snapped on day three", "bad"),
    ("My mother finally hears the phone ring", "good"),
    ("Smells of burnt plastic whenever it charges", "bad"),
    ("Two thumbs up for the tiny manual with big pictures", "good"),
    ("Customer service never wrote back", "bad"),
    ("Quiet enough for a library", "good"),
    ("Battery empties overnight, even switched off", "bad"),
    ("Worth every cent we paid last spring", "good"),
    ("Letters rub away from the keys", "bad"),
    ("Fits exactly under my desk", "good"),
    ("Arrived scratched and without its lid", "bad"),
]
"""Twelve rows with nothing wrong; in a CSV they are lines 2 to 13."""


def as_csv(rows, header=("text", "label"), separator=","):
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


@pytest.fixture
def check(tmp_path):
    """Write files and a task file, and read them."""

    def make(rows, name="rows.csv", lines=(), **files):
        for file, content in {name: rows, **files}.items():
            path = tmp_path / file.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        task = tmp_path / "my_task.yaml"
        task.write_text("\n".join([f"rows: {name}", "profile: smoke", *lines]) + "\n")
        return custom.read(task)

    return make


def problem(own, name, severity="warning"):
    """The one problem of a name."""
    assert_nothing_lost(own)
    [found] = [each for each in own.report.problems if each.name == name]
    assert found.severity == severity and "\n" not in str(found)
    return found


def names(own):
    return [each.name for each in own.report.problems]


def assert_nothing_lost(own):
    for count in own.report.counts:
        assert count.rows_in == count.used + sum(count.dropped.values()), count


# -- the task file ---------------------------------------------------------------------------------


def refused(tmp_path, text):
    path = tmp_path / "my_task.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        task_file.load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: a.csv\nlable: x\n", "my_task.yaml, line 2: unknown key 'lable'; did you mean 'label'?"),
        ("rows: a.csv\ntrust_remote_code: true\n", "line 2: unknown key 'trust_remote_code'"),
        ("label: x\n", "rows: is missing"),
        ("rows: a.csv\nlabel: x\n\ntarget: y\n", "give label (classification) or target"),
        ("rows: a.csv\ntext: [a, b, c]\n", "line 2: text"),
        ("rows: a.csv\ntext: x\nlabel: x\n", "must be different columns"),
        ("rows: https://example.org/a.csv\n", "line 1: rows: is an address; download it"),
        ("rows: hf://datasets/a\n", "nothing is fetched"),
        ("rows: a.csv\nprofile: labtop\n", "did you mean 'laptop'"),
        ("rows: a.csv\nrows: b.csv\n", "line 2: 'rows' is also on line 1"),
        ("rows: a.csv\nlabel_names: [a]\n", "line 2: label_names"),
        ("rows: a.csv\nseparator: ', '\n", "line 2: separator"),
        ('rows: a.csv\ndescription: "\\ud800"\n', "half a letter"),
        ("rows: [unclosed\n", "not valid YAML"),
        ("- a\n- b\n", "no 'key: value' lines"),
        ("", "no 'key: value' lines"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("x" * 20_000, "longer than"),
        ("[" * 10_000, "my_task.yaml"),
        ("rows: !!python/object/apply:os.system ['echo']\n", "line 1: rows"),
    ],
)
def test_a_task_file_that_cannot_be_used_names_line_and_key(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_every_problem_of_a_task_file_is_named_at_once(tmp_path):
    said = refused(tmp_path, "row: a.csv\nlable: x\nprofile: labtop\n").splitlines()
    assert len(said) == 4 and all(line.startswith("my_task.yaml, line") for line in said)


def test_values_of_a_task_file_are_texts(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text('rows: a.tsv\nseparator: "\\t"\nlabel_names: {0: no, 1: yes}\ntest:\ntext: [a, b]\n')
    task = task_file.load(path)
    assert task.label_names == {"0": "no", "1": "yes"} and task.separator == "\t" and task.test is None
    assert task.text == ["a", "b"] and task.profile == "laptop" and task.name == "t"
    assert task.located(task.rows) == tmp_path / "a.tsv"


def test_a_missing_task_file(tmp_path):
    with pytest.raises(SettingsError, match="there is no file"):
        task_file.load(tmp_path / "none.yaml")


# -- rows with nothing wrong, in every format ------------------------------------------------------


def written(tmp_path, kind, frame):
    """Write a table in a format; return its name."""
    path = tmp_path / f"rows.{kind}"
    if kind in ("csv", "tsv"):
        frame.to_csv(path, sep="," if kind == "csv" else "\t", index=False, lineterminator="\n")
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for row in [list(frame), *frame.itertuples(index=False)]:
            book.active.append([None] * len(row))
            for place, cell in enumerate(row, 1):
                book.active.cell(book.active.max_row, place).value = cell
                book.active.cell(book.active.max_row, place).data_type = "s"
        book.save(path)
    else:
        import datasets

        datasets.Dataset.from_pandas(frame, preserve_index=False).save_to_disk(str(path))
    return path.name


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx", "folder"])
def test_the_same_rows_come_out_of_every_format(tmp_path, kind):
    texts = [
        *(text for text, _ in GOOD),
        'He said "no",\nthen\tleft; for good',
        "naïve café, 日本語 🎉",
        "NA",
    ]
    labels = [*(label for _, label in GOOD), "good", "bad", "good"]
    name = written(tmp_path, kind, pd.DataFrame({"number": range(15), "text": texts, "label": labels}))
    (tmp_path / "t.yaml").write_text(f"rows: {name}\n")
    own = custom.read(tmp_path / "t.yaml")
    assert list(own.gold["text"]) == texts and list(own.gold["output"]) == labels and not own.report.errors
    assert (
        own.task_type == "classification"
        and own.labels == ("bad", "good")
        and len(own.unlabelled) == len(own.test) == 0
    )
    first = {"csv": 2, "tsv": 2, "jsonl": 1, "parquet": 1, "xlsx": 2, "folder": 1}[kind]
    # The text with a line end takes two lines of a CSV, so the row after it is one further down.
    shift = [0] * 13 + [1, 1] if kind in ("csv", "tsv") else [0] * 15
    assert list(own.gold["row"]) == [first + number + more for number, more in enumerate(shift)]


def test_what_the_task_file_leaves_out_is_guessed_and_shown(check):
    own = check(as_csv(GOOD, header=("Review", "Sentiment"), separator=";"))
    shown = {(guess.what, guess.value) for guess in own.report.guesses}
    assert {
        ("separator", "semicolon"),
        ("encoding", "utf-8"),
        ("text", "Review"),
        ("label", "Sentiment"),
        ("type of task", "classification"),
    } <= shown
    for _, value in shown:
        assert value in str(own.report)
    assert names(own) == [] and "No problems found." in str(own.report)
    assert ("description", "Give the sentiment of the text.") in shown and "profile" not in dict(shown)
    task = own.task.path
    task.write_text("rows: rows.csv\ndescription: Say whether they are happy.\n")
    shown = dict((guess.what, guess.value) for guess in custom.read(task).report.guesses)
    assert shown["profile"] == "laptop" and "description" not in shown


def test_pairs_names_of_labels_a_test_file_and_unlabelled_rows(check):
    rows = [(text, text[::-1], str(number % 2)) for number, (text, _) in enumerate(GOOD)]
    header = ("premise", "hypothesis", "label")
    own = check(
        as_csv(rows, header),
        lines=["label_names: {0: follows, 1: does not}", "test: t.csv", "unlabelled: u.csv"],
        t__csv=as_csv([("a new one", "and its pair", "1")], header),
        u__csv=as_csv([("an unknown one", "with a pair")], header[:2]),
    )
    assert list(own.gold) == ["text", "text_pair", "output", "row"] and own.labels == ("does not", "follows")
    assert list(own.test["output"]) == ["does not"] and list(own.test["row"]) == [2]
    assert list(own.unlabelled) == ["text", "text_pair", "row"] and len(own.unlabelled) == 1
    assert own.report.labels == {"follows": 6, "does not": 6} and names(own) == []


def test_text_to_text(check):
    rows = [(text, f"A summary of text {number}") for number, (text, _) in enumerate(GOOD)]
    own = check(as_csv(rows, header=("article", "gist")))
    assert own.task_type == "generation" and own.labels == () and list(own.gold["output"]) == [gist for _, gist in rows]
    assert check(as_csv(rows, header=("document", "summary"))).task_type == "generation"
    # The same text may have several targets.
    again = check(
        as_csv([*rows, (rows[0][0], "Another gist")], header=("article", "gist")), lines=["target: gist"]
    )
    assert len(again.gold) == 13 and "two labels" not in names(again)


def test_one_column_of_unlabelled_texts_needs_no_quotes_around_commas(check):
    own = check(
        as_csv(GOOD),
        lines=["unlabelled: u.csv"],
        u__csv="review\nfine, but dear\nslow, loud, hot\n\nok then\n",
    )
    assert list(own.unlabelled["text"]) == ["fine, but dear", "slow, loud, hot", "ok then"]
    assert list(own.unlabelled["row"]) == [2, 3, 5]


def test_quotes_that_are_part_of_the_text(check):
    rows = "".join(f'{number}\t{text} said "he\t{label}\n' for number, (text, label) in enumerate(GOOD))
    own = check(f'id\ttext\tlabel\n{rows}13\t"Hm" is all she said\tgood\n', name="rows.tsv")
    assert len(own.gold) == 13 and own.gold["text"].iloc[-1] == '"Hm" is all she said'
    assert ("quotes", "part of the text") in {(guess.what, guess.value) for guess in own.report.guesses}


def test_label_names_of_a_datasets_folder_and_its_splits(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    split = {"text": [text for text, _ in GOOD], "label": [label for _, label in GOOD]}
    held = {"text": ["something else"], "label": ["good"]}
    datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict(split, features),
            "test": datasets.Dataset.from_dict(held, features),
        }
    ).save_to_disk(str(tmp_path / "folder"))
    (tmp_path / "t.yaml").write_text("rows: folder\n")
    own = custom.read(tmp_path / "t.yaml")
    assert list(own.gold["output"]) == split["label"] and list(own.test["text"]) == ["something else"]
    assert ("test", "folder, split test") in {(guess.what, guess.value) for guess in own.report.guesses}


# -- bad rows: file, row and column ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bad", "rows", "column", "said"),
    [
        ("empty text", [("", "good"), ("  \t ", "bad")], (14, 15), "text", "left out"),
        ("empty label", [("Nothing to say here", " ")], (14,), "label", "left out"),
        ("spaces in label", [("The manual was clear", "good ")], (14,), "label", "'good '"),
        ("alike labels", [("The manual was clear", "Good")], (14,), "label", "'good'"),
        ("NUL byte", [("The man\0ual was clear", "good")], (14,), "text", r"\x00"),
        ("number as text", [("3.14", "good"), ("-1,000", "good")], (14, 15), "text", "'3.14'"),
        (
            "date as text",
            [("2024-01-31", "good"), ("31/01/2024 12:00", "bad")],
            (14, 15),
            "text",
            "'2024-01-31'",
        ),
        ("placeholder", [("NaN", "good"), ("n/a", "bad")], (14, 15), "text", "missing value"),
        (
            "spreadsheet formula",
            [('=HYPERLINK("http://x","y")', "good"), ("@SUM(1)", "bad")],
            (14, 15),
            "text",
            "escaped",
        ),
        (
            "HTML",
            [("<script>alert(1)</script>", "good"), ("Lid &amp; strap", "bad")],
            (14, 15),
            "text",
            "escaped",
        ),
        ("damaged letters", [("na\ufffdve", "good")], (14,), "text", "encoding"),
        ("exact duplicate", [GOOD[0]], (14,), "text", "line 14, line 2"),
        ("near duplicate", [(GOOD[0][0] + "!", "good")], (14,), "text", "line 14, line 2"),
        ("two labels", [(GOOD[0][0], "bad")], (2, 14), "text", "'good' (line 2) and 'bad' (line 14)"),
        ("few rows", [("It fell apart", "awful")], (14,), "label", "'awful' (1)"),
        (
            "long text",
            [("word " * 200, "good")],
            (14,),
            "text",
            "1 of 13 texts are longer than the 128 word pieces",
        ),
        ("long text", [("好" * 200, "good")], (14,), "text", "longest has about 200)"),
        ("row left out", [("a", "b", "c")], (14,), "", "another number of cells"),
    ],
)
def test_bad_rows_are_named_by_file_row_and_column(check, name, bad, rows, column, said):
    found = problem(check(as_csv([*GOOD, *bad])), name)
    assert found.file == "rows.csv" and found.rows == rows and found.column == column
    assert str(found).startswith("rows.csv, line" + "s" * (len(rows) > 1)) and said in str(found)
    assert str(rows[0]) in str(found) and column in str(found)


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("one class", [(text, "good") for text, _ in GOOD], "'good'"),
        (
            "label is an id",
            [(text, f"user-{number}") for number, (text, _) in enumerate(GOOD)],
            "12 different labels in 12",
        ),
        (
            "label is a number",
            [(text, f"{number % 5}.5") for number, (text, _) in enumerate(GOOD)],
            "a score, not a class",
        ),
    ],
)
def test_labels_that_are_none_are_errors(check, name, rows, said):
    found = problem(check(as_csv(rows), lines=["label: label"]), name, "error")
    assert found.file == "rows.csv" and found.column == "label" and said in str(found)


def test_space_tells_no_labels_apart(check):
    rows = [(text, ("very  good ", "very good", "New\xa0York", "New\nYork")[place % 4])
            for place, (text, _) in enumerate(GOOD)]
    own = check(as_csv(rows))
    assert own.labels == ("New York", "very good") and set(own.gold["output"]) == set(own.labels)
    found = problem(own, "spaces in label")
    assert len(found.rows) == 9 and "'very  good '" in str(found) and "alike labels" not in names(own)
    again, record = fixed(own)
    assert "spaces in label" not in names(again) and again.labels == own.labels
    assert {each["after"] for each in record["files"]["rows"]["changes"]} == {"New York", "very good"}
    own = check(as_csv(rows), lines=["label_names: {'very good': 'So   good ', \"New \\t York\": \"Big\\nApple\"}"])
    assert own.labels == ("Big Apple", "So good") and not own.report.errors


@pytest.mark.parametrize("label_names, said", [
    ("{a  b: one, a b: two}", "names one label twice"), ("{a: one, b: ' '}", "has a label without a name")])
def test_names_of_labels_that_cannot_be_used(tmp_path, label_names, said):
    found = refused(tmp_path, f"rows: a.csv\nlabel_names: {label_names}\n")
    assert "my_task.yaml, line 2: label_names: " in found and said in found


def test_space_tells_no_texts_apart(check):
    spaced = [text.replace(" ", "\xa0\n", 1) for text, _ in GOOD]
    own = check(
        as_csv([*GOOD, (spaced[0], GOOD[0][1]), (spaced[1], "good")]),
        lines=["test: t.csv", "unlabelled: u.csv"],
        t__csv=as_csv([(f" {spaced[2]} ", GOOD[2][1])]),
        u__csv=as_csv([(spaced[3],), (spaced[2],)], header=("text",)),
    )
    # A text with a line end takes two lines.
    assert problem(own, "exact duplicate").rows == (14,) and problem(own, "two labels").rows == (3, 16)
    both = [each for each in own.report.problems if each.name == "also in test"]
    assert [(each.file, each.rows) for each in both] == [("rows.csv", (4,)), ("u.csv", (4,))]
    assert problem(own, "also in rows").rows == (2,) and len(own.gold) == 10 and not len(own.unlabelled)
    summaries = [(text, f"Gist {number}") for number, (text, _) in enumerate(GOOD)]
    own = check(as_csv([*summaries, (spaced[0], "Gist\n0")], header=("article", "gist")))
    assert problem(own, "exact duplicate").rows == (14,)


def test_labels_that_are_numbers_and_names_for_them(check):
    rows = [(text, str(number % 3)) for number, (text, _) in enumerate(GOOD)]
    assert "label_names" in str(problem(check(as_csv(rows)), "labels are numbers"))
    own = check(as_csv(rows), lines=["label_names: {0: low, 1: high, 7: top}"])
    assert problem(own, "label without a name", "error").rows == (4, 7, 10, 13)
    assert "'7'" in str(problem(own, "name without a label"))


def test_many_classes(check):
    rows = [
        (f"{thing} {number} " * 3, f"class {number}") for number in range(101) for thing in ("lid", "strap")
    ]
    assert "101 classes" in str(problem(check(as_csv(rows)), "many classes"))


def test_missing_and_doubled_columns(check):
    own = check(as_csv(GOOD, header=("Text", "label")), lines=["text: text"])
    found = problem(own, "missing column", "error")
    assert str(found).startswith("rows.csv, line 1, column 'text': no such column. Did you mean 'Text'?")
    assert own.columns is None and own.task_type == "" and len(own.gold) == 0
    own = check("text,label,label\n" + "a,b,c\n" * 3, lines=["label: label"])
    assert problem(own, "column twice", "error").rows == (1,)


def test_columns_that_cannot_be_guessed(check):
    own = check("a,b,c\n" + "".join(f"{n} x,{n} y,{n} z\n" for n in range(9)))
    assert "'label:'" in str(problem(own, "which label", "error"))
    assert "Columns: a, b and c" in str(problem(own, "which label", "error"))


def test_rows_that_cannot_be_divided_are_an_error_of_the_check(check):
    first = [(text, "good") for text, _ in GOOD]
    own = check(as_csv([*first, ("It fell apart", "awful")]))
    said = str(problem(own, "not testable", "error"))
    assert said.startswith("rows.csv: the class 'awful' (1) cannot be both learnt and tested") and "test: …" in said
    own = check(as_csv([*first, ("It fell apart", "awful")]), lines=["test: t.csv"], t__csv=as_csv([("It broke", "awful")]))
    assert not own.report.errors
    assert "7 labelled rows can be used, and at least 8" in str(problem(check(as_csv(GOOD[:7])), "not testable", "error"))


def test_a_test_file_with_other_labels_only(check):
    own = check(as_csv(GOOD), lines=["test: t.csv"], t__csv=as_csv([("It broke", "negative"), ("So loud", "positive")]))
    said = str(problem(own, "unknown labels only", "error"))
    assert said.startswith("t.csv, lines 2 and 3, column 'label': no label") and "'negative' and 'positive' there" in said


def test_a_first_line_that_is_a_row_is_not_lost_as_a_header(check):
    found = problem(check(as_csv(GOOD[1:], header=GOOD[0])), "no header", "error")
    assert str(found).startswith("rows.csv, line 1: the file seems to begin with a row") and "'good'" in str(
        found
    )


def test_rows_in_two_files(check):
    own = check(
        as_csv(GOOD),
        lines=["test: t.csv", "unlabelled: u.csv"],
        t__csv=as_csv([GOOD[3], (GOOD[5][0] + "!", "bad"), ("It is all right", "fine")]),
        u__csv=as_csv([(GOOD[3][0],), (GOOD[0][0],), ("Never seen before",)], header=("text",)),
    )
    both = [each for each in own.report.problems if each.name == "also in test"]
    assert [(each.file, each.rows) for each in both] == [("rows.csv", (5,)), ("u.csv", (2,))]
    assert "t.csv (line 5, line 2 there)" in str(both[0])
    assert {(each.file, each.rows) for each in own.report.problems if each.name == "nearly in test"} == {
        ("rows.csv", (7,))
    }
    assert problem(own, "also in rows").rows == (3,) and problem(own, "unknown label").rows == (4,)
    assert (
        len(own.gold) == 11 and list(own.unlabelled["text"]) == ["Never seen before"] and len(own.test) == 3
    )


def test_every_problem_is_listed_at_once(check):
    own = check(
        as_csv([*GOOD, ("", "good"), ("<b>x</b>", "Good"), GOOD[0]]),
        lines=["test: none.csv", "unlabelled: u.pkl"],
        u__pkl=b"\x80\x04N.",
    )
    assert {"empty text", "HTML", "alike labels", "exact duplicate", "file"} <= set(names(own))
    assert len(own.report.errors) == 2 and "none.csv" in str(own.report) and "u.pkl" in str(own.report)


# -- files as people have them ---------------------------------------------------------------------


def test_byte_order_marks(check):
    own = check(codecs.BOM_UTF8 + as_csv(GOOD).encode())
    assert (
        problem(own, "byte-order mark").rows == (1,) and own.columns.text == ("text",) and len(own.gold) == 12
    )
    own = check(as_csv([*GOOD, ("naïve", "good")]).encode("utf-16"))
    assert len(own.gold) == 13 and own.gold["text"].iloc[-1] == "naïve"
    own = check(as_csv([*GOOD, ("\ufeffstray", "good")]))
    assert problem(own, "NUL byte").rows == (14,) and own.gold["text"].iloc[-1] == "stray"


@pytest.mark.parametrize(
    ("encoding", "text", "guessed"),
    [
        ("cp1252", "Ein schöner, kräftiger Gürtel für 5 €", "cp1252"),
        ("cp1251", "Очень хороший ремень, всем советую купить именно его", "cp1251"),
        ("cp932", "とても良い商品です。また買いたいと思います。", "cp932"),
        ("utf-16-le", "naïve", "utf-16-le"),
    ],
)
def test_other_encodings_are_recognised_and_named(check, encoding, text, guessed):
    own = check(as_csv([*GOOD, (text, "good")]).encode(encoding))
    assert own.gold["text"].iloc[-1] == text
    assert ("encoding", guessed) in {(guess.what, guess.value) for guess in own.report.guesses}
    if encoding != "utf-16-le":
        assert problem(own, "wrong encoding").rows == (14,)


def test_mixed_encodings_are_read_line_by_line(check):
    lines = (
        as_csv([*GOOD, ("naïve", "good"), ("déjà vu", "bad"), ("Gürtel", "good")])
        .encode()
        .splitlines(keepends=True)
    )
    lines[-1] = "Gürtel – 5 €,good\n".encode("cp1252")
    own = check(b"".join(lines))
    found = problem(own, "mixed encodings")
    assert found.rows == (16,) and "Windows-1252" in str(found)
    assert list(own.gold["text"][-3:]) == ["naïve", "déjà vu", "Gürtel – 5 €"]


def test_an_encoding_that_does_not_fit(check):
    assert "utf-16" in str(problem(check(as_csv(GOOD), lines=["encoding: utf-16"]), "file", "error"))
    assert "unknown encoding: utf-9" in str(problem(check(as_csv(GOOD), lines=["encoding: utf-9"]), "file", "error"))
    own = check(as_csv([*GOOD, ("naïve", "good")]).encode("latin-1"), lines=["encoding: ascii"])
    assert problem(own, "damaged letters").rows == (14,)


def test_a_broken_quote_costs_its_own_line(check):
    content = (
        as_csv(GOOD) + '"never closed,good\n"The manual, though, was clear",bad\n"A "strap" broke",good\n'
    )
    own = check(content + "".join(f"Number {number} of these is fine,good\n" for number in range(12)))
    found = [each for each in own.report.problems if each.name == "row left out"]
    assert [each.rows for each in found] == [(14, 16)] and "quote" in str(found[0])
    assert "The manual, though, was clear" in set(own.gold["text"]) and len(own.gold) == 25
    assert_nothing_lost(own)


def test_too_many_broken_quotes_are_no_csv(check):
    own = check(as_csv(GOOD) + '"a, "b" c",good\n' * (readers.BROKEN_LIMIT + 1))
    assert "rows.csv: line 114" in str(problem(own, "file", "error"))


def test_lines_of_quoted_texts_and_old_line_ends(check):
    own = check(as_csv(GOOD).replace("\n", "\r"))
    assert list(own.gold["row"]) == list(range(2, 14))
    own = check(as_csv(GOOD).replace("\n", "\r\n") + '"a\r\nb\r\n\r\nc",good\r\nlast,bad\r\n')
    assert list(own.gold["row"])[-2:] == [14, 18] and own.gold["text"].iloc[-2] == "a\r\nb\r\n\r\nc"


def test_ten_megabytes_in_one_cell(check):
    for content in (
        as_csv([*GOOD, ("x" * 10_000_000, "good")]),
        as_csv([*GOOD, (("a" * 999 + "\n") * 10_000, "good")]),
    ):
        own = check(content)
        assert len(own.gold) == 12 and problem(own, "row left out").rows == (14,)
        assert "more than 100,000 characters in column 'text'" in str(own.report)


def test_a_line_without_end(check, monkeypatch):
    monkeypatch.setattr(readers, "LINE_LIMIT", 1000)
    assert "line 14: more than 1,000 characters" in str(
        problem(check(as_csv(GOOD) + "x" * 2000), "file", "error")
    )


def test_more_rows_than_are_kept_are_sampled_and_counted(check, monkeypatch):
    monkeypatch.setattr(gather, "ROW_LIMIT", 40)
    rows = [(f"lid {number} " * 3, ("good", "bad")[number >= 200]) for number in range(400)]
    own = check(as_csv(rows))
    assert "rows.csv: 360 rows not in the random sample of 40. Left out, by chance" in str(problem(own, "row left out"))
    assert own.report.counts[0].rows_in == 400 and own.report.counts[0].used == len(own.gold) == 40
    assert "360 not in the random sample of 40" in str(own.report)
    assert set(own.gold["output"]) == {"good", "bad"}  # not the first rows only
    assert list(own.gold["row"]) == list(check(as_csv(rows)).gold["row"])
    with pytest.raises(RowsError, match="rows.csv: 400 rows, more than the 40"):
        monkeypatch.setattr(repairs, "ROW_LIMIT", 40)
        repairs.fix(own)


def test_of_very_many_rows_that_are_left_out_a_sentence_names_the_first(check, monkeypatch):
    monkeypatch.setattr(gather, "ROW_LIMIT", 1000)
    line = itertools.cycle(["The lid fits,good\n", "It broke,bad\n", "a,b,c\n"])
    own = check("text,label\n" + "".join(itertools.islice(line, 300_000)), lines=["text: text", "label: label"])
    assert_nothing_lost(own)
    read = own.gathered["rows"]
    assert read.rows_in == 300_000 and sorted(map(len, read.dropped.values())) == [100_000, 199_000]
    lines = sorted([*read.frame["row"], *itertools.chain.from_iterable(read.dropped.values())])
    assert lines == list(range(2, 300_002)), "every line is kept, or left out for one reason"
    assert "lines 4, 7, 10, 13, 16 and 99,995 more: a row with another number of cells" in str(own.report)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 50_000, "not valid JSON"),
        ('{"text": ["a", "b"], "label": "good"}', "a list of several"),
        ('{"text": "a", "label": ["good", "bad"]}', "a list of several"),
        ('{"text": {"a": 1}, "label": "good"}', "an object"),
        ("9" * 5000, "not"),
    ],
)
def test_json_lines_that_are_no_rows(check, line, said):
    lines = [json.dumps({"text": text, "label": label}) for text, label in GOOD]
    own = check("\n".join([*lines, "", line]), name="rows.jsonl")
    found = problem(own, "row left out")
    assert found.rows == (14,) and said in str(found) and len(own.gold) == 12


def test_json_values_that_are_no_texts(check):
    lines = [{"text": text, "label": label == "good"} for text, label in GOOD]
    lines += [{"text": 5, "label": True}, {"label": False}, {"text": "\ud800 half", "label": True}]
    own = check("\n".join(json.dumps(line) for line in lines), name="rows.jsonl")
    assert own.labels == ("false", "true") and problem(own, "number as text").rows == (13,)
    assert problem(own, "empty text").rows == (14,) and problem(own, "damaged letters").rows == (15,)


def test_names_of_columns_that_no_file_can_hold(check, capsys):
    lines = [{"te\ud800xt": text, "la\x1b[31mbel": label, "\ud800": "a", "\ud801": "b"} for text, label in GOOD]
    own = check("\n".join(json.dumps(line) for line in lines), name="rows.jsonl")
    print(own.report)
    assert own.columns.text == ("te\ufffdxt",) and list(own.gold["text"]) == [text for text, _ in GOOD]
    assert r"la\x1b[31mbel" in capsys.readouterr().out
    assert repr(own) == str(own.report) and "\x1b" not in str(own.report)
    str(own.report).encode()
    assert own.gathered["rows"].table.columns == ["te\ufffdxt", "la\x1b[31mbel", "\ufffd", "\ufffd"]
    own = check("\n".join(json.dumps(line) for line in lines), name="rows.jsonl", lines=["label: label"])
    assert "\x1b" not in str(problem(own, "missing column", "error"))


def test_a_json_list_and_a_file_of_only_a_header(check):
    listed = json.dumps([{"text": "a", "label": "b"}])
    for name in ("rows.json", "rows.csv"):
        assert "one object" in str(problem(check(listed, name=name), "file", "error"))
    assert "no rows" in names(check("text,label\n", lines=["text: text", "label: label"]))
    assert "rows.csv: empty" in str(problem(check(""), "file", "error"))
    assert "no line of column names" in str(problem(check("\n\n \n"), "file", "error"))


def workbook(tmp_path, rows):
    book = openpyxl.Workbook()
    book.active.title = "Answers"
    for row in rows:
        book.active.append(row)
    book.create_sheet("Notes").append(["nothing"])
    book.save(tmp_path / "rows.xlsx")


def excel(tmp_path, *lines):
    (tmp_path / "t.yaml").write_text("\n".join(["rows: rows.xlsx", *lines]))
    return custom.read(tmp_path / "t.yaml")


def test_excel_rows_are_counted_as_excel_does(tmp_path):
    workbook(
        tmp_path,
        [
            ("text", "label"),
            *GOOD,
            (),
            (date(2024, 1, 31), "good"),
            (3.0, "bad"),
            ("=1+1", "bad"),
            ("#N/A", "good"),
            ("beyond", "good", "x"),
            (None, None, None),
        ],
    )
    own = excel(tmp_path)
    assert problem(own, "date as text").rows == (15,) and "'2024-01-31'" in str(own.report)
    assert problem(own, "number as text").rows == (16,) and "'3'" in str(own.report)
    assert problem(own, "empty text").rows == (18,) and own.report.counts[0].rows_in == 17
    left_out = {each.rows: str(each) for each in own.report.problems if each.name == "row left out"}
    assert list(left_out) == [(17,), (19,)] and "column 'text' but a formula whose value is not stored" in left_out[17,]
    assert ("sheet", "Answers") in {(guess.what, guess.value) for guess in own.report.guesses}
    assert "Answers and Notes" in str(problem(excel(tmp_path, "sheet: Answer"), "file", "error"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.pkl", pickle.dumps({}), "a pickle"),
        ("rows.csv", pickle.dumps(GOOD), "a pickle"),
        ("rows.joblib", b"anything", "a pickle"),
        ("rows.xlsx", b"PK\x03\x04 not a workbook", "rows.xlsx: "),
        ("rows.xlsx", b"\xd0\xcf\x11\xe0", "password"),
        ("rows.parquet", b"PAR1 not Parquet PAR1", "cannot be read as Parquet"),
        ("rows.docx", b"text", "not read; a text with a line of column names can be named .csv"),
        ("folder/note.md", b"", "folder"),
    ],
)
def test_files_that_are_not_read_are_refused_by_name(check, name, content, said):
    own = check(content, name=name)
    assert said in str(problem(own, "file", "error")) and name in str(own.report)


def test_folders_missing_files_and_pipes(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in (("folder", "save_to_disk"), ("none.csv", "no such file"), ("pipe.csv", "a pipe")):
        (tmp_path / "t.yaml").write_text(f"rows: {name}\n")
        found = problem(custom.read(tmp_path / "t.yaml"), "file", "error")
        assert found.file == name and said in str(found)


def test_reports_run_nothing_in_a_terminal(check):
    own = check(as_csv([*GOOD, ("<script>alert(1)</script>\x1b[31m", "good")]))
    assert "\x1b" not in str(own.report) and r"\x1b" in str(own.report)


def test_nothing_is_fetched_and_no_training_library_is_loaded(tmp_path):
    (tmp_path / "rows.csv").write_text(as_csv(GOOD))
    (tmp_path / "t.yaml").write_text("rows: rows.csv\n")
    program = (
        "import socket, sys\n"
        "def no(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = no\n"
        "from synthtune.run import reproduce\n"
        f"assert reproduce.main(['--task', {str(tmp_path / 't.yaml')!r}, '--check']) == 0\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    )


# -- kinds of files that people bring --------------------------------------------------------------


def labelled(*labels, texts=GOOD):
    """The twelve good texts, with other labels in turn."""
    return [(text, labels[place % len(labels)]) for place, (text, _) in enumerate(texts)]


def other_workbook(name):
    """A zip archive that is no workbook."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(name, "content")
    return out.getvalue()


def tarred():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        packed.add(__file__, "rows.csv")
    return out.getvalue()


@pytest.mark.parametrize("content, said", [
    (gzip.compress(as_csv(GOOD).encode()), "compressed with gzip"),
    (bz2.compress(as_csv(GOOD).encode()), "compressed with bzip2"),
    (lzma.compress(as_csv(GOOD).encode()), "compressed with xz"),
    (b"\x28\xb5\x2f\xfd\x24\0", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "7z"),
    (tarred(), "tar"),
    (other_workbook("rows.csv"), "a zip archive; unpack it"),
    (b"PK\3\4 and no more", "a zip archive that is damaged"),
    (other_workbook("[Content_Types].xml"), "a document of an office program"),
    (other_workbook("mimetype"), "a document of an office program"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "without a password"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"{\\rtf1\\ansi", "RTF"),
    (b"\n<!DOCTYPE HTML><table><tr><td>text", "HTML"),
    (b"ARROW1\0\0\xff\xff\xff\xff", "Feather"),
    (b"\x93NUMPY\1\0", "a pickle"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (bytes(range(256)) * 9, "not text but binary"),
])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.txt", "rows.xlsx"])
def test_content_is_recognised_whatever_the_name(check, name, content, said):
    if name == "rows.xlsx" and (content[:2] == b"PK" or "binary" in said):
        said = "workbook"
    if name == "rows.txt" and "binary" in said:
        said = "not read"
    found = str(problem(check(content, name=name), "file", "error"))
    assert said in found and found.startswith(f"{name}: ")


@pytest.mark.parametrize("kind", ["parquet", "xlsx", "jsonl"])
@pytest.mark.parametrize("other", ["csv", "txt", "xls"])
def test_tables_are_read_whatever_the_name(tmp_path, kind, other):
    name = written(tmp_path, kind, pd.DataFrame(GOOD, columns=["text", "label"]))
    (tmp_path / name).rename(tmp_path / f"rows.{other}")
    (tmp_path / "t.yaml").write_text(f"rows: rows.{other}\n")
    own = custom.read(tmp_path / "t.yaml")
    assert list(zip(own.gold["text"], own.gold["output"], strict=True)) == GOOD and names(own) == []


@pytest.mark.parametrize("header", ["ARROW1,label", "PAR1,label", "fea1,label", "%PDF,label", "PK,label", "BZh,label", "ORC,label"])
def test_column_names_are_no_signature(check, header):
    own = check(as_csv(GOOD, header=header.split(",")))
    assert own.columns.text == (header.split(",")[0],) and len(own.gold) == 12 and names(own) == []


@pytest.mark.parametrize("above", ["sep=;\n", "sep=;\r\n", '"sep=;"\n', "SEP=;\n", "\ufeffsep=;\n",
                                   "# made by hand, today\n\nsep=;\n"])
def test_a_line_that_names_the_separator(check, above):
    own = check(above + as_csv([*GOOD, ("a, b, c and d", "good")], separator=";"))
    assert own.columns.text == ("text",) and own.labels == ("bad", "good") and len(own.gold) == 13
    assert ("separator", "semicolon") in {(guess.what, guess.value) for guess in own.report.guesses}
    assert own.gold["row"].iloc[0] == 2 + above.count("\n")


def test_a_tab_and_a_mark_named_as_separators(check):
    for line, separator in (("sep=\t", "\t"), (r"sep=\t", "\t"), ("sep=^", "^")):
        assert len(check(f"{line}\n" + as_csv(GOOD, separator=separator)).gold) == 12
    own = check("sep=;\n" + as_csv(GOOD), lines=["separator: ','"])  # what the task file says holds
    assert len(own.gold) == 12 and own.columns.text == ("text",)


def test_comments_above_the_column_names(check):
    own = check("# reviews, by hand\n#\n\n# and checked\n" + as_csv([*GOOD, ("#winning all day", "good")]))
    assert list(own.gold["row"]) == list(range(6, 19)) and names(own) == []
    assert "comments: lines 1, 2 and 4" in str(own.report)
    own = check(as_csv(GOOD, header=("#text", "label")))
    assert own.columns.text == ("#text",) and list(own.gold["row"]) == list(range(2, 14))
    for above, below in (("", "# a, b, c"), ("# a note\n", "# part two, not checked")):
        own = check(above + as_csv(GOOD) + below)
        assert problem(own, "row left out").rows == (14 + bool(above),) and len(own.gold) == 12


@pytest.mark.parametrize("form", ['{1}, "{0}"', '"{1}", "{0}"', '"{1}" , "{0}"', '"{1}",   "{0}" ', '  "{1}"  ,  "{0}"'])
def test_spaces_beside_quotes(check, form):
    rows = [*GOOD, ("Well, this, has commas", "good"), ('A ""quoted"" word', "bad")]
    own = check("label, text\n" + "".join(form.format(*row) + "\n" for row in rows))
    assert list(own.gold["text"]) == [text.replace('""', '"') for text, _ in rows] and len(own.gold) == 14
    assert own.labels == ("bad", "good") and "row left out" not in names(own)


def test_quotes_after_a_space_that_are_text(check):
    rows = [*GOOD, (' "Hm" is all she said', "good"), ("  set in", "bad")]
    own = check(as_csv(rows))
    assert list(own.gold["text"])[-2:] == [' "Hm" is all she said', "  set in"]
    own = check("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), name="rows.tsv")
    assert list(own.gold["text"])[-2:] == [' "Hm" is all she said', "  set in"] and len(own.gold) == 14


# -- labels that are lists, several, alike, dates, scores or nothing -------------------------------


def as_json(rows):
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize("other", [{}, {"id": 7}, {"Comments": []}, {"category": "x"}])
def test_lists_of_one_label(check, other):
    own = check(as_json({"text": text, "label": [label]} | other for text, label in GOOD), name="rows.jsonl")
    assert own.task_type == "classification" and own.columns.output == "label" and own.labels == ("bad", "good")
    assert len(own.gold) == 12 and names(own) == []


@pytest.mark.parametrize("form", ['["{}"]', "['{}']", '[ "{}" ]'])
def test_lists_of_one_label_in_cells(check, form):
    own = check(as_csv([*GOOD, *((text + " indeed", form.format(label)) for text, label in GOOD)]))
    assert own.labels == ("bad", "good") and len(own.gold) == 24 and len(problem(own, "unseen in label").rows) == 12
    assert fixed(own)[0].labels == own.labels
    own = check(as_csv([(text, form.format(f"a{label[0]}")) for text, label in GOOD]))
    assert own.labels == ("ab", "ag")
    assert check(as_csv([(text, f'"{label}"') for text, label in GOOD])).labels == ("bad", "good")
    assert check(as_csv([(text, f"[{len(label)}]") for text, label in GOOD])).labels == ("3", "4")
    assert check(as_csv([*GOOD, ("No label here", "[]")])).report.counts[0].dropped == {"without a label": 1}
    assert check(as_csv(labelled('["\\u00e9loge"]', "[URGENT]"))).labels == ("[URGENT]", "éloge")


def test_a_column_of_lists_that_is_called_label_is_not_passed_over(check):
    rows = [{"text": text, "label": [label, "x"], "id": place, "more": [1, 2]} for place, (text, label) in enumerate(GOOD)]
    own = check(as_json(rows), name="rows.jsonl")
    assert own.columns.output == "label" and own.task_type == "classification"
    assert "keep the one that is meant" in str(problem(own, "row left out")) and "no rows" in names(own)
    own = check(as_json({"text": text, "label": {"name": label}, "kind": label} for text, label in GOOD), name="rows.jsonl")
    assert own.columns.output == "label" and "an object" in str(problem(own, "row left out"))


@pytest.mark.parametrize("cell", ['{"label": "good"}', "{'choices': ['good']}", '[{"label": "good"}]', '["good", "bad"]',
                                  "['good' 'bad']"])
def test_json_in_cells_is_named(check, cell):
    found = problem(check(as_csv([*GOOD, ("What is this", cell), ("And this", cell)])), "JSON")
    assert found.rows == (14, 15) and found.column == "label"
    assert problem(check(as_csv([*GOOD, (cell, "good")])), "JSON").column == "text"
    written = as_csv([(f'{{"name": "{text}"}}', text) for text, _ in GOOD], header=("input", "target"))
    assert names(check(written)) == []  # texts to be written may well be made from JSON


@pytest.mark.parametrize("mark", [";", "; ", ",", ", ", "|", "/", " & ", "+", "\n"])
def test_several_labels_in_a_cell(check, mark):
    own = check(as_csv(labelled("billing", "refund", f"billing{mark}refund", f"refund{mark}billing")))
    found = problem(own, "several labels")
    assert len(found.rows) == 6 and found.column == "label" and "label_separator" in str(found)
    own = check(as_csv(labelled("billing", "refund", f"late{mark}lost", "sales")))
    assert "several labels" not in names(own)


def test_several_labels_that_never_stand_alone(check):
    own = check(as_csv(labelled("a;b", "b;c", "c;a", "a;b;c")))
    assert len(problem(own, "several labels").rows) == 12
    for labels in (("Books, Fiction", "Books, Poetry", "Music, Jazz"),
                   ("Food/Fresh", "Food/Frozen", "Drink/Fresh", "Drink/Frozen"),
                   ("News", "News & Views"), ("R&D", "Q&A"), ("not good", "good")):
        assert names(check(as_csv(labelled(*labels)))) in ([], ["few rows"]), labels
    own = check(as_csv(labelled("a", "b", "a;b")), lines=["label_names: {a: one, b: two, 'a;b': both}"])
    assert own.labels == ("both", "one", "two") and names(own) == []


@pytest.mark.parametrize("one, other", [
    ("1", "1.0"), ("1", "01"), ("0", "0.00"), ("-1", "-1.0"), ("1", "\uff11"), ("Spam", "spam"), ("spam", "sp\u200bam"),
    ("spam", "\u200espam"), ("spam", "spam\ufeff"), ("spam", "sp\u00adam"), ("spam", "\u202espam\u202c"), ("spam", "spa\u2060m"),
    ("spam", "spam\xa0"), ("spam", "\uff53\uff50\uff41\uff4d"), ("Q&A", "Q&amp;A"), ("it's", "it’s"), ("it's", "it&#39;s"),
    ("non-food", "non‑food"), ("non-food", "non–food"), ("\xe9loge", "e\u0301loge"), ("❤", "❤\ufe0f"), ("file", "\ufb01le"),
    ("spam", "sp\u0430m"), ("spam", '"spam"'), ("spam", "spam;"), ("a b", "a\u2009b"), ("a b", "a&nbsp;b"), ("straße", "STRASSE"),
])
def test_labels_that_look_alike_are_one(check, one, other):
    own = check(as_csv(labelled("else", one, one, other)))
    assert len(own.labels) == 2 and len(own.gold) == 12 and one in own.labels
    told = {"alike labels", "unseen in label", "spaces in label", "NUL byte"}
    [found] = [each for each in own.report.problems if each.name in told]
    assert found.rows == (5, 9, 13) and found.column == "label" and "fix" in str(found)
    again, record = fixed(own)
    assert again.labels == own.labels and len(again.gold) == 12
    assert not told & set(names(again))
    own = check(as_csv(labelled("else", one)), lines=["test: t.csv"], t__csv=as_csv([("Never seen", other)]))
    assert list(own.test["output"]) == [one] and "unknown label" not in names(own)


@pytest.mark.parametrize("labels", [("1", "10", "100", "0"), ("1.5 star", "1 star"), ("C", "C++"), ("CO", "CO2"), ("a", "á"),
                                    ("10", "1.0.0"), ("+", "-"), ("(a)", "(b)"), ("m²", "m"),
                                    ("👨‍👩‍👧", "👨"), ("نمی‌خواهم", "می‌خواهم"), ("да", "нет")])
def test_labels_that_do_not_look_alike_stay_as_they_are(check, labels):
    own = check(as_csv(labelled(*labels)))
    assert set(own.labels) == set(labels) and set(names(own)) <= {"few rows", "labels are numbers"}


def test_labels_that_are_named_are_never_one(check):
    own = check(as_csv(labelled("1", "01", "nan", "-")), lines=["label_names: {1: one, '01': nought one, nan: bread, '-': minus}"])
    assert own.labels == ("bread", "minus", "nought one", "one") and names(own) == ["few rows"]
    assert check(as_csv(labelled("0.0", "1.0")), lines=["label_names: {0: no, 1: yes}"]).labels == ("no", "yes")


@pytest.mark.parametrize("label", ["nan", "NaN", "N/A", "NULL", "#N/A", "<NA>", "undefined", "unlabeled", "TODO", "-", "--", "—", "?",
                                   "???", ".", "…", "#REF!"])
def test_labels_that_stand_for_nothing_are_no_class(check, label):
    for others in (("good", "bad"), ("0", "1")):
        own = check(as_csv([*labelled(*others), ("No idea", label), ("None at all", label)]),
                    lines=["test: t.csv"], t__csv=as_csv([("Held out", others[0]), ("Nothing here", label)]))
        found = [each for each in own.report.problems if each.name == "placeholder label"]
        assert [(each.file, each.rows) for each in found] == [("rows.csv", (14, 15)), ("t.csv", (3,))]
        assert own.labels == tuple(sorted(others)) and len(own.gold) == 12 and len(own.test) == 1
        assert "label_names" in str(found[0])
        assert_nothing_lost(own)


@pytest.mark.parametrize("labels", [("+", "-"), ("?", "!", "."), ("+", "-", "good"), ("*", "**", "***"), ("none", "hate"), ("NA", "EU"),
                                    ("unknown", "known"), ("other", "-1")])
def test_labels_that_may_be_classes_are_used(check, labels):
    own = check(as_csv(labelled(*labels)))
    assert set(own.labels) == set(labels) and len(own.gold) == 12
    assert ("class or missing" in names(own)) == (labels[0] in ("none", "NA"))
    assert "class or missing" not in names(check(as_csv(labelled("none", "hate")), lines=["label_names: {none: no, hate: yes}"]))


@pytest.mark.parametrize("label", ["2024-02-01", "2024-02-01 00:00:00", "1-Feb", "01. Feb", "Mar-01", "2 Sept", "1/2/2024",
                                   "3-Mai", "03:05:00"])
def test_labels_that_a_spreadsheet_made_dates_of(check, label):
    found = problem(check(as_csv([*labelled("3-5", "6-9"), ("Very young", label)])), "date as label")
    assert found.rows == (14,) and "1-2" in str(found) and found.column == "label"
    assert "date as label" not in names(check(as_csv(labelled("may be", "march", "1-2", "12 marbles", "5-star"))))


def test_dates_in_cells_of_labels(tmp_path):
    workbook(tmp_path, [("text", "label"), *labelled("3-5", "6-9"), ("Very young", date(2024, 2, 1)), ("Young", datetime(2024, 2, 1))])
    assert problem(excel(tmp_path), "date as label").rows == (14, 15)


@pytest.mark.parametrize("labels", [("3,5", "4,0", "1,25"), ("3.5", "4", "1"), ("12,5%", "7%"), ("-0,5", "+0,5")])
def test_scores_are_no_classes(check, labels):
    assert "a score" in str(problem(check(as_csv(labelled(*labels))), "label is a number", "error"))
    assert "label is a number" not in names(check(as_csv(labelled("1.2.3", "1.2.4"))))


def test_many_classes_that_are_numbers(check):
    things = ("lid", "strap", "box", "key")
    rows = [(f"{thing} number {number} of {number * 7}", str(number)) for number in range(30) for thing in things]
    own = check(as_csv(rows))
    assert len(own.labels) == 30 and not own.report.errors and "label_names" in str(problem(own, "labels are numbers"))
    own = check(as_csv(rows), lines=[f"label_names: {{{', '.join(f'{number}: class {number}' for number in range(30))}}}"])
    assert "class 29" in own.labels and "labels are numbers" not in names(own) and not own.report.errors
    own = check(as_csv([(text, str(number)) for number, (text, _) in enumerate(GOOD)]),
                lines=[f"label_names: {{{', '.join(f'{number}: class {number}' for number in range(12))}}}"])
    assert len(own.labels) == 12 and "label is an id" not in names(own)


# -- workbooks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["hidden", "veryHidden", "visible"])
def test_the_first_sheet_that_is_shown_and_has_cells(tmp_path, state):
    book = openpyxl.Workbook()
    book.active.title = "Choices"
    if state != "visible":
        book.active.append(["text", "label"])
        book.active.append(["A", "B"])
    book["Choices"].sheet_state = state
    sheet = book.create_sheet("Answers")
    for row in [("text", "label"), *GOOD]:
        sheet.append(row)
    book.active = 1
    book.save(tmp_path / "rows.xlsx")
    own = excel(tmp_path)
    assert len(own.gold) == 12 and "sheet: Answers (the first of Choices and Answers that is shown" in str(own.report)


def test_formulas_without_a_value_are_named(tmp_path):
    formulas = [(text, f'=IF(C{place}>3,"{label}","")') for place, (text, label) in enumerate(GOOD, 2)]
    workbook(tmp_path, [("text", "label"), *formulas])
    own = excel(tmp_path)
    found = problem(own, "row left out")
    assert len(found.rows) == 12 and "column 'label' but a formula" in str(found) and "save it" in str(found)
    assert "--fix removes" not in str(own.report) and problem(own, "no rows", "error")


@pytest.mark.parametrize("merged, rows, column", [
    ("B2:B4", (3, 4), "label"), ("A2:A3", (3,), "text"), ("A5:B5", (5,), "label"), ("A2:A3 B6:B9", (3, 7, 8, 9), ""),
    ("B12:B13", (13,), "label")])
def test_merged_cells_are_named(tmp_path, merged, rows, column):
    workbook(tmp_path, [("text", "label"), *GOOD])
    book = openpyxl.load_workbook(tmp_path / "rows.xlsx")
    for each in merged.split():
        book["Answers"].merge_cells(each)
    book["Answers"].merge_cells("D2:E9")  # beyond the columns that have a name
    book.save(tmp_path / "rows.xlsx")
    own = excel(tmp_path)
    found = [each for each in own.report.problems if each.name == "row left out"]
    assert sorted(row for each in found for row in each.rows) == list(rows) and len(own.gold) == 12 - len(rows)
    assert all("merged" in str(each) and f"column '{column}" in str(each) for each in found)
    assert_nothing_lost(own)


# -- files without rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "\n \n\n", "text\n", "text,label\n", "text,label\n,\n\n", "# nothing yet\n"])
@pytest.mark.parametrize("role", ["unlabelled", "test"])
def test_an_optional_file_without_rows_is_a_warning(check, role, content):
    content = content.replace("text\n", "text,label\n") if role == "test" else content
    own = check(as_csv(GOOD), lines=[f"{role}: more.csv"], more__csv=content)
    assert str(problem(own, "no rows")).startswith("more.csv: ") and f"'{role}:'" in str(own.report) and not own.report.errors
    assert "above" not in str(problem(own, "no rows")) and len(own.gold) == 12 and own.task_type == "classification"
    assert [each.severity for each in check(content).report.problems] == ["error"]  # of the labelled rows


def test_optional_tables_without_rows(check, tmp_path):
    pd.DataFrame({"text": []}, dtype=str).to_parquet(tmp_path / "empty.parquet")
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name in ("empty.parquet", "empty.xlsx", "empty.jsonl"):
        own = check(as_csv(GOOD), lines=[f"unlabelled: {name}"])
        assert problem(own, "no rows").file == name and names(own) == ["no rows"]


CASES = {
    "nan": (24, 2, ["placeholder label"]), "dash-label": (30, 3, ["placeholder label"]),
    "int-and-float-labels": (32, 2, ["alike labels"]),
    "many-named-int-classes": (120, 30, []), "one-label-list-label": (24, 2, []), "multilabel-cells": (36, 6, ["several labels"]),
    "nfc-nfd-labels": (28, 2, ["unseen in label"]), "nbsp-and-zero-width": (28, 2, ["unseen in label"]), "sep-line": (24, 2, []),
    "space-after-comma": (28, 2, []), "gzip-named-csv": (0, 0, ["file"]), "excel-hidden-first-sheet": (24, 2, []),
    "excel-formula-no-value": (0, 0, ["row left out", "no rows"]), "excel-merged-labels": (3, 3, ["row left out"]),
    "unlabelled-empty": (24, 2, ["no rows"]),
}
"""Rows that are used, classes, and problems that are named, of each case."""


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason=f"no cases in {SHARED}")
@pytest.mark.parametrize("case", CASES)
def test_cases(case):
    own = custom.read(SHARED / "cases" / case / "task.yaml")
    used, classes, said = CASES[case]
    assert (len(own.gold), len(own.labels)) == (used, classes) and set(said) <= set(names(own))
    assert bool(own.report.errors) == (used < 8)
    assert_nothing_lost(own)


# -- near-duplicates -------------------------------------------------------------------------------


def test_near_duplicates_by_hand():
    texts = [
        "the quick brown fox jumps over the lazy dog today",
        "nothing like it",
        "The quick brown fox jumps over the lazy dog, today!",
        "🎉",
        "🎉🎉",
    ]
    assert list(splits.first_near(texts)) == [-1, -1, 0, -1, -1]
    assert list(splits.first_near(texts, texts[2:3], chunk=2)) == [0, -1, 0, -1, -1]


# -- repairs ---------------------------------------------------------------------------------------

MESSY = [
    *GOOD,
    ("  ", "good"),
    ("The manual was clear", "Good "),
    ("The man\0ual was thin", "bad"),
    GOOD[0],
    ("=1+1 they said", "good"),
    ("naïve", "good"),
    ("-5", "bad"),
]


def fixed(own):
    """Repair, and read the copies."""
    before = {path: path.read_bytes() for path in own.task.path.parent.iterdir() if path.is_file()}
    paths = repairs.fix(own)
    assert all(path.read_bytes() == content for path, content in before.items())
    return custom.read(paths[0]), json.loads(paths[1].read_text())


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx", "folder"])
def test_repairs_change_no_meaning_and_are_written_down(tmp_path, kind):
    rows = [(text.replace("\0", "" if kind == "xlsx" else "\0"), label) for text, label in MESSY]
    name = written(
        tmp_path, kind, pd.DataFrame(rows, columns=["text", "label"]).assign(note="kept, as it is")
    )
    (tmp_path / "my_task.yaml").write_text(f"rows: {name}\n")
    own = custom.read(tmp_path / "my_task.yaml")
    again, record = fixed(own)
    assert list(again.gold["text"]) == list(own.gold["text"]) and list(again.gold["output"]) == list(
        own.gold["output"]
    )
    assert again.columns == own.columns and again.report.counts[0].rows_in == len(own.gold)
    assert not {"empty text", "alike labels", "spaces in label", "NUL byte", "exact duplicate"} & set(
        names(again)
    )
    assert repairs.fix(again) == []
    done = record["files"]["rows"]
    assert done["rows"] == {"in": 19, "written": 17} and sum(map(len, done["dropped"].values())) == 2
    first = 1 if kind in ("jsonl", "parquet", "folder") else 2
    assert {"row": 13 + first, "column": "label", "before": "Good ", "after": "good"} in done["changes"]
    copy = tmp_path / done["written"]
    if kind in ("csv", "tsv", "xlsx"):
        assert (
            "'=1+1" in copy.read_text()
            and "'-5" not in copy.read_text()
            and "kept, as it is" in copy.read_text()
        )


def test_repairs_decode_and_remove_the_byte_order_mark(check):
    own = check(as_csv([*GOOD, ("Gürtel", "good")]).encode("cp1252"), lines=["encoding: cp1252"])
    again, record = fixed(own)
    assert again.gold["text"].iloc[-1] == "Gürtel" and again.task.encoding is None
    assert record["files"]["rows"]["encoding"] == {"before": "cp1252", "after": "utf-8"}


def test_repairs_of_several_files_keep_what_the_task_file_says(check):
    own = check(
        as_csv(GOOD, separator="|"),
        lines=["test: t.csv", "unlabelled: u.csv", "separator: '|'", "description: Say"],
        t__csv=as_csv([("New", "Good"), ("Newer", "bad")], separator="|"),
        u__csv=as_csv([("One, two",), ("One, two",)], header=("text",)),
    )
    again, record = fixed(own)
    assert list(again.test["output"]) == ["good", "bad"] and list(again.unlabelled["text"]) == ["One, two"]
    assert (
        again.task.description == "Say"
        and again.task.test == "t.fixed.csv"
        and set(record["files"]) == {"rows", "test", "unlabelled"}
    )


def test_repairs_never_write_over_what_they_did_not_write(check, tmp_path):
    own = check(as_csv(MESSY))
    paths = repairs.fix(own)
    assert repairs.fix(own) == paths  # its own, unchanged
    copy = tmp_path / "rows.fixed.csv"
    copy.write_text("changed by hand")
    with pytest.raises(RowsError, match=r"rows.fixed.csv: there already"):
        repairs.fix(own)
    assert copy.read_text() == "changed by hand"


def test_nothing_to_repair_and_nothing_that_can_be(check):
    assert repairs.fix(check(as_csv(GOOD))) == []
    with pytest.raises(RowsError, match="nothing is repaired"):
        repairs.fix(check(as_csv(GOOD), lines=["label: none"]))


# -- the command -----------------------------------------------------------------------------------


def test_the_command_tells_warnings_from_errors(check, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHTUNE_STARTED_IN", str(tmp_path))
    check(as_csv(MESSY))
    assert reproduce.main(["--task", "my_task.yaml", "--check"]) == 0
    assert "Warnings (" in capsys.readouterr().out and not (tmp_path / "my_task.fixed.yaml").exists()
    assert reproduce.main(["--task", "my_task.yaml", "--fix"]) == 0
    assert "my_task.fixed.yaml" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "my_task.fixed.yaml").read_text())["rows"] == "rows.fixed.csv"
    check(as_csv(GOOD[:1]))
    assert reproduce.main(["--task", "my_task.yaml", "--check"]) == 1
    assert "Errors (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--task", "none.yaml"], 2, "there is no file"),
        (["--check"], 2, "--task FILE"),
        (["--task", "none.yaml", "--check"], 2, "there is no file"),
        (["--task", "my_task.yaml", "--check", "--profile", "smoke"], 2, "--profile is about the package's own tasks"),
        (["--out", "here"], 2, "--task FILE"),
        (["--task", "my_task.yaml", "--fix", "--data-root", "."], 2, "--data-root is about"),
    ],
)
def test_the_command_says_what_is_missing_in_one_sentence(capsys, arguments, status, said):
    assert reproduce.main(arguments) == status
    captured = capsys.readouterr()
    assert said in captured.err and len(captured.err.strip().splitlines()) == 1 and not captured.out


# -- anything at all -------------------------------------------------------------------------------

SOME = effort(max_examples=25, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SOME
@given(
    content=st.one_of(
        st.binary(max_size=300), st.text("ab,;\t|\"'\n\r\0=\ufeffé{}[]: #-.1&\u200b\u0301", max_size=200).map(str.encode)
    ),
    name=st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]),
)
def test_any_bytes_are_read_or_refused_and_no_row_is_lost(check, content, name):
    own = check(content, name=name)
    assert_nothing_lost(own)
    assert own.report.problems or len(own.gold)


@SOME
@given(content=st.binary(max_size=200), name=st.sampled_from(["rows.parquet", "rows.xlsx"]))
def test_any_bytes_are_no_workbook(check, content, name):
    assert problem(check(content, name=name), "file", "error")


@SOME
@given(text=st.text(max_size=200))
def test_any_text_is_a_task_file_or_refused(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_text(text, "utf-8", "surrogatepass")
    try:
        task_file.load(path)
    except SettingsError as error:
        assert str(error)


@SOME
@given(labels=st.lists(st.text("ab1.0-?'\"[];,&=\u200b\u0301\xa0\uff11é", max_size=4), min_size=4, max_size=12))
def test_any_labels_are_repaired_once(tmp_path, labels):
    for path in tmp_path.iterdir():
        path.unlink()
    rows = [(f"{text} again", label) for (text, _), label in zip(GOOD, labels, strict=False)]
    (tmp_path / "rows.csv").write_text(as_csv([*GOOD, *rows]))
    (tmp_path / "t.yaml").write_text("rows: rows.csv\ntext: text\nlabel: label\nseparator: ','\n")
    own = custom.read(tmp_path / "t.yaml")
    assert_nothing_lost(own)
    if repairs.fix(own):
        again = custom.read(tmp_path / "t.fixed.yaml")
        assert again.labels == own.labels and list(again.gold["output"]) == list(own.gold["output"])
        assert repairs.fix(again) == []


LETTERS = st.characters(codec="utf-8", exclude_characters="\0\ufeff\ufffd", exclude_categories=["Cs"])
CELLS = st.text(LETTERS, max_size=20)


@SOME
@example(rows=[("", "\x1f"), ("\x1e\x1d", "\x1c\x08")], kind="csv")  # of control characters alone
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    kind=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
def test_any_table_comes_back_from_every_format(tmp_path, rows, kind):
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame([*rows, ("a text", "a label")], columns=["text", "label"], dtype=str)
    if kind in ("csv", "tsv"):
        frame.to_csv(
            path, sep="," if kind == "csv" else "\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n"
        )
    else:
        written(tmp_path, kind, frame)
    (tmp_path / "t.yaml").write_text(
        f"rows: rows.{kind}\ntext: text\nlabel: label\n"
        + (f"separator: {json.dumps(',' if kind == 'csv' else chr(9))}\n" if kind in ("csv", "tsv") else "")
    )
    own = custom.read(tmp_path / "t.yaml")
    assert_nothing_lost(own)
    blank = kind in ("csv", "tsv")  # rows of nothing are blank lines there
    kept = [
        row for row in frame.itertuples(index=False) if not blank or row.text.strip() or row.label.strip()
    ]
    assert own.report.counts[0].rows_in == len(kept)
    read = own.gathered["rows"].frame
    assert list(read["text"]) == [row.text for row in kept] and list(read["output"]) == [
        row.label for row in kept
    ]


# -- real files ------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "banking77").is_dir(), reason=f"no real corpora in {SHARED}")
def test_banking77(tmp_path):
    task = tmp_path / "t.yaml"
    task.write_text(f"rows: {SHARED}/banking77/train.csv\ntest: {SHARED}/banking77/test.csv\n")
    own = custom.read(task)
    assert not own.report.errors and len(own.labels) == 77 and own.columns.text == ("text",)
    assert [(count.rows_in, count.used) for count in own.report.counts] == [(10_003, 9_992), (3_080, 3_079)]
    assert_nothing_lost(own)


@pytest.mark.skipif(not (SHARED / "rte").is_dir(), reason=f"no real corpora in {SHARED}")
def test_rte(tmp_path):
    task = tmp_path / "t.yaml"
    task.write_text(
        f"rows: {SHARED}/rte/train.tsv\ntest: {SHARED}/rte/dev.tsv\nlabel_names: {{0: yes, 1: no}}\n"
    )
    own = custom.read(task)
    assert (
        not own.report.errors
        and own.labels == ("no", "yes")
        and own.columns.text == ("sentence1", "sentence2")
    )
    assert [(count.rows_in, count.used) for count in own.report.counts] == [(2_490, 2_488), (277, 277)]
    assert_nothing_lost(own)


@pytest.mark.parametrize(("profile", "offline"), [("smoke", "1"), ("paper", "0")])
def test_the_hub_may_be_asked_where_the_profile_names_it_alone(tmp_path, monkeypatch, profile, offline):
    (tmp_path / "my_task.yaml").write_text(f"rows: rows.csv\nprofile: {profile}\n")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(command, "run", lambda *_: 0)
    monkeypatch.setattr(reproduce, "_end_in_order", lambda: None)
    assert reproduce.main(["--task", str(tmp_path / "my_task.yaml")]) == 0
    assert os.environ["HF_HUB_OFFLINE"] == offline
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # what someone says themselves holds
    assert reproduce.main(["--task", str(tmp_path / "my_task.yaml")]) == 0 and os.environ["HF_HUB_OFFLINE"] == "1"
