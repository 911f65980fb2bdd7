"""The package's own corpus of facts, written in the WebNLG release format from a seeded grammar.

The facts come from the tables of `almanac`, the sentences from the phrases in facts.yaml, all written for this package.
An entry has one to three triples, in any order, about one subject, sometimes with a further triple about an object. Its
texts differ in the choice of phrases, in the order of the facts and in how they are merged: one noun phrase or verb for two
facts, asides, relative clauses, coordination, pronouns. The usual phrase is drawn more often than the others. No set of
triples is in two splits, half of the test entries combine predicates in a way that training never does, and some entities
are the subject of test entries only. A corpus from a grammar is easier and more regular than what people write:
scores on it compare methods, and do not say how well a model would do on WebNLG. `write` creates it.
"""

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree
from synthtune.errors import CorpusError
from synthtune.files import atomic_path, read_yaml

from toy_corpora import almanac
from toy_corpora.wording import article, capital, usual

SHORTEST, LONGEST = 5, 28
"""Words a sentence may have."""


@dataclass(frozen=True)
class Phrases:
    """Ways to say one fact, or two at once; the first of each kind is the usual one.

    `verbs` are predicates of the subject, `asides` stand between commas after it, `wholes` are full
    sentences. `{o}`, or a predicate's name, stands for the object, `{a …}` for the object with its article,
    `{s}` for the subject.
    """

    verbs: tuple[str, ...]
    asides: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Domain:
    """A category of entries: a table, phrases for its columns and pairs of columns, and columns to follow.

    `chains` maps a column whose objects are entities of another table to that table's domain and columns:
    such an object can be the subject of a further triple of the same entry. `pronoun` is for that domain's
    entities when they are followed to.
    """

    table: str
    phrases: Mapping[str, Phrases]
    merges: Mapping[tuple[str, str], Phrases] = field(default_factory=dict)
    chains: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    pronoun: str = "which"


@dataclass(frozen=True)
class Fact:
    """One triple in sentence form, with articles; `path` is its predicate, `column>predicate` in a chain."""

    subject: str
    predicate: str
    value: str
    path: str


def _domains(content: Mapping[str, Any]) -> dict[str, Domain]:
    return {name: Domain(almanac.TABLES[name],
                         {column: Phrases(**phrases) for column, phrases in domain["phrases"].items()},
                         {merge["of"]: _merge(merge["verb"], merge.get("aside", "")) for merge in domain.get("merges", ())},
                         {column: (other["domain"], other["columns"]) for column, other in domain.get("chains", {}).items()},
                         domain.get("pronoun", "which"))
            for name, domain in content.items()}


def _merge(verb: str, aside: str) -> Phrases:
    # A noun phrase or a participle can stand alone after the subject, without its auxiliary.
    return Phrases((verb,), (aside or re.sub(r"^(is|was) ", "", verb),))


_PHRASES = read_yaml(Path(__file__).with_suffix(".yaml"))
DOMAINS = _domains(_PHRASES["domains"])
FOLLOWED = DOMAINS | _domains(_PHRASES["followed"])
"""The domains, and tables that only further triples are taken from."""

SIZES = {"train": 2500, "dev": 300, "test": 300}
"""Entries of each split, unless told otherwise."""

REFERENCES = {"train": (1, 2), "dev": (5, 7), "test": (5, 7)}
"""Fewest and most texts drawn for an entry; a single fact may have fewer wordings, but at least three."""

ONE_TWO_THREE = (0.25, 0.38, 0.37)
"""Shares of the entries with one, two and three triples."""

HELD_OUT = {"dev": 0.13, "test": 0.27}
"""Share of the combinations of predicates that only this split may use."""

HELD_OUT_ENTRIES = 0.50
"""Share of the entries of dev and test that use such a combination."""

HELD_OUT_SUBJECTS = {"dev": 1, "test": 2}
"""Entities of each domain that only this split has as the subject of an entry, about 1 entry in 12."""


