"""Reuters-21578, the eight-topic subset R8: one news item a row, in Orange's tab format.

Source: Lewis 1997, Reuters-21578; the R8 subset after Cardoso-Cachopo 2007. Rows hold topic and text; the first
three rows are Orange's header (names, types, roles).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.tasks.example import PromptTemplate
from synthtune.tasks.formats import table, train_and_test
from synthtune.tasks.spec import Spec

# The corpus's topic codes and the words the teacher and the reader see for them.
TOPICS = {
    "acq": "acquisition", "crude": "oil", "earn": "earnings", "grain": "grain", "interest": "interest rates",
    "money-fx": "foreign exchange", "ship": "shipping", "trade": "trade",
}


def rows(path: Path) -> Iterator[tuple[int, tuple[str], str]]:
    """Read a file of the corpus: line, news item, topic in words."""
    for number, row in table(path, None, header=3, delimiter="\t"):
        if len(row) != 2 or row[0] not in TOPICS or not row[1].strip():
            raise CorpusError(f"{path}, line {number}: expected a topic ({', '.join(TOPICS)}), a tab and a text.")
        yield number, (row[1],), TOPICS[row[0]]


TASKS = {"reuters_r8": Spec(
    title="Reuters R8",
    read=partial(train_and_test, files=("reuters-r8-train.tab", "reuters-r8-test.tab"), rows=rows),
    template=PromptTemplate(f"Name the topic of the news item: {', '.join(TOPICS.values())}.", "News", "Topic"),
    sentences=("The bakery chain said net profit rose to 4.1 mln dlrs from 3.2 mln a year earlier.",
               "The two shipyards agreed to merge, paying shareholders 12 dlrs a share."),
    answer="earnings", tokens={"input": 40, "output": 2}, labels=8, asset="reuters-r8",
)}
