"""What the tests measure of the package's own corpora, from their files."""

import re

from synthtune.tasks import sgd, webnlg


def mean(values):
    """Average, to three decimals."""
    values = list(values)
    return round(sum(values) / len(values), 3)


def summary(examples):
    """Count a split's entries, the references of an entry, and the words of inputs, targets and texts."""
    lengths = [len(text.split()) for example in examples for text in example.references]
    return {
        "entries": len(examples),
        "references": mean(len(example.references) for example in examples),
        "input words": mean(len(example.text.split()) for example in examples),
        "target words": mean(len(example.target.split()) for example in examples),
        "shortest text": min(lengths),
        "longest text": max(lengths),
    }


def vocabulary(examples):
    """Collect the distinct words of inputs and texts, in lower case, without punctuation."""
    return {
        word
        for example in examples
        for text in (example.text, *example.references)
        for word in re.findall(r"\w+", text.lower())
    }


def held_out(combinations, words):
    """What test inputs combine in a way that training never does, and the number of distinct words."""
    seen = set(combinations["train"])
    return {"words": len(words), "held-out share": mean(name not in seen for name in combinations["test"]),
            "held-out combinations": sorted(set(combinations["test"]) - seen)}


def of_facts(folder):
    """Measure a corpus that `write` made, from its files.

    By split: `summary`. For the test set: the share of entries whose combination of predicates is not in training, those
    combinations, and the subjects that are never the first subject of a training entry. And the number of domains and of distinct words.
    """
    combinations = {}
    subjects = {}
    found = {"splits": {}}
    words = set()
    for split in webnlg.SPLITS:
        examples = webnlg.read(folder, split)
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
    found |= held_out(combinations, words)
    found["subjects only in test"] = sorted(subjects["test"] - subjects["train"])
    return found


def of_dialogues(folder):
    """Measure a corpus that `write` made, from its files.

    By split: `summary`. For the test set: the share of inputs whose service, acts and slots are together not in training, those
    combinations, and the names that training never offers. And the number of services and of distinct words.
    """
    found = {"splits": {}}
    combinations = {}
    names = {}
    words = set()
    for split in sgd.SPLITS:
        examples = sgd.read(folder, split)
        parts = [
            [part.partition(" = ")[0] for part in example.text.split(" && ")]
            for example in examples
        ]
        combinations[split] = [
            f"{service.split(',')[0]}: " + " + ".join(sorted(actions))
            for service, *actions in parts
        ]
        names[split] = {
            name
            for example in examples
            for name in re.findall(r"(?:name|title) of the \w+ = ([^&]*[^& ])", example.text)
        }
        found["domains"] = len({service[0] for service in parts})
        found["splits"][split] = summary(examples)
        words |= vocabulary(examples)
    found |= held_out(combinations, words)
    found["names only in test"] = sorted(names["test"] - names["train"])
    return found
