"""BANKING77, what customers of a bank want, 77 intents (Casanueva et al. 2020)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synthtune.tasks.example import PromptTemplate
from synthtune.tasks.formats import table, train_and_test
from synthtune.tasks.spec import Spec


def rows(path: Path) -> Iterator[tuple[int, tuple[str], str]]:
    """Read an official file: line, what the customer says, the intent in words."""
    for number, (text, intent) in table(path, 2):
        yield number, (text.strip(),), " ".join(intent.replace("_", " ").split()).lower()


TASKS = {"banking77": Spec(
    title="BANKING77",
    read=partial(train_and_test, files=("train.csv", "test.csv"), rows=rows),
    template=PromptTemplate("Name what the customer wants.", "Customer", "Intent"),
    sentences=("My card still has not come in the post, how long does it take?", "The machine swallowed my card this morning."),
    answer="card arrival",
    tokens={"input": 14, "output": 5},  # 60 characters, and 20 of the labels
    labels=77,
    citation="Casanueva et al. 2020", licence="CC BY 4.0",
    source={"files": (
        {"url": "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/train.csv", "bytes": 839073,
         "sha256": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b"},
        {"url": "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/test.csv", "bytes": 239961,
         "sha256": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d"})},
)}