def write(folder: str | Path, seed: int = 0, sizes: Mapping[str, int] = SIZES) -> None:
    """Write the corpus as `folder/{train,dev,test}/{1,2,3}triples/<Category>.xml`.

    The same seed and sizes give the same bytes. What `folder` held before is replaced, whole or not at all.

    Parameters
    ----------
    folder : path
    seed : int
    sizes : mapping of str to int
        Entries of each split.

    Raises
    ------
    CorpusError
        If the tables cannot give that many entries.
    """
    rng = random.Random(f"facts {seed}")
    owner = _share_combinations(rng)
    subjects = _share_subjects(rng)
    taken: set[frozenset[Fact]] = set()
    with atomic_path(folder) as temporary:
        # The smaller splits choose first: what only they may use is scarce.
        for split in sorted(sizes, key=lambda split: (split == "train", split)):
            entries = _draw_entries(rng, split, sizes[split], owner, subjects, taken)
            texts = [_texts(rng, category, facts, split) for category, facts in entries]
            _write_split(temporary / split, entries, texts)


def _combinations(category: str) -> Iterator[frozenset[str]]:
    domain = DOMAINS[category]
    names = list(domain.phrases)
    for size in (1, 2, 3):
        yield from map(frozenset, itertools.combinations(names, size))
    for column, (_, further) in domain.chains.items():
        for predicate in further:
            link = f"{column}>{predicate}"
            yield frozenset((column, link))
            # "in Paris, in France" and "in Paris, which is in France" would say the country twice.
            yield from (
                frozenset((column, link, other)) for other in names if other not in (column, predicate)
            )


def _share_combinations(rng: random.Random) -> dict[tuple[str, frozenset[str]], str]:
    owner = {}
    for category in DOMAINS:
        for combination in _combinations(category):
            draw = rng.random()
            if len(combination) == 1 or draw >= sum(HELD_OUT.values()):
                owner[category, combination] = "any"
            else:
                owner[category, combination] = "test" if draw < HELD_OUT["test"] else "dev"
    return owner


def _share_subjects(rng: random.Random) -> dict[str, dict[str, list[str]]]:
    shares: dict[str, dict[str, list[str]]] = {}
    for category, domain in DOMAINS.items():
        names = [row["name"] for row in almanac.rows(domain.table)]
        rng.shuffle(names)
        # A name whose words occur elsewhere can be learnt without ever being seen, so those are held out
        # first.
        words = [
            {word for cell in row.values() for word in cell.split()}
            for other in DOMAINS.values()
            for row in almanac.rows(other.table)
        ]
        names.sort(key=lambda name: not all(sum(word in row for row in words) > 1 for word in name.split()))
        shares[category] = {}
        for split, number in HELD_OUT_SUBJECTS.items():
            shares[category][split], names = names[:number], names[number:]
        shares[category]["any"] = names
    return shares


def _draw_entries(
    rng: random.Random,
    split: str,
    size: int,
    owner: Mapping[tuple[str, frozenset[str]], str],
    subjects: Mapping[str, Mapping[str, list[str]]],
    taken: set[frozenset[Fact]],
) -> list[tuple[str, list[Fact]]]:
    common = [(category, name) for category in DOMAINS for name in subjects[category]["any"]]
    own = [(category, name) for category in DOMAINS for name in subjects[category].get(split, ())]
    allowed: dict[tuple[str, str, int], list[frozenset[str]]] = {}
    for (category, combination), holder in owner.items():
        if holder in ("any", split):
            allowed.setdefault((category, holder, len(combination)), []).append(combination)
    entries: list[tuple[str, list[Fact]]] = []
    turn: list[tuple[str, str]] = []
    failures = 0
    while len(entries) < size:
        if not turn:
            # Every entity is the subject once before any is again, so that training sees them all equally
            # often.
            turn = rng.sample(common, len(common))
        category, name = rng.choice(own) if own and rng.random() < 1 / 12 else turn.pop()
        facts = _draw_facts(rng, split, category, name, allowed, taken)
        if facts is None:
            failures += 1
            if failures > 300:
                raise CorpusError(
                    f"The tables of facts do not hold {size} different entries for '{split}': ask for fewer."
                )
            continue
        taken.add(frozenset(facts))
        entries.append((category, facts))
    return entries


