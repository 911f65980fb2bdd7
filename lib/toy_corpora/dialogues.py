"""The package's own service dialogues, written in the Schema-Guided Dialogue format from a seeded grammar.

The services, their catalogues and every phrase (dialogues.yaml) were written for this package. A seeded planner simulates
a user and a system. Each service has a schema, an invented catalogue, an intent to find and, except for the weather, an intent
to book. System turns have one to three actions. Their texts differ in phrases, in order and in how facts are joined. The usual
phrase is drawn more often than the others, and services differ in which phrase is usual. Each dialogue of the development and
test sets is told five or six times in different words, which gives every input three references or more. No input is in two
splits, about half of the test inputs combine acts and slots in a way that training never does, and some names are offered in
the test set only. A corpus from a grammar is easier and more regular than what people write: scores on it compare methods, and
do not say how well a model would do on the real corpus. `write` creates it.
"""

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthtune.errors import CorpusError
from synthtune.files import atomic_path, read_yaml
from synthtune.tasks import sgd

from toy_corpora.wording import article, capital, usual

SHORTEST, LONGEST = 4, 30
"""Words a system utterance may have."""

@dataclass(frozen=True)
class Slot:
    """A slot of the schema and its phrases.

    `verbs` are predicates of the offered item, `noun` names the slot, `ask` are questions for it, `piece` is
    a value as part of a request or booking ("in Paris"). `{v}` is replaced by the value.
    """

    description: str
    values: tuple[str, ...]
    noun: str
    verbs: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    piece: str = ""
    categorical: bool = False


@dataclass(frozen=True)
class Service:
    """A service: what it finds and books, and which slots serve which purpose.

    `names` are the nouns of its catalogue's names and `name` is the slot that has them; a service without
    them only informs. `booking` is what is booked, with its article. `style` says which phrase is usual:
    services differ in it, so that what a model learns from one does not transfer to all.
    """

    style: int
    description: str
    noun: str
    plural: str
    slots: Mapping[str, Slot]
    find: tuple[str, str]
    search: tuple[str, ...]
    facts: tuple[str, ...]
    name: str = ""
    names: tuple[str, ...] = ()
    book: tuple[str, str] = ("", "")
    booking: str = ""
    needs: tuple[str, ...] = ()


