"""Three real sentiment corpora: each text was rated from -4 to 4 by twenty people.

Source: Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media text";
files `*_GroundTruth.txt`, one text a line: id, mean rating, text, tab-separated, latin-1.
"""

from pathlib import Path

from synthtune.errors import CorpusError
from synthtune.tasks.example import Example, PromptTemplate
from synthtune.tasks.spec import Corpus, Spec

LABELS = ("negative", "positive")
# Texts with a mean rating this close to zero are dropped: the raters did not agree on a sign.
UNDECIDED = 0.5


def read(path: Path) -> Corpus:
    """Read one rated corpus, which has no test set of its own; count the texts that are dropped as "undecided".

    Raises
    ------
    CorpusError
        The file is missing, or a line is not id, rating, text; the message names file and line.
    """
    examples, undecided = [], 0
    try:
        lines = path.read_text("latin-1").splitlines()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); delete its folder in the cache and run "
                          "again to fetch it anew.") from error
    for number, line in enumerate(lines, 1):
        parts = line.split("\t", 2)
        try:
            name, rating, text = parts[0], float(parts[1]), parts[2].strip()
        except (IndexError, ValueError) as error:
            raise CorpusError(f"{path}, line {number}: expected id, rating and text separated by tabs.") from error
        if abs(rating) <= UNDECIDED:
            undecided += 1
        elif text:
            examples.append(Example(name, text, LABELS[rating > 0]))
    return Corpus(examples, counted={"undecided": undecided})


def _spec(thing: str, file: str, tokens: int, sentences: tuple[str, str], answer: str) -> Spec:
    return Spec(f"{thing.capitalize()}s", lambda folder: read(folder / f"{file}_GroundTruth.txt"),
                PromptTemplate(f"Say whether the {thing} is positive or negative.", thing.capitalize(), "Sentiment"), sentences, answer,
                {"input": tokens, "output": 1}, labels=2, asset="vader-ground-truth")


TASKS = {
    "film_reviews": _spec("film review", "movieReviewSnippets", 28, (
        "The plot limps, but the two leads are a joy to watch.", "Two hours I will never get back."), "positive"),
    "product_reviews": _spec("product review", "amazonReviewSnippets", 24, (
        "The lid cracked within a week and nobody answered my letters.", "Small, quiet, and it just works."), "negative"),
    "tweets": _spec("tweet", "tweets", 22, (
        "Missed my train, spilled my coffee, and it is only Monday.", "Best surprise party ever, thank you all!"), "negative"),
}