def _draw_facts(
    rng: random.Random,
    split: str,
    category: str,
    name: str,
    allowed: Mapping[tuple[str, str, int], list[frozenset[str]]],
    taken: set[frozenset[Fact]],
) -> list[Fact] | None:
    """Draw facts about an entity that no entry has yet; none if thirty draws find none."""
    for _ in range(30):
        held_out = split in HELD_OUT and rng.random() < HELD_OUT_ENTRIES
        # Held-out combinations have two triples or more; the share of single facts is kept by drawing more of
        # them among the rest.
        single, *several = ONE_TWO_THREE
        if split in HELD_OUT:
            single = 0 if held_out else single / (1 - HELD_OUT_ENTRIES)
        number = rng.choices((1, 2, 3), (single, *several))[0]
        choices = allowed.get((category, split if held_out else "any", number), [])
        facts = _facts(rng, category, name, rng.choice(choices)) if choices else None
        if facts is not None and frozenset(facts) not in taken:
            return facts
    return None


def _facts(rng: random.Random, category: str, name: str, combination: frozenset[str]) -> list[Fact] | None:
    """Look up one entity's facts, in a random order but a followed object and its own fact last."""
    row = next(row for row in almanac.rows(DOMAINS[category].table) if row["name"] == name)
    links = [path for path in combination if ">" in path]
    columns = sorted(path for path in combination if ">" not in path)
    if any(column not in row for column in columns):
        return None
    rng.shuffle(columns)
    for link in links:
        column = link.split(">")[0]
        columns.sort(key=lambda other, followed=column: other == followed)
    facts = [Fact(name, column, row[column], column) for column in columns]
    for link in links:
        column, predicate = link.split(">")
        target, _ = DOMAINS[category].chains[column]
        further = next(
            (row for row in almanac.rows(FOLLOWED[target].table) if row["name"] == facts[-1].value), {}
        )
        # A landmark that is the subject itself would make the sentence circular.
        if predicate not in further or further[predicate] in {name, *(fact.value for fact in facts)}:
            return None
        facts.append(Fact(further["name"], predicate, further[predicate], link))
    return facts


def _texts(rng: random.Random, category: str, facts: list[Fact], split: str) -> list[str]:
    number = rng.randint(*REFERENCES[split])
    texts: dict[str, str] = {}
    for _ in range(400):
        text = _sentence(rng, category, facts)
        if SHORTEST <= len(text.split()) <= LONGEST:
            texts.setdefault(text.lower(), text)
        if len(texts) == number:
            break
    if len(texts) < min(number, 3):
        raise CorpusError(
            f"The grammar has only {len(texts)} ways to say {facts}: give its predicates more phrases."
        )
    return list(texts.values())


def _sentence(rng: random.Random, category: str, facts: list[Fact]) -> str:
    domain = DOMAINS[category]
    subject = facts[0].subject
    main = [fact for fact in facts if ">" not in fact.path]
    further = facts[len(main) :]
    if len(facts) == 1 and rng.random() < 0.4:
        phrase = rng.choice(domain.phrases[facts[0].predicate].wholes)
        return capital(_fill(phrase, facts[0].value, s=subject))
    if not further and rng.random() < 0.2:
        rng.shuffle(main)
    units = _units(rng, domain, main, merge=not further)
    text = _join(
        rng, subject, [usual(rng, unit.verbs) for unit in units], [usual(rng, unit.asides) for unit in units]
    )
    if further:
        text = _follow(rng, category, text, further[0])
    return capital(text) + "."


def _units(rng: random.Random, domain: Domain, facts: list[Fact], merge: bool) -> list[Phrases]:
    """Turn facts into phrases with their objects filled in, merging two where the domain knows how."""
    values = {fact.predicate: fact.value for fact in facts}
    pairs = [pair for pair in domain.merges if merge and set(pair) <= set(values)]
    if pairs and rng.random() < 0.75:
        pair = usual(rng, tuple(pairs))
        merged = domain.merges[pair]
        first = min(index for index, fact in enumerate(facts) if fact.predicate in pair)
        units = []
        for index, fact in enumerate(facts):
            if index == first:
                units.append(_filled(merged, "", values))
            elif fact.predicate not in pair:
                units.append(_filled(domain.phrases[fact.predicate], fact.value, {}))
        return units
    return [_filled(domain.phrases[fact.predicate], fact.value, {}) for fact in facts]


def _filled(phrases: Phrases, value: str, values: Mapping[str, str]) -> Phrases:
    return Phrases(
        *(
            tuple(_fill(phrase, value, **values) for phrase in kind)
            for kind in (phrases.verbs, phrases.asides)
        )
    )