def _values(given: Any, lists: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of a slot: a list, the name of one, a part of one, every combination in a pattern, or several of these."""
    if isinstance(given, str):
        return _values(lists[given], lists)
    if isinstance(given, Mapping) and "pattern" in given:
        return tuple(given["pattern"].format(*parts) for parts in itertools.product(*given["parts"]))
    if isinstance(given, Mapping):
        return _values(given["list"], lists)[given["first"]:given["last"]]
    return tuple(value for part in given for value in ([part] if isinstance(part, str) else _values(part, lists)))


def _services(content: Mapping[str, Any]) -> dict[str, Service]:
    """The services of dialogues.yaml, where a slot may be the name of one that several services share."""

    def slot(given: Any) -> Slot:
        if isinstance(given, str):
            return slot(content["slots"][given])
        return Slot(**{**given, "values": () if "values" not in given else _values(given["values"], content["lists"])})

    return {name: Service(**{**service, "slots": {key: slot(given) for key, given in service["slots"].items()}})
            for name, service in content["services"].items()}


_CONTENT = read_yaml(Path(__file__).with_suffix(".yaml"))
# Many values of each kind: 125 examples show a student few of them, and what it has not seen it must learn to copy.
CITIES = _values("cities", _CONTENT["lists"])
ADJECTIVES, SYSTEM, USER = (_CONTENT[name] for name in ("adjectives", "system", "user"))
SERVICES = _services(_CONTENT)

SIZES = {"train": 2500, "dev": 300, "test": 300}
"""Distinct inputs (service and system actions) of each split, unless told otherwise."""

TELLINGS = {"train": (1, 2), "dev": (5, 6), "test": (5, 6)}
"""How often a dialogue is told in other words, fewest and most: that gives an input its references."""

HELD_OUT = {"dev": 0.15, "test": 0.28}
"""Share of the sets of two or three acts and slots that only this split may use."""

HELD_OUT_NAMES = {"dev": 2, "test": 4}
"""Names of each service's catalogue that only this split offers."""

ANSWER = (1, 2, 2, 3, 3)
"""How many facts an answer tells, each number as often as it is here."""

CATALOGUE = 28
"""Names in the catalogue of a service."""


@dataclass(frozen=True)
class Action:
    """A dialogue act about a slot, as the format has it."""

    act: str
    slot: str = ""
    values: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the action as the format writes it."""
        return {"act": self.act, "slot": self.slot, "values": list(self.values), "canonical_values": list(self.values)}


@dataclass
class Turn:
    """One turn of a plan: what is done, and for the user's turns the state after it."""

    speaker: str
    actions: tuple[Action, ...]
    state: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


def write(folder: str | Path, seed: int = 0, sizes: Mapping[str, int] = SIZES) -> None:
    """Write the corpus as `folder/{train,dev,test}/schema.json` and `dialogues_001.json`, `_002` and so on.

    The same seed and sizes give the same bytes. What `folder` held before is replaced, whole or not at all.

    Parameters
    ----------
    folder : path
    seed : int
    sizes : mapping of str to int
        Distinct inputs of each split, as `synthtune.tasks.sgd.read` counts them.

    Raises
    ------
    CorpusError
        If the grammar cannot give that many inputs.
    """
    planner = _Planner(seed)
    with atomic_path(folder) as temporary:
        # The smaller splits choose first: what only they may use is scarce.
        for split in sorted(sizes, key=lambda split: (split == "train", split)):
            plans = planner.plan_split(split, sizes[split])
            _write_split(temporary / split, plans, split, random.Random(f"tell {seed} {split}"))


class _Planner:
    """Plans dialogues, and keeps what belongs to which split."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # By the set of a turn's actions: the split that has it, and the one order in which it says them.
        self.owner: dict[frozenset[str], tuple[str, str]] = {}
        self.schema = {
            name: sgd.Service(
                service.description,
                {slot: item.description for slot, item in service.slots.items()},
                dict(filter(None, (service.find, service.book))),
            )
            for name, service in SERVICES.items()
        }
        rng = random.Random(f"catalogue {seed}")
        self.catalogue = {name: _make_catalogue(rng, service) for name, service in SERVICES.items()}
        self.closers = {act: rng.sample(list(SERVICES), len(SERVICES)) for act in ("GOODBYE", "REQ_MORE")}

    def pool(self, service: str, split: str, own: bool = False) -> list[dict[str, str]]:
        """Give the catalogue entries a split may offer, or only those that no other split may."""
        items = self.catalogue[service]
        first, last = HELD_OUT_NAMES["dev"], len(items) - HELD_OUT_NAMES["test"]
        mine = {"dev": items[:first], "test": items[last:]}.get(split, [])
        return mine if own else items[first:last] + mine

    def plan_split(self, split: str, size: int) -> list[tuple[str, list[Turn]]]:
        """Plan dialogues until their system turns hold exactly `size` distinct inputs."""
        rng = random.Random(f"plan {self.seed} {split}")
        plans = []
        done: set[str] = set()
        failures = 0
        services: list[str] = []
        while len(done) < size:
            if not services:
                services = rng.sample(list(SERVICES), len(SERVICES))
            draft = _Draft(self, split, services.pop(), rng, done, size)
            if draft.fresh and draft.complete:
                done.update(draft.fresh.values())
                self.owner.update((parts, (split, text)) for parts, text in draft.fresh.items())
                plans.append((draft.service_name, draft.turns))
                failures = 0
                continue
            failures += 1
            if failures > 2000:
                raise CorpusError(f"The dialogue grammar does not hold {size} different inputs for '{split}': ask for fewer.")
        return plans

    def allowed(self, split: str, service: str, actions: tuple[Action, ...], text: str) -> tuple[bool, bool]:
        """Say whether a split may use these actions, and whether their combination is its own."""
        if _parts(text) in self.owner:
            return self.owner[_parts(text)] == (split, text), False
        key = f"{self.seed} {service} " + " ".join(sorted(f"{action.act}/{action.slot}" for action in actions))
        draw = random.Random(key).random()  # the same whenever these acts and slots come together
        if not any(action.values for action in actions):
            # An input without values exists once, so it has to belong to one split.
            if len(actions) == 1 and actions[0].act in self.closers:
                rank = self.closers[actions[0].act].index(service)
                return split == {0: "dev", 1: "test"}.get(rank, "train"), False
            return split == ("dev" if draw < 0.06 else "test" if draw < 0.16 else "train"), False
        if len(actions) == 1 or draw >= sum(HELD_OUT.values()):
            return True, False
        own = split == ("test" if draw < HELD_OUT["test"] else "dev")
        return own, own


class _Conversation:
    """The turns of a dialogue, what both sides know, and what may be said in its split."""

    def __init__(
        self, planner: _Planner, split: str, service_name: str, rng: random.Random, done: set[str], size: int
    ) -> None:
        self.planner, self.split, self.rng, self.done, self.size = planner, split, rng, done, size
        self.service_name, self.service = service_name, SERVICES[service_name]
        self.turns: list[Turn] = []
        self.fresh: dict[frozenset[str], str] = {}
        self.values: dict[str, list[str]] = {}
        self.intent = self.service.find[0]
        self.told: set[str] = set()

    def _inform(self, item: Mapping[str, str], numbers: Sequence[int], first: Action | None = None, last: Action | None = None,
                call: tuple[str, Mapping[str, str]] | None = None) -> bool:
        """Let the user ask for some facts and the system tell them, with one of these numbers, beside what it says anyway."""
        return self._say(lambda: (*filter(None, (first,)), *self._facts_of(item, self.rng.choice(numbers)), *filter(None, (last,))),
                         before=self._ask_facts, call=call)

    def _facts_of(self, item: Mapping[str, str], number: int) -> tuple[Action, ...]:
        """Draw facts that the user has neither given nor been told."""
        left = [slot for slot in self.service.facts if slot not in self.values and slot not in self.told]
        return tuple(
            Action("INFORM", slot, (item[slot],)) for slot in self.rng.sample(left, min(number, len(left)))
        )

    def _ask_facts(self, actions: tuple[Action, ...]) -> None:
        """Let the user ask for what the system is about to tell."""
        asked = [action.slot for action in actions if action.act == "INFORM"]
        if not asked and self.turns[-1].speaker == "SYSTEM":
            self._user(Action("SELECT"))
        self._user(*(Action("REQUEST", slot) for slot in asked))

    def _user(self, *actions: Action) -> None:
        for action in actions:
            if action.act == "INFORM":
                self.values[action.slot] = list(action.values)
        requested = [action.slot for action in actions if action.act == "REQUEST"]
        if self.turns and self.turns[-1].speaker == "USER":
            # Two things to say in one turn; an act is not said twice.
            earlier = self.turns.pop()
            acts, slots = {new.act for new in actions}, {new.slot for new in actions}
            kept = [action for action in earlier.actions
                    if action.act not in acts or (action.act == "INFORM" and action.slot not in slots)]
            actions = (*kept, *actions)
            requested = [*earlier.state["requested_slots"], *requested]
        state = {"active_intent": self.intent, "requested_slots": list(dict.fromkeys(requested)),
                 "slot_values": {slot: list(values) for slot, values in self.values.items()}}
        self.turns.append(Turn("USER", actions, state))

    def _say(
        self,
        draw: Callable[[], tuple[Action, ...]],
        before: Callable[[tuple[Action, ...]], None] | None = None,
        call: tuple[str, Mapping[str, str]] | None = None,
    ) -> bool:
        """Add a system turn that this split may use, from up to forty draws; say whether there was one."""
        rng = self.rng
        want_own = self.split in HELD_OUT and rng.random() < 0.55
        for attempt in range(40):
            actions = draw()
            if not actions:
                continue
            text = sgd.linearise(
                self.service_name,
                self.planner.schema[self.service_name],
                [action.as_json() for action in actions],
            )
            may, own = self.planner.allowed(self.split, self.service_name, actions, text)
            reordered = self.fresh.get(_parts(text), text) != text
            known = text in self.done or _parts(text) in self.fresh
            full = len(self.done) + len(self.fresh) >= self.size
            if not may or reordered or (full and not known) or (want_own and not own and attempt < 20):
                continue
            if before is not None:
                before(actions)
            if not known:
                self.fresh[_parts(text)] = text
            content = {}
            if call is not None:
                method, results = call
                parameters = {slot: values[0] for slot, values in self.values.items()}
                content = {
                    "service_call": {"method": method, "parameters": parameters},
                    "service_results": [dict(results)],
                }
            self.turns.append(Turn("SYSTEM", actions, call=content))
            self.told.update(action.slot for action in actions if action.act in ("OFFER", "INFORM"))
            return True
        return False


class _Draft(_Conversation):
    """One dialogue being planned: its course."""

    def __init__(self, *place: Any) -> None:
        super().__init__(*place)
        self.complete = False
        self.item: dict[str, str] = {}
        if self.service.name:
            self._find_and_book()
        else:
            self._inform_only()
        self._close()

    def _find_and_book(self) -> None:
        rng, service = self.rng, self.service
        item = self._item()
        known = rng.sample(service.search, rng.choice((0, 1, 1, 2)))
        self._user(Action("INFORM_INTENT", "intent", (service.find[0],)), *self._informs(item, known))
        missing = [slot for slot in service.search if slot not in known]
        if rng.random() < 0.6:
            self._inform_later(item, self._request(missing))
        if not self._offer(item):
            return
        if rng.random() < 0.5:
            others = [
                other
                for other in self.planner.pool(self.service_name, self.split)
                if other is not item
                and all(other[slot] == self.values.get(slot, [other[slot]])[0] for slot in service.search)
            ]
            if others:
                item = rng.choice(others)
                self._user(Action("REQUEST_ALTS"))
                if not self._offer(item):
                    return
        for _ in range(rng.choice((0, 1, 1, 2))):
            self._inform(item, ANSWER)
        if rng.random() < 0.25:
            return
        if rng.random() < 0.4:
            self._inform(item, (0, 1, 2), last=Action("OFFER_INTENT", "intent", (service.book[0],)))
        self._book(item)

    def _inform_only(self) -> None:
        rng, service = self.rng, self.service
        self.item = self._item()
        known = rng.sample(service.search, rng.choice((0, 1, 2, 2)))
        self._user(Action("INFORM_INTENT", "intent", (service.find[0],)), *self._informs(self.item, known))
        missing = [slot for slot in service.search if slot not in known]
        self._inform_later(self.item, self._request(missing))
        self._inform(self.item, ANSWER, call=(service.find[0], self.item))
        for _ in range(rng.randint(1, 3)):
            self.item = {**self._item(), "city": self.item["city"]}
            self.told = set()
            self._user(*self._informs(self.item, ["date"]))
            self._inform(self.item, ANSWER, call=(service.find[0], self.item))

    def _book(self, item: dict[str, str]) -> None:
        rng, service = self.rng, self.service
        booking = {slot: rng.choice(service.slots[slot].values) for slot in service.needs}
        booking[service.name] = item[service.name]
        known = rng.sample(service.needs, rng.randint(len(service.needs) - 2, len(service.needs)))
        self.intent = service.book[0]
        self._user(Action("INFORM_INTENT", "intent", (service.book[0],)), *self._informs(booking, known))
        while missing := [slot for slot in service.needs if slot not in known]:
            wanted = self._request(missing) or missing
            self._inform_later(booking, wanted)
            known += wanted

        def confirm() -> tuple[Action, ...]:
            slots = rng.sample([service.name, *service.needs], rng.choice((2, 3, 3)))
            slots.sort(key=lambda slot: slot != service.name)
            return tuple(Action("CONFIRM", slot, (booking[slot],)) for slot in slots)

        if not self._say(confirm):
            return
        if rng.random() < 0.35:
            slot = rng.choice(service.needs)
            booking[slot] = rng.choice([value for value in service.slots[slot].values if value != booking[slot]])
            self._user(Action("NEGATE"), *self._informs(booking, [slot]))
            if not self._say(confirm):
                return
        if rng.random() < 0.2:
            slot = rng.choice([slot for slot in service.needs if slot in ("date", "time")])
            self._user(Action("AFFIRM"))
            others = [value for value in service.slots[slot].values if value != booking[slot]]

            def fail() -> tuple[Action, ...]:
                booking[slot] = rng.choice(others)
                return (Action("NOTIFY_FAILURE"), Action("OFFER", slot, (booking[slot],)))

            if self._say(fail, call=(service.book[0], booking)):
                self._user(Action("AFFIRM"))
                self._inform(item, (0, 1), first=Action("NOTIFY_SUCCESS"), call=(service.book[0], booking))
            return
        self._user(Action("AFFIRM"))
        self._inform(item, (0, 1, 1, 2), first=Action("NOTIFY_SUCCESS"), call=(service.book[0], booking))

    def _close(self) -> None:
        """End with a goodbye; where the bare one belongs to another split, with one that also answers."""
        if not any(turn.speaker == "SYSTEM" for turn in self.turns):
            return
        self._user(Action("THANK_YOU"))
        if self.rng.random() < 0.5 and self._inform(self.item, (0, 1, 2, 2), last=Action("REQ_MORE")):
            self._user(Action("NEGATE"), Action("GOODBYE"))
        else:
            self._user(Action("GOODBYE"))
        self.complete = self._say(lambda: (Action("GOODBYE"),)) or self._inform(self.item, (1, 2, 2), last=Action("GOODBYE"))

    def _item(self) -> dict[str, str]:
        service = self.service
        if not service.name:
            return {slot: self.rng.choice(item.values) for slot, item in service.slots.items()}
        own = self.planner.pool(self.service_name, self.split, own=True)
        if own and self.rng.random() < 0.2:
            return self.rng.choice(own)
        return self.rng.choice(self.planner.pool(self.service_name, "train"))

    def _informs(self, item: Mapping[str, str], slots: list[str]) -> list[Action]:
        return [Action("INFORM", slot, (item[slot],)) for slot in slots]

    def _inform_later(self, item: Mapping[str, str], slots: list[str]) -> None:
        if slots:
            self._user(*self._informs(item, slots))

    def _request(self, missing: list[str]) -> list[str]:
        """Ask for one or two of the missing slots, sometimes with examples; give the slots asked for."""
        rng = self.rng
        missing = [slot for slot in missing if self.service.slots[slot].ask]

        def draw() -> tuple[Action, ...]:
            actions = []
            for slot in rng.sample(missing, rng.randint(1, min(2, len(missing)))):
                values = self.service.slots[slot].values
                examples = rng.sample(values, 2) if rng.random() < 0.2 and not actions else []
                actions.append(Action("REQUEST", slot, tuple(sorted(examples, key=values.index))))
            return tuple(actions)

        if not missing or not self._say(draw):
            return []
        return [action.slot for action in self.turns[-1].actions]

    def _offer(self, item: dict[str, str]) -> bool:
        rng, service = self.rng, self.service

        def draw() -> tuple[Action, ...]:
            count = rng.random() < 0.3
            slots = rng.sample(service.facts, rng.choice((0, 1, 1) if count else (0, 1, 2, 2, 2)))
            counted = (Action("INFORM_COUNT", "count", (str(rng.randint(2, 12)),)),) if count else ()
            return (*(Action("OFFER", slot, (item[slot],)) for slot in (service.name, *slots)), *counted)

        self.item = item
        self.told = set()
        self.values[service.name] = [item[service.name]]
        return self._say(draw, call=(service.find[0], item))


def _parts(text: str) -> frozenset[str]:
    return frozenset(text.split(" && "))


def _make_catalogue(rng: random.Random, service: Service) -> list[dict[str, str]]:
    names = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in service.names]
    items = []
    for name in rng.sample(names, min(CATALOGUE, len(names))):
        item = {slot: rng.choice(service.slots[slot].values) for slot in service.facts}
        if item.get("origin") == item.get("destination") and "origin" in item:
            item["destination"] = rng.choice([city for city in CITIES if city != item["origin"]])
        items.append({service.name: name, **item})
    return items


def _styled(rng: random.Random, service: Service, forms: Sequence[str]) -> str:
    """Draw one of several forms; which of them is the usual one depends on the service."""
    first = service.style % len(forms)
    return usual(rng, (*forms[first:], *forms[:first]))


def _said(rng: random.Random, service: Service, form: str, **values: Any) -> str:
    """Draw a phrase of dialogues.yaml and fill it in."""
    return _styled(rng, service, SYSTEM[form]).format(
        noun=service.noun, a_noun=f"{article(service.noun)} {service.noun}", plural=service.plural, booking=service.booking,
        booked=service.booking.rpartition(" ")[2], book=service.book[-1], **values)


def _verbs(rng: random.Random, service: Service, actions: Sequence[Action]) -> list[str]:
    """What is said of an item, one predicate for each action."""
    return [_styled(rng, service, service.slots[action.slot].verbs).format(v=action.values[0]) for action in actions]


def _pieces(service: Service, actions: Sequence[Action]) -> list[str]:
    return [service.slots[action.slot].piece.format(v=action.values[0]) for action in actions]


def _statements(rng: random.Random, service: Service, actions: list[Action]) -> str:
    """Tell facts about what is offered, in one or two sentences."""
    verbs = _verbs(rng, service, actions)
    nouns = [f"{service.slots[action.slot].noun} is {action.values[0]}" for action in actions]
    several = " and ".join(verbs) if len(verbs) < 3 else f"{verbs[0]}, {verbs[1]} and {verbs[2]}"
    return _said(rng, service, f"INFORM {len(actions)}", verbs=verbs, several=several, nouns=nouns, Nouns=[*map(capital, nouns)])


def _offer_text(rng: random.Random, service: Service, actions: list[Action], count: str) -> str:
    name, *rest = actions
    verbs = " and ".join(_verbs(rng, service, rest))
    form = " ".join(["OFFER", *["count"] * bool(count), *["facts"] * bool(rest)])
    return _said(rng, service, form, name=name.values[0], verbs=verbs, count=count)


def _confirm_text(rng: random.Random, service: Service, actions: list[Action]) -> str:
    pieces = _pieces(service, actions)
    if rng.random() < 0.2:
        pieces.sort(key=lambda _: rng.random())
    return _said(rng, service, "CONFIRM", all=" ".join((service.booking, *pieces)))


def _request_text(rng: random.Random, service: Service, actions: list[Action]) -> str:
    """Ask for one or two slots, with examples of values of the first where there are any."""
    first, *rest = sorted(actions, key=lambda action: not action.values)
    slots = [service.slots[action.slot] for action in (first, *rest)]
    form = " ".join([f"REQUEST {len(slots)}", *["examples"] * bool(first.values)])
    return _said(rng, service, form, asks=[usual(rng, slot.ask) for slot in slots], nouns=[slot.noun for slot in slots],
                 choice=" or ".join(first.values))


def _by_act(actions: Sequence[Action]) -> dict[str, list[Action]]:
    return {action.act: [other for other in actions if other.act == action.act] for action in actions}


def _system_text(rng: random.Random, service: Service, actions: tuple[Action, ...]) -> str:
    """Say the actions of a system turn."""
    acts = _by_act(actions)
    parts = []
    if "NOTIFY_SUCCESS" in acts:
        parts.append(_said(rng, service, "NOTIFY_SUCCESS"))
    if "NOTIFY_FAILURE" in acts:
        offer = acts.pop("OFFER")
        parts.append(_said(rng, service, "NOTIFY_FAILURE"))
        parts.append(_said(rng, service, "OFFER instead", value=offer[0].values[0], piece=_pieces(service, offer)[0]))
    if "OFFER" in acts:
        counts = acts.get("INFORM_COUNT")
        parts.append(_offer_text(rng, service, acts["OFFER"], counts[0].values[0] if counts else ""))
    for act, text in (("INFORM", _statements), ("CONFIRM", _confirm_text), ("REQUEST", _request_text)):
        if act in acts:
            parts.append(text(rng, service, acts[act]))
    parts += [_said(rng, service, act) for act in ("OFFER_INTENT", "REQ_MORE", "GOODBYE") if act in acts]
    return " ".join(parts)


def _user_text(rng: random.Random, service: Service, actions: tuple[Action, ...]) -> str:
    """Say the actions of a user turn."""
    acts = _by_act(actions)
    values = {"pieces": " ".join(_pieces(service, acts.get("INFORM", ())))}
    values["Pieces"] = values["pieces"] and capital(values["pieces"])
    if "NEGATE" in acts and "GOODBYE" in acts:
        acts["NEGATE GOODBYE"] = acts.pop("NEGATE")
    if "INFORM_INTENT" in acts:
        acts.pop("INFORM", None)
        intent = dict(filter(None, (service.find, service.book)))[acts["INFORM_INTENT"][0].values[0]]
        values["wish"] = f"{intent} {values['pieces']}".strip()
    if "REQUEST" in acts:
        *nouns, last = [service.slots[action.slot].noun for action in acts["REQUEST"]]
        values["nouns"] = f"{', '.join(nouns)} and {last}" if nouns else last
    forms = [forms for act, forms in USER.items() if act in acts]
    return " ".join((each[0] if len(each) == 1 else rng.choice(each)).format(**values) for each in forms)


def _spans(service: Service, actions: tuple[Action, ...], utterance: str) -> list[dict[str, Any]]:
    """Say where the values of free-text slots stand in an utterance, in characters."""
    spans = []
    for action in actions:
        if action.slot in service.slots and not service.slots[action.slot].categorical:
            for value in action.values:
                found = re.search(rf"\b{re.escape(value)}\b", utterance)
                if found:
                    spans.append({"slot": action.slot, "start": found.start(), "exclusive_end": found.end()})
    return spans


def _tell(
    rng: random.Random, service_name: str, turns: list[Turn], used: dict[str, set[str]]
) -> list[dict[str, Any]]:
    """Put a plan into words that none of its tellings has used, as far as there are such."""
    service = SERVICES[service_name]
    told = []
    for turn in turns:
        frame: dict[str, Any] = {"service": service_name, "actions": [action.as_json() for action in turn.actions]}
        if turn.speaker == "USER":
            utterance = _user_text(rng, service, turn.actions)
            frame["state"] = turn.state
        else:
            earlier = used.setdefault(f"{service_name} {turn.actions}", set())
            utterance = ""
            for _ in range(30):
                text = _system_text(rng, service, turn.actions)
                utterance = text if SHORTEST <= len(text.split()) <= LONGEST else utterance
                if utterance and utterance not in earlier:
                    break
            earlier.add(utterance)
            frame.update(turn.call)
        frame["slots"] = _spans(service, turn.actions, utterance)
        told.append({"speaker": turn.speaker, "utterance": utterance, "frames": [frame]})
    return told


def _schema() -> list[dict[str, Any]]:
    """Give the services as the format's schema.json has them."""

    def intent(named: tuple[str, str], transactional: bool, required: list[str], optional: Sequence[str], result: list[str]) -> dict:
        return {"name": named[0], "description": named[1], "is_transactional": transactional, "required_slots": required,
                "optional_slots": dict.fromkeys(optional, "dontcare"), "result_slots": result}

    schema = []
    for name, service in SERVICES.items():
        named = [service.name] if service.name else []
        intents = [intent(service.find, False, [service.search[0]], service.search[1:], [*named, *service.facts])]
        if named:
            booked = [*named, *service.needs]
            intents.append(intent(service.book, True, booked, (), booked))
        slots = [{"name": slot, "description": item.description, "is_categorical": item.categorical,
                  "possible_values": list(item.values) if item.categorical else []} for slot, item in service.slots.items()]
        schema.append({"service_name": name, "description": service.description, "slots": slots, "intents": intents})
    return schema


def _write_split(folder: Path, plans: list[tuple[str, list[Turn]]], split: str, rng: random.Random) -> None:
    used: dict[str, set[str]] = {}
    dialogues = []
    for service_name, turns in plans:
        for _ in range(rng.randint(*TELLINGS[split])):
            dialogues.append({"services": [service_name], "turns": _tell(rng, service_name, turns, used)})
    # Different texts of one plan should not follow each other.
    rng.shuffle(dialogues)
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "schema.json", _schema())
    for start in range(0, len(dialogues), 128):
        number = start // 128 + 1
        _dump(folder / f"dialogues_{number:03}.json", [{"dialogue_id": f"{number}_{index:05}", **dialogue}
                                                       for index, dialogue in enumerate(dialogues[start : start + 128])])


def _dump(path: Path, content: list[dict[str, Any]]) -> None:
    # One item a line: quick to write, and an error's line number says which item.
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in content)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")
