"""The example, the row that every task consists of, and how it is written down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One input with what is known about its output.

    Attributes
    ----------
    id : str
        Unique within its task, and the same in every run.
    text : str
        The input X, on one line.
    target : str
        The output Y: a label's text for classification, a sentence for generation.
    references : tuple of str
        Generation only: every reference text of this input, the target first. Empty for classification.
    """

    id: str
    text: str
    target: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptTemplate:
    """How a task is written down for a language model."""

    instruction: str
    input: str
    output: str


def log_probability(label: str) -> str:
    """Name of the column with a label's log-probability, in tables of annotated and generated examples."""
    return f"log P({label})"


def joined(names: tuple[str, ...], texts: tuple[str, ...]) -> str:
    """An input on one line: its only text, or both texts of a pair, each after its name."""
    named = [f"{name}: {text}" for name, text in zip(names, texts, strict=True)] if names else texts
    return " ".join(" ".join(named).split())


def divided(names: tuple[str, ...], line: str) -> tuple[str, ...] | None:
    """The texts that `joined` put on a line, or None if the line does not have that form."""
    if not names:
        return (line,)
    head, between, rest = line.partition(f" {names[1]}: ")
    first, second = head.removeprefix(f"{names[0]}: ").strip(), rest.strip()
    return (first, second) if head.startswith(f"{names[0]}: ") and first and between and second else None
