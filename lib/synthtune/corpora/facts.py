"""The package's own corpus of facts, written in the WebNLG release format from a seeded grammar.

The facts come from the tables in `almanac`; the sentences come from the phrases below, all written for this
package. `card` tells how the corpus is made, `write` makes it, `report` measures it.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from synthtune.corpora import almanac
from synthtune.corpora.measure import mean, summary, vocabulary
from synthtune.corpora.wording import article, capital, usual
from synthtune.errors import CorpusError
from synthtune.files import atomic_path
from synthtune.tasks import webnlg

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


def _merge(verb: str, aside: str = "") -> Phrases:
    # A noun phrase or a participle can stand alone after the subject, without its auxiliary.
    return Phrases((verb,), (aside or re.sub(r"^(is|was) ", "", verb),))


DOMAINS = {
    "City": Domain(
        almanac.CITY,
        {
            "country": Phrases(
                ("is a city in {o}", "lies in {o}", "belongs to {o}"),
                ("a city in {o}",),
                ("The city of {s} is in {o}.", "One of the cities of {o} is {s}."),
            ),
            "continent": Phrases(
                ("is on the continent of {o}", "lies on the continent of {o}"),
                ("a city of {o}",),
                ("The continent of {s} is {o}.", "{s} is one of the cities of {o}."),
            ),
            "river": Phrases(
                ("stands on {o}", "lies on the banks of {o}"),
                ("standing on {o}",),
                ("The river {s} stands on is {o}.", "{o} flows through the city of {s}."),
            ),
            "coast": Phrases(
                ("looks out on {o}", "faces {o}"),
                ("a port on {o}",),
                ("The coast of {s} is on {o}.", "From {s} you can see {o}."),
            ),
            "language": Phrases(
                ("has {o} as its main language", "uses mostly the {o} language"),
                ("where people speak {o}",),
                ("The main language of {s} is {o}.", "Most people in {s} speak {o}."),
            ),
            "currency": Phrases(
                ("pays in {o}", "uses {o} as its currency"),
                ("where people pay in {o}",),
                ("The currency of {s} is {o}.", "People in {s} pay in {o}."),
            ),
            "landmark": Phrases(
                ("is known for {o}", "is home to {o}"),
                ("home to {o}",),
                ("A landmark of {s} is {o}.", "Visitors to {s} go to see {o}."),
            ),
        },
        {
            ("language", "currency"): _merge(
                "is a place where people speak {language} and pay in {currency}",
                "where people speak {language} and pay in {currency}",
            ),
            ("country", "river"): _merge("is a city on {river} in {country}"),
            ("country", "coast"): _merge("is a port on {coast} in {country}"),
            ("continent", "landmark"): _merge("is a city of {continent} known for {landmark}"),
            ("country", "continent"): _merge("is a city in {country} on the continent of {continent}"),
        },
    ),
    "River": Domain(
        almanac.RIVER,
        {
            "source": Phrases(
                ("rises in {o}", "has its source in {o}"),
                ("rising in {o}",),
                ("The source of {s} is in {o}.", "It is in {o} that {s} begins."),
            ),
            "mouth": Phrases(
                ("flows into {o}", "ends in {o}"),
                ("flowing into {o}",),
                ("The mouth of {s} is on {o}.", "The waters of {s} end in {o}."),
            ),
            "continent": Phrases(
                ("is a river in {o}", "belongs to the rivers of {o}"),
                ("a river in {o}",),
                ("One of the rivers of {o} is {s}.", "The continent {s} crosses is {o}."),
            ),
            "country": Phrases(
                ("runs through {o}", "crosses {o}"),
                ("crossing {o}",),
                ("A country on the course of {s} is {o}.", "Part of {s} lies in {o}."),
            ),
            "city": Phrases(
                ("passes {o}", "runs past the city of {o}"),
                ("passing {o}",),
                ("The city of {o} stands on {s}.", "A city on the banks of {s} is {o}."),
            ),
            "tributary": Phrases(
                ("is joined by {o}", "takes in the water of {o}"),
                ("joined by {o}",),
                ("A tributary of {s} is {o}.", "{o} is a tributary of {s}."),
            ),
        },
        {
            ("source", "mouth"): _merge("runs from {source} to {mouth}", "running from {source} to {mouth}"),
            ("mouth", "city"): _merge(
                "passes {city} on its way to {mouth}", "passing {city} on its way to {mouth}"
            ),
            ("continent", "tributary"): _merge("is a river in {continent} joined by {tributary}"),
            ("source", "continent"): _merge("is a river in {continent} that rises in {source}"),
            ("country", "mouth"): _merge(
                "crosses {country} before it reaches {mouth}", "crossing {country} before it reaches {mouth}"
            ),
        },
        {"city": ("City", ("country", "landmark", "language", "currency"))},
    ),
    "Element": Domain(
        almanac.ELEMENT,
        {
            "symbol": Phrases(
                ("has the symbol {o}", "is written as {o}"),
                ("written as {o}",),
                ("The symbol of {s} is {o}.", "The symbol {o} stands for {s}."),
            ),
            "atomicNumber": Phrases(
                ("has the atomic number {o}", "is element number {o}"),
                ("element number {o}",),
                ("The atomic number of {s} is {o}.", "Number {o} among the elements is {s}."),
            ),
            "kind": Phrases(
                ("is {a o}", "counts as {a o}"),
                ("{a o}",),
                ("Chemists class {s} as {a o}.", "As an element, {s} is {a o}."),
            ),
            "state": Phrases(
                ("is {a state} at room temperature", "is normally {a state}"),
                ("normally {a state}",),
                ("At room temperature, {s} is {a state}.", "In a warm room {s} is {a state}."),
            ),
            "discoverer": Phrases(
                ("was discovered by {o}", "was first found by {o}"),
                ("discovered by {o}",),
                ("The discoverer of {s} was {o}.", "It was {o} who discovered {s}."),
            ),
            "discoveryYear": Phrases(
                ("was discovered in {o}", "has been known since {o}"),
                ("discovered in {o}",),
                ("The discovery of {s} was in {o}.", "The year {o} saw the discovery of {s}."),
            ),
            "use": Phrases(
                ("is used in {o}", "has a use in {o}"),
                ("used in {o}",),
                ("One use of {s} is in {o}.", "People use {s} in {o}."),
            ),
        },
        {
            ("discoverer", "discoveryYear"): _merge("was discovered by {discoverer} in {discoveryYear}"),
            ("kind", "symbol"): _merge("is {a kind} with the symbol {symbol}"),
            ("symbol", "atomicNumber"): _merge(
                "has the symbol {symbol} and the atomic number {atomicNumber}",
                "element number {atomicNumber} with the symbol {symbol}",
            ),
            ("kind", "use"): _merge("is {a kind} used in {use}"),
            ("kind", "atomicNumber"): _merge("is {a kind} with the atomic number {atomicNumber}"),
            ("kind", "discoverer"): _merge("is {a kind} discovered by {discoverer}"),
        },
    ),
    "Book": Domain(
        almanac.BOOK,
        {
            "author": Phrases(
                ("was written by {o}", "is the work of {o}"),
                ("written by {o}",),
                ("The author of {s} is {o}.", "It was {o} who wrote {s}."),
            ),
            "publicationYear": Phrases(
                ("was published in {o}", "first came out in {o}"),
                ("published in {o}",),
                ("The year {o} saw the publication of {s}.", "Readers first saw {s} in {o}."),
            ),
            "genre": Phrases(
                ("is {a o}", "is known as {a o}"),
                ("{a o}",),
                ("Readers know {s} as {a o}.", "The book called {s} is {a o}."),
            ),
            "setting": Phrases(
                ("is set in {o}", "takes place in {o}"),
                ("set in {o}",),
                ("The setting of {s} is {o}.", "The story of {s} takes place in {o}."),
            ),
            "character": Phrases(
                ("features {o}", "has a character called {o}"),
                ("featuring {o}",),
                ("One of the characters in {s} is {o}.", "Readers of {s} meet {o}."),
            ),
            "language": Phrases(
                ("was first written in {o}", "has {o} as its original language"),
                ("first written in {o}",),
                ("The original language of {s} is {o}.", "The first readers of {s} read it in {o}."),
            ),
        },
        {
            ("author", "genre"): _merge("is {a genre} by {author}"),
            ("author", "publicationYear"): _merge(
                "was written by {author} and published in {publicationYear}"
            ),
            ("author", "language"): _merge("was written in {language} by {author}"),
            ("genre", "publicationYear"): _merge("is {a genre} from {publicationYear}"),
            ("genre", "setting"): _merge("is {a genre} set in {setting}"),
            ("genre", "character"): _merge("is {a genre} about {character}"),
        },
        {"author": ("Author", ("birthPlace",))},
    ),
    "Building": Domain(
        almanac.BUILDING,
        {
            "city": Phrases(
                ("stands in {o}", "can be seen in {o}"),
                ("standing in {o}",),
                ("The city of {o} is home to {s}.", "Visitors can see {s} in {o}."),
            ),
            "country": Phrases(
                ("is found in {o}", "belongs to the sights of {o}"),
                ("found in {o}",),
                ("One of the sights of {o} is {s}.", "The country of {s} is {o}."),
            ),
            "architect": Phrases(
                ("was designed by {o}", "is the work of {o}"),
                ("designed by {o}",),
                ("The architect of {s} was {o}.", "It was {o} who designed {s}."),
            ),
            "completionYear": Phrases(
                ("was finished in {o}", "dates from {o}"),
                ("finished in {o}",),
                ("Work on {s} ended in {o}.", "The year {o} saw the end of work on {s}."),
            ),
            "material": Phrases(
                ("is made of {o}", "was built from {o}"),
                ("made of {o}",),
                ("The main material of {s} is {o}.", "Builders used {o} for {s}."),
            ),
            "kind": Phrases(
                ("is {a o}", "is known as {a o}"),
                ("{a o}",),
                ("People know {s} as {a o}.", "As a building, {s} is {a o}."),
            ),
            "style": Phrases(
                ("is in the {o} style", "shows the {o} style"),
                ("built in the {o} style",),
                ("The style of {s} is {o}.", "Builders gave {s} the {o} style."),
            ),
        },
        {
            ("city", "country"): _merge("stands in {city} in {country}", "standing in {city} in {country}"),
            ("kind", "style"): _merge("is {a style} {kind}"),
            ("kind", "city"): _merge("is {a kind} in {city}"),
            ("kind", "country"): _merge("is {a kind} in {country}"),
            ("architect", "completionYear"): _merge(
                "was designed by {architect} and finished in {completionYear}"
            ),
            ("kind", "material"): _merge("is {a kind} made of {material}"),
            ("kind", "architect"): _merge("is {a kind} by {architect}"),
        },
        {"city": ("City", ("river", "coast", "language", "currency", "country"))},
    ),
    "Animal": Domain(
        almanac.ANIMAL,
        {
            "class": Phrases(
                ("is {a o}", "is classed as {a o}"),
                ("{a o}",),
                ("Zoologists class {s} as {a o}.", "As an animal, {s} is {a o}."),
            ),
            "habitat": Phrases(
                ("lives in {o}", "is at home in {o}"),
                ("at home in {o}",),
                ("The place to look for {s} is in {o}.", "You may meet {s} in {o}."),
            ),
            "continent": Phrases(
                ("comes from {o}", "is native to {o}"),
                ("native to {o}",),
                ("One of the animals of {o} is {s}.", "The home of {s} is {o}."),
            ),
            "food": Phrases(
                ("eats {o}", "feeds on {o}"),
                ("feeding on {o}",),
                ("The diet of {s} includes {o}.", "To feed itself, {s} looks for {o}."),
            ),
            "young": Phrases(
                ("has young called {o}", "raises young known as {o}"),
                ("whose young are called {o}",),
                ("The young of {s} are called {o}.", "People call the young of {s} {o}."),
            ),
            "group": Phrases(
                ("lives in a group called {a o}", "forms {a o}"),
                ("living in {a o}",),
                ("The group {s} lives in is called {a o}.", "With others of its kind, {s} forms {a o}."),
            ),
            "activeBy": Phrases(
                ("is active by {o}", "comes out by {o}"),
                ("active by {o}",),
                ("It is by {o} that {s} is active.", "The time to see {s} is by {o}."),
            ),
        },
        {
            ("class", "continent"): _merge("is {a class} from {continent}"),
            ("habitat", "continent"): _merge(
                "lives in the {habitat} of {continent}", "at home in the {habitat} of {continent}"
            ),
            ("class", "habitat"): _merge("is {a class} that lives in {habitat}"),
            ("food", "activeBy"): _merge(
                "looks for {food} by {activeBy}", "looking for {food} by {activeBy}"
            ),
            ("class", "food"): _merge("is {a class} that eats {food}"),
            ("young", "group"): _merge("raises its {young} in {a group}", "raising its {young} in {a group}"),
        },
    ),
    "Food": Domain(
        almanac.DISH,
        {
            "country": Phrases(
                ("comes from {o}", "is a dish from {o}"),
                ("a dish from {o}",),
                ("The home of {s} is {o}.", "Cooks in {o} gave the world {s}."),
            ),
            "mainIngredient": Phrases(
                ("is made with {o}", "is based on {o}"),
                ("made with {o}",),
                ("Cooks make {s} with {o}.", "To make {s} you need {o}."),
            ),
            "course": Phrases(
                ("is {a o}", "is eaten as {a o}"),
                ("{a o}",),
                ("People eat {s} as {a o}.", "On the menu, {s} is {a o}."),
            ),
            "method": Phrases(
                ("is {a o} dish", "is {o} before serving"),
                ("{a o} dish",),
                ("Before serving, {s} is {o}.", "As a rule, {s} is {o}."),
            ),
            "flavour": Phrases(
                ("is flavoured with {o}", "gets its taste from {o}"),
                ("flavoured with {o}",),
                ("A flavour in {s} is {o}.", "The taste of {s} comes from {o}."),
            ),
            "servedWith": Phrases(
                ("is served with {o}", "goes well with {o}"),
                ("served with {o}",),
                ("People eat {s} with {o}.", "On the plate with {s} there is some {o}."),
            ),
        },
        {
            ("country", "course"): _merge("is {a course} from {country}"),
            ("mainIngredient", "method"): _merge("is made of {method} {mainIngredient}"),
            ("flavour", "servedWith"): _merge("is flavoured with {flavour} and served with {servedWith}"),
            ("country", "mainIngredient"): _merge("is a dish of {mainIngredient} from {country}"),
            ("course", "servedWith"): _merge("is {a course} served with {servedWith}"),
            ("mainIngredient", "flavour"): _merge(
                "is made with {mainIngredient} and flavoured with {flavour}"
            ),
            ("course", "mainIngredient"): _merge("is {a course} made with {mainIngredient}"),
        },
    ),
}

FOLLOWED = {
    **DOMAINS,
    "Author": Domain(
        almanac.AUTHOR,
        {"birthPlace": Phrases(("was born in {o}", "came from {o}"), ("born in {o}",))},
        pronoun="who",
    ),
}
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


def card() -> str:
    """Say what this corpus is and how it is made, for a reader who wonders what the numbers are about."""
    entities = sum(len(almanac.rows(domain.table)) for domain in DOMAINS.values())
    predicates = sum(len(domain.phrases) for domain in DOMAINS.values())
    text = f"""
        Facts, a corpus in the WebNLG format written for this package. A seeded grammar describes
        {entities} entities in {len(DOMAINS)} domains ({", ".join(DOMAINS).lower()}) by {predicates}
        predicates. The facts are true and public and were tabulated by hand; every sentence pattern
        was written for this package and no text is taken from WebNLG or any other corpus. An entry
        has one to three triples, in any order, about one subject, sometimes with a further triple
        about an object. Its texts differ in the choice of phrases, in the order of the facts and in
        how they are merged: one noun phrase or verb for two facts, asides, relative clauses,
        coordination, pronouns. The usual wording is drawn more often than the others, as people
        would. Training entries have one or two texts, development and test entries three to seven.
        No set of triples is in two splits; half of the test entries combine predicates in a way
        that training never does, and some entities are the subject of test entries only. Being made
        from a grammar it is easier and more regular than what people write: scores on it say how
        methods compare, not how well a model would do on WebNLG.
    """
    return " ".join(text.split())


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


def report(folder: str | Path) -> dict[str, Any]:
    """Measure a corpus that `write` made, from its files.

    Returns
    -------
    dict
        By split: `measure.summary`. For the test set: the share of entries whose combination of predicates is
        not in training, those combinations, and the subjects that are never the first subject of a training
        entry. And the number of domains and of distinct words.
    """
    combinations: dict[str, list[str]] = {}
    subjects: dict[str, set[str]] = {}
    found: dict[str, Any] = {"splits": {}}
    words: set[str] = set()
    for split in webnlg.SPLITS:
        examples = webnlg.read(folder, split)
        if not examples:
            raise CorpusError(f"{folder} has no entries for '{split}': write the corpus again.")
        triples = [
            [tuple(triple.split(" | ")) for triple in example.text.split(" && ")] for example in examples
        ]
        domains = [example.id.split("/")[2] for example in examples]
        combinations[split] = [
            f"{domain}: "
            + " + ".join(
                sorted(
                    predicate if subject == facts[0][0] else f"further {predicate}"
                    for subject, predicate, _ in facts
                )
            )
            for domain, facts in zip(domains, triples, strict=True)
        ]
        subjects[split] = {facts[0][0] for facts in triples}
        found["domains"] = len(set(domains))
        found["splits"][split] = summary(examples)
        words |= vocabulary(examples)
    seen = set(combinations["train"])
    found["words"] = len(words)
    found["held-out share"] = mean(name not in seen for name in combinations["test"])
    found["held-out combinations"] = sorted(set(combinations["test"]) - seen)
    found["subjects only in test"] = sorted(subjects["test"] - subjects["train"])
    return found


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
        # A landmark that is the subject itself would make the sentence go round in a circle.
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