def _join(rng: random.Random, subject: str, verbs: list[str], asides: list[str]) -> str:
    """Make one or two sentences of up to three phrases, told in their order."""
    first, *rest = verbs
    if not rest:
        return f"{subject} {first}"
    tail = " and ".join(rest)
    plans = {"aside": 5, "which": 2, "pronoun": 3, "and": 5 if len(rest) == 1 else 2}
    # "A bird, the ostrich eats seeds" has too little before the comma; clauses cannot go there at all.
    if len(rest) == 1 and not re.match(r"(where|whose) |an? (\S+ )?\S+$", asides[0]):
        plans["before"] = 1
    if any(" and " in verb for verb in verbs):
        # A phrase with its own "and" in a list with another one is hard to read.
        del plans["and"]
        if len(rest) == 2:
            plans = {"sentences": 1}
    plan = rng.choices(list(plans), list(plans.values()))[0]
    if plan == "aside":
        return f"{subject}, {asides[0]}, {tail}"
    if plan == "which":
        return f"{subject}, which {first}, {tail}"
    if plan == "before":
        return f"{asides[0]}, {subject} {tail}"
    if plan == "sentences":
        return f"{subject}, {asides[0]}, {rest[0]}. It {rest[1]}"
    if plan == "pronoun":
        return f"{subject} {' and '.join(verbs[:-1])}. It {verbs[-1]}"
    return f"{subject} {', '.join(verbs[:-1])} and {verbs[-1]}"


def _follow(rng: random.Random, category: str, text: str, fact: Fact) -> str:
    """Go on about the object that `text` ends with."""
    column = fact.path.split(">")[0]
    target = FOLLOWED[DOMAINS[category].chains[column][0]]
    phrases = _filled(target.phrases[fact.predicate], fact.value, {})
    plan = rng.choices(("which", "aside", "sentence"), (4, 3, 2))[0]
    if plan == "which":
        return f"{text}, {target.pronoun} {usual(rng, phrases.verbs)}"
    if plan == "aside":
        return f"{text}, {usual(rng, phrases.asides)}"
    return f"{text}. {capital(fact.subject)} {usual(rng, phrases.verbs)}"


def _fill(phrase: str, value: str = "", **values: str) -> str:
    def put(match: re.Match[str]) -> str:
        word = values.get(match["name"], value)
        return f"{article(word)} {word}" if match["article"] else word

    return re.sub(r"\{(?P<article>a )?(?P<name>\w+)\}", put, phrase)


def _triple(fact: Fact) -> str:
    names = (re.sub(r"^the ", "", name).replace(" ", "_") for name in (fact.subject, fact.value))
    return f"{capital(next(names))} | {fact.predicate} | {next(names)}"


def _write_split(folder: Path, entries: list[tuple[str, list[Fact]]], texts: list[list[str]]) -> None:
    files: dict[tuple[int, str], etree._Element] = {}
    for (category, facts), lexes in sorted(zip(entries, texts, strict=True), key=lambda item: item[0][0]):
        root = files.setdefault((len(facts), category), etree.Element("benchmark"))
        listing = root[0] if len(root) else etree.SubElement(root, "entries")
        chained = ">" in facts[-1].path
        shape_type = (
            "NA" if len(facts) == 1 else "sibling" if not chained else "chain" if len(facts) == 2 else "mixed"
        )
        shape = {"NA": "(X (X))", "chain": "(X (X (X)))", "mixed": "(X (X) (X (X)))"}.get(
            shape_type, f"(X{' (X)' * len(facts)})"
        )
        entry = etree.SubElement(
            listing,
            "entry",
            category=category,
            eid=f"Id{len(listing) + 1}",
            shape=shape,
            shape_type=shape_type,
            size=str(len(facts)),
        )
        for kind, tag in (("originaltripleset", "otriple"), ("modifiedtripleset", "mtriple")):
            group = etree.SubElement(entry, kind)
            for fact in facts:
                etree.SubElement(group, tag).text = _triple(fact)
        for number, text in enumerate(lexes, 1):
            etree.SubElement(entry, "lex", comment="good", lid=f"Id{number}").text = text
    for (size, category), root in files.items():
        path = folder / f"{size}triples" / f"{category}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="utf-8"))
