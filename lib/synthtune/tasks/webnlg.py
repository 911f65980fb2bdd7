"""Reader of WebNLG release files: sets of triples, and texts that express them.

Source: Gardent, Shimorina, Narayan and Perez-Beltrachini (2017), "Creating training corpora for NLG
micro-planners", ACL. The reader takes the XML of the official releases (v2 and later) and any corpus in that
format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from synthtune.errors import CorpusError
from synthtune.tasks.example import Example, PromptTemplate
from synthtune.tasks.formats import SPLITS, split_files
from synthtune.tasks.spec import Corpus, Spec

if TYPE_CHECKING:
    from lxml import etree


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
    paths = split_files(folder, split, "WebNLG", ("release_v2", "webnlg", "webnlg/release_v2"), "*triples/*.xml")
    return [example for path in paths for entry in _entries(path) if (example := _example(entry, path, split, max_triples))]


def linearise(triples: list[tuple[str, str, str]]) -> str:
    """Put triples on one line: `subject | predicate | object`, joined by ` && `, in plain words.

    Underscores become spaces, camelCase predicates become words, quotation marks around literals are removed.
    """
    return " && ".join(f"{_plain(subject)} | {_words(predicate)} | {_plain(value)}" for subject, predicate, value in triples)


def is_input(text: str) -> bool:
    """Whether a line has the form that `linearise` writes: one to three whole triples."""
    triples = [part.split(" | ") for part in text.split(" && ")]
    return len(triples) <= 3 and all(len(triple) == 3 and all(map(str.strip, triple)) for triple in triples)


def values(text: str) -> list[str]:
    """The subjects and objects of a linearised input, each once; its text has to mention them."""
    triples = [part.split(" | ") for part in text.split(" && ")]
    return list(dict.fromkeys(name for triple in triples if len(triple) == 3 for name in (triple[0], triple[2])))


def _entries(path: Path) -> Iterator[etree._Element]:
    from lxml import etree  # every process reads this module for the task's name, few read XML

    # Entities are left unexpanded and a document type is refused below, so that a file made to expand
    # without end, or to read other files, does neither.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.parse(str(path), parser)
    except etree.XMLSyntaxError as error:
        raise CorpusError(f"{path}, line {error.lineno}: not well-formed XML ({error.msg}). Fetch the file again or repair that "
                          "line.") from error
    if tree.docinfo.doctype:
        raise CorpusError(f"{path}, line 1: has a document type declaration, which WebNLG files never do. Remove the declaration "
                          "and any entities it defines.")
    root = tree.getroot()
    if root.tag != "benchmark":
        raise CorpusError(f"{path}, line {root.sourceline}: the root element is <{root.tag}>, not <benchmark>: this is not a WebNLG "
                          "release file.")
    return root.iterfind("entries/entry")


def _example(entry: etree._Element, path: Path, split: str, max_triples: int) -> Example | None:
    if not entry.get("eid"):
        raise CorpusError(f"{path}, line {entry.sourceline}: this entry has no attribute 'eid'.")
    triples = _triples(entry, path)
    texts = (" ".join((lex.text or "").split()) for lex in entry.iterfind("lex"))
    references = tuple(text for text in texts if text)
    if not references or len(triples) > max_triples:
        return None
    return Example(f"{split}/{path.parent.name}/{path.stem}/{entry.get('eid')}", linearise(triples), references[0], references)


def _triples(entry: etree._Element, path: Path) -> list[tuple[str, str, str]]:
    modified = entry.find("modifiedtripleset")
    if modified is None or not len(modified):
        raise CorpusError(f"{path}, line {entry.sourceline}: entry '{entry.get('eid')}' has no <modifiedtripleset> with an "
                          "<mtriple> in it.")
    triples = []
    for element in modified.iterfind("mtriple"):
        parts = tuple(part.strip() for part in (element.text or "").split(" | "))
        if len(parts) != 3 or not all(parts):
            raise CorpusError(f"{path}, line {element.sourceline}: '{element.text}' is not a triple; write subject | predicate | object.")
        triples.append(parts)
    return triples


def _plain(value: str) -> str:
    return " ".join(value.replace("_", " ").replace('"', " ").split())


def _words(predicate: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", predicate.replace("_", " "))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in spaced.split())


TASKS = {"webnlg": Spec(
    title="WebNLG",
    read=lambda folder: Corpus(**{split: read(folder, split) for split in SPLITS}),
    template=PromptTemplate("Write one text that says all of the facts.", "Facts", "Text"),
    sentences=("Porto | country | Portugal", "Ada Lovelace | birth place | London && Ada Lovelace | field | mathematics"),
    answer="Porto is a city in Portugal.",
    tokens={"input": 46, "output": 25},  # 137 characters at 3 a token, 111 at 4.5
    task_type="generation",
    is_input=is_input, values=values,
    toy_corpus="toy_corpora.facts",
    citation="Gardent et al. 2017", licence="CC BY-NC-SA 4.0",
    source={"repository": {
        "url": "https://gitlab.com/shimorina/webnlg-dataset.git", "commit": "587fa698bec705efbefe72a235a6019c2b9b8b6c",
        "folder": "release_v2/xml", "parts": SPLITS}},
)}
