"""Reader of WebNLG release files: sets of triples, and texts that express them.

Source: Gardent, Shimorina, Narayan and Perez-Beltrachini (2017), "Creating training corpora for NLG
micro-planners", ACL. The reader takes the XML of the official releases (v2 and later) and any corpus in that
format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from synthtune.errors import CorpusError
from synthtune.tasks.example import Example

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Counts:
    """What a split holds: entries within the size limit, their texts, and the entries without any text."""

    entries: int
    texts: int
    without_text: int


def read(folder: str | Path, split: str, max_triples: int = 3) -> list[Example]:
    """Read one split.

    Parameters
    ----------
    folder : path
        The release (`train/1triples/*.xml` …), or a folder that holds it as `webnlg/` or `release_v2/`.
    split : {"train", "dev", "test"}
    max_triples : int
        Entries with more triples are left out.

    Returns
    -------
    list of Example
        One per entry that has a text, in the order of the files: `text` is the linearised triples, `target`
        the first text, `references` all of them.

    Raises
    ------
    CorpusError
        If the folder or split is missing, or a file is malformed (the message names the file and the line).
    """
    return [example for example in _entries(folder, split, max_triples) if example.references]


def count(folder: str | Path, split: str, max_triples: int = 3) -> Counts:
    """Count a split's entries and texts; entries without a text are what `read` leaves out."""
    examples = _entries(folder, split, max_triples)
    return Counts(
        entries=len(examples),
        texts=sum(len(example.references) for example in examples),
        without_text=sum(not example.references for example in examples),
    )


def linearise(triples: list[tuple[str, str, str]]) -> str:
    """Put triples on one line: `subject | predicate | object`, joined by ` && `, in plain words.

    Underscores become spaces, camelCase predicates become words, quotation marks around literals are removed.
    """
    return " && ".join(
        f"{_plain(subject)} | {_words(predicate)} | {_plain(value)}" for subject, predicate, value in triples
    )


def is_input(text: str) -> bool:
    """Whether a line has the form that `linearise` writes: one to three whole triples."""
    triples = [part.split(" | ") for part in text.split(" && ")]
    return len(triples) <= 3 and all(len(triple) == 3 and all(map(str.strip, triple)) for triple in triples)


def values(text: str) -> list[str]:
    """The subjects and objects of a linearised input, each once; its text has to mention them."""
    triples = [part.split(" | ") for part in text.split(" && ")]
    return list(dict.fromkeys(name for triple in triples if len(triple) == 3 for name in (triple[0], triple[2])))


def find_split(folder: str | Path, split: str) -> Path:
    """Find the folder of a split in a release, or in a folder that holds the release.

    Raises
    ------
    CorpusError
        If the split is not one of the three, or its folder is not found.
    """
    if split not in SPLITS:
        raise CorpusError(f"There is no WebNLG split '{split}': choose one of {', '.join(SPLITS)}.")
    folder = Path(folder)
    for inside in ("", "release_v2", "webnlg", "webnlg/release_v2"):
        if (folder / inside / split).is_dir():
            return folder / inside / split
    raise CorpusError(
        f"No WebNLG release in {folder}: there should be a folder '{split}' with 1triples/*.xml in it, "
        "directly or under webnlg/ or webnlg/release_v2/."
    )


def _entries(folder: str | Path, split: str, max_triples: int) -> list[Example]:
    paths = sorted(find_split(folder, split).glob("*triples/*.xml"))
    if not paths:
        raise CorpusError(f"{find_split(folder, split)} holds no file like 1triples/*.xml.")
    return [example for path in paths for example in _read_file(path, split, max_triples)]


def _read_file(path: Path, split: str, max_triples: int) -> list[Example]:
    # Entities are left unexpanded and a document type is refused below, so that a file made to expand
    # without end, or to read other files, does neither.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.parse(str(path), parser)
    except etree.XMLSyntaxError as error:
        raise CorpusError(
            f"{path}, line {error.lineno}: not well-formed XML ({error.msg}). "
            "Fetch the file again or repair that line."
        ) from error
    if tree.docinfo.doctype:
        raise CorpusError(
            f"{path}, line 1: has a document type declaration, which WebNLG files never do. "
            "Remove the declaration and any entities it defines."
        )
    root = tree.getroot()
    if root.tag != "benchmark":
        raise CorpusError(
            f"{path}, line {root.sourceline}: the root element is <{root.tag}>, not <benchmark>: "
            "this is not a WebNLG release file."
        )
    examples = []
    for entry in root.iterfind("entries/entry"):
        for attribute in ("category", "eid"):
            if not entry.get(attribute):
                raise CorpusError(
                    f"{path}, line {entry.sourceline}: this entry has no attribute '{attribute}'."
                )
        triples = _triples(entry, path)
        if len(triples) > max_triples:
            continue
        texts = (" ".join((lex.text or "").split()) for lex in entry.iterfind("lex"))
        references = tuple(text for text in texts if text)
        examples.append(
            Example(
                id=f"{split}/{path.parent.name}/{path.stem}/{entry.get('eid')}",
                text=linearise(triples),
                target=references[0] if references else "",
                references=references,
            )
        )
    return examples


def _triples(entry: etree._Element, path: Path) -> list[tuple[str, str, str]]:
    modified = entry.find("modifiedtripleset")
    if modified is None or len(modified) == 0:
        raise CorpusError(
            f"{path}, line {entry.sourceline}: entry '{entry.get('eid')}' has no <modifiedtripleset> "
            "with an <mtriple> in it."
        )
    triples = []
    for element in modified.iterfind("mtriple"):
        parts = tuple(part.strip() for part in (element.text or "").split(" | "))
        if len(parts) != 3 or not all(parts):
            raise CorpusError(
                f"{path}, line {element.sourceline}: '{element.text}' is not a triple; "
                "write subject | predicate | object."
            )
        triples.append(parts)
    return triples


def _plain(value: str) -> str:
    return " ".join(value.replace("_", " ").replace('"', " ").split())


def _words(predicate: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", predicate.replace("_", " "))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in spaced.split())
