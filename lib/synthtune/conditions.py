"""The conditions of the study: what a student is trained on. An entry of `CONDITIONS` is all that is said of one anywhere."""

from dataclasses import dataclass, field
from typing import Any

GOLD, ANNOTATED, GENERATED, BOTH, PROMPTED, FULL = "gold", "gold+annotated", "gold+generated", "gold+both", "gold+prompted", "full"
HARD = "gold+annotated, hard labels"
TEACHER = "teacher"


@dataclass(frozen=True)
class Condition:
    """A condition.

    Attributes
    ----------
    shares : dict
        Shares of the added synthetic examples, which sum to 1, by their route: "annotated" by the teacher, "generated", or "prompted":
        annotated by a prompted model beside the teacher. Empty where none are added.
    color, marker, linestyle
        How figures draw it, as matplotlib names them.
    label : str
        What legends call it, if not by its name.
    """

    shares: dict[str, float] = field(default_factory=dict)
    color: str = "#444444"
    marker: str = ""
    linestyle: Any = "-"
    label: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's `plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.linestyle}

    @property
    def kinds(self) -> str:
        """Which synthetic examples are added, in words."""
        made = next(iter(self.shares), "")
        return "of both kinds" if len(self.shares) > 1 else "endpoint-annotated" if made == "prompted" else made

    @property
    def examples(self) -> str:
        """The synthetic examples that are added, in words and before a verb."""
        if len(self.shares) < 2:
            return f"{self.kinds} examples"
        route, share = next(iter(self.shares.items()))
        return f"examples, {'half of each kind' if share == 0.5 else f'{share:.0%} {route}'},"


# Okabe and Ito's palette, whose colours differ in all common kinds of colour blindness. Markers and line styles
# differ as well, for print without colour.
# Every condition that figures and table compare, by its name and in their order.
CONDITIONS = {
    GOLD: Condition(color="#E69F00", marker="o"),
    ANNOTATED: Condition({"annotated": 1}, color="#0072B2", marker="s"),
    GENERATED: Condition({"generated": 1}, color="#009E73", marker="^", linestyle="-."),
    BOTH: Condition({"annotated": 0.5, "generated": 0.5}, color="#CC79A7", marker="D", linestyle=(0, (4, 1))),
    PROMPTED: Condition({"prompted": 1}, color="#882255", marker="P", linestyle=(0, (1, 1))),
}

# What conditions are compared with: the teacher itself; a student trained on all true labels of the pool; and annotated examples
# with the teacher's label alone, where `students.synthetic_labels` is "soft", which only figure 6 shows.
REFERENCES = {
    TEACHER: Condition(color="#D55E00", linestyle=(0, (5, 2))),
    FULL: Condition(linestyle=":", label="full (all true labels)"),
    HARD: Condition({"annotated": 1}, color="#56B4E9", marker="v"),
}


def condition(name: str) -> Condition:
    """A condition or reference by its name."""
    return CONDITIONS[name] if name in CONDITIONS else REFERENCES[name]
