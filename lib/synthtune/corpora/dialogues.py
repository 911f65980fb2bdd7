"""The package's own service dialogues, written in the Schema-Guided Dialogue format from a seeded grammar.

The services, their catalogues and every phrase were written for this package. `card` tells how the corpus is
made, `write` makes it, `report` measures it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthtune.corpora.measure import mean, summary, vocabulary
from synthtune.corpora.wording import article, capital, usual
from synthtune.errors import CorpusError
from synthtune.files import atomic_path
from synthtune.tasks import sgd

SHORTEST, LONGEST = 4, 30
"""Words a system utterance may have."""

# Many values of each kind: 125 examples show a student few of them, and what it has not seen it must learn to copy.
CITIES = (
    *("Paris", "Rome", "Vienna", "Berlin", "Lisbon", "Dublin", "Oslo", "Athens", "Madrid", "London"),
    *("Prague", "Warsaw", "Budapest", "Zagreb", "Geneva", "Hamburg", "Milan", "Naples", "Seville", "Porto"),
    *("Bergen", "Helsinki", "Tallinn", "Riga", "Krakow", "Munich", "Lyon", "Bruges", "Utrecht", "Glasgow"),
    *("Cardiff", "Leeds", "Bristol", "Toronto", "Boston", "Chicago", "Denver", "Lima", "Cairo", "Nairobi"),
)
DAYS = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    *(f"{day} {month}" for month in ("March", "April", "May", "June", "July") for day in (1, 3, 6, 9, 12, 17, 20, 24, 28)),
)
HOURS = (
    *("8 am", "8:30 am", "9 am", "9:15 am", "10 am", "10:30 am", "11 am", "11:45 am", "noon"),
    *("12:30 pm", "1 pm", "1:45 pm", "2 pm", "2:30 pm", "3 pm", "3:15 pm", "4 pm", "4:45 pm", "5 pm", "5:30 pm"),
    *("6 pm", "6:15 pm", "7 pm", "7:30 pm", "8 pm", "8:45 pm", "9 pm", "9:30 pm", "10 pm"),
)
STREETS = tuple(
    f"{number} {name}"
    for number in (1, 3, 5, 8, 12, 17, 20, 26, 30, 41)
    for name in (
        "Mill Street",
        "Bridge Road",
        "Church Lane",
        "Park Square",
        "Station Road",
        "Market Street",
        "Garden Lane",
        "King Street",
        "River Walk",
        "School Road",
        "Castle Hill",
        "Orchard Lane",
        "Harbour Street",
        "Queen Street",
        "Forest Road",
        "Chapel Lane",
        "Meadow Walk",
        "Victoria Square",
        "Abbey Road",
        "Tower Street",
        "Valley Road",
        "Windmill Lane",
        "Cathedral Square",
        "Canal Street",
    )
)
PHONES = tuple(f"555 01{number}" for number in range(10, 50))
PRICES = tuple(
    f"{number} dollars"
    for number in (5, 6, 8, 9, 10, 11, 12, 14, 15, 18, 20, 22, 25, 28, 30, 35, 40, 45, 50, 55, 60, 70, 80, 90)
)
PEOPLE = ("2", "3", "4", "5", "6", "7", "8")
ADJECTIVES = (
    "Blue",
    "Green",
    "Red",
    "Golden",
    "Silver",
    "Old",
    "Little",
    "White",
    "Black",
    "Royal",
    "Grand",
    "Quiet",
    "Bright",
    "Hidden",
    "Happy",
    "Merry",
    "Wild",
    "Crystal",
    "Copper",
    "Ivory",
    "Crimson",
    "Amber",
    "Velvet",
    "Northern",
    "Southern",
    "Secret",
    "Sunny",
    "Winding",
    "Ancient",
    "Noble",
)


@dataclass(frozen=True)
class Slot:
    """A slot of the schema and how to speak of it.

    `verbs` are predicates of what is offered, `noun` names the slot, `ask` are questions for it, `piece` is
    how a value stands in a request or booking ("in Paris"). `{v}` stands for the value.
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

    `names` are the nouns of its catalogue's names and `name` is the slot that holds them; a service without
    them only informs. `booking` is what is booked, with its article. `style` says which wording is usual:
    services speak differently, so that what is learnt from one does not carry over to all.
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


def _city(*verbs: str) -> Slot:
    return Slot(
        "city to look in",
        CITIES,
        "the city",
        verbs or ("is in {v}", "is in the city of {v}", "lies in {v}"),
        ("Which city should I look in?", "In what city would you like it?"),
        "in {v}",
    )


STREET = Slot(
    "address",
    STREETS,
    "the address",
    ("is at {v}", "can be found at {v}", "has the address {v}"),
    piece="at {v}",
)
PHONE = Slot(
    "number to call",
    PHONES,
    "the phone number",
    ("has the phone number {v}", "can be called on {v}", "answers the phone on {v}"),
)
DATE = Slot(
    "day of the booking",
    DAYS,
    "the day",
    ask=("For which day should I book?", "What day would you like?"),
    piece="on {v}",
)
DINNER_TIME, DAY_TIME = (
    Slot(
        "hour of the booking",
        hours,
        "the time",
        ask=("At what time should it be?", "What time would you like?"),
        piece="at {v}",
    )
    for hours in (HOURS[8:], HOURS[2:18])
)
GUESTS = Slot(
    "number of people",
    PEOPLE,
    "the number of people",
    ask=("How many people will come?", "For how many people should I book?"),
    piece="for {v} people",
    categorical=True,
)

SERVICES = {
    "Restaurants_1": Service(
        0,
        "places to eat",
        "restaurant",
        "restaurants",
        {
            "restaurant_name": Slot("name of the place", (), "the restaurant", piece="at {v}"),
            "city": _city(),
            "cuisine": Slot(
                "kind of food",
                ("Thai", "Greek", "Indian", "French", "Mexican", "Italian", "Chinese", "Turkish", "Spanish"),
                "the kind of food",
                ("serves {v} food", "offers {v} dishes"),
                ("What kind of food would you like?", "Which food do you want to eat?"),
                "with {v} food",
            ),
            "price_range": Slot(
                "what a meal costs",
                ("cheap", "moderate", "expensive"),
                "the price range",
                ("is in the {v} price range", "has {v} prices"),
                ("What price range would you like?", "How much do you want to pay?"),
                "with {v} prices",
                categorical=True,
            ),
            "street_address": STREET,
            "phone_number": PHONE,
            "date": DATE,
            "time": DINNER_TIME,
            "guests": GUESTS,
        },
        ("FindRestaurant", "find a place to eat"),
        ("city", "cuisine", "price_range"),
        ("city", "cuisine", "price_range", "street_address", "phone_number"),
        "restaurant_name",
        ("Door", "Table", "Spoon", "Garden", "Kitchen", "Lantern", "Olive"),
        ("BookTable", "book a table"),
        "a table",
        ("date", "time", "guests"),
    ),
    "Hotels_1": Service(
        1,
        "rooms for the night",
        "hotel",
        "hotels",
        {
            "hotel_name": Slot("name of the hotel", (), "the hotel", piece="at {v}"),
            "city": _city(),
            "stars": Slot(
                "number of stars",
                ("2", "3", "4", "5"),
                "the number of stars",
                ("has {v} stars", "is rated at {v} stars"),
                ("How many stars should it have?", "What number of stars would you like?"),
                "with {v} stars",
                categorical=True,
            ),
            "price": Slot(
                "cost of a night",
                PRICES,
                "the price",
                ("costs {v} a night", "asks {v} for a night"),
                ("What price would you like to pay?", "How much may a night cost?"),
                "for {v}",
            ),
            "street_address": STREET,
            "phone_number": PHONE,
            "date": DATE,
            "nights": Slot(
                "length of the stay",
                PEOPLE,
                "the number of nights",
                ask=("How many nights will you stay?", "For how many nights is it?"),
                piece="for {v} nights",
                categorical=True,
            ),
            "guests": GUESTS,
        },
        ("FindHotel", "find a hotel"),
        ("city", "stars", "price"),
        ("city", "stars", "price", "street_address", "phone_number"),
        "hotel_name",
        ("House", "Lodge", "Crown", "Harbour", "Anchor", "Garden", "Star"),
        ("BookRoom", "book a room"),
        "a room",
        ("date", "nights", "guests"),
    ),
    "Trains_1": Service(
        2,
        "journeys by rail",
        "train",
        "trains",
        {
            "train_name": Slot("name of the train", (), "the train", piece="on {v}"),
            "origin": Slot(
                "city to leave from",
                CITIES,
                "the city of departure",
                ("leaves from {v}", "starts in {v}"),
                ("Which city do you leave from?", "Where does your journey start?"),
                "from {v}",
            ),
            "destination": Slot(
                "city to go to",
                CITIES,
                "the destination",
                ("goes to {v}", "takes you to {v}"),
                ("Which city do you want to go to?", "Where does your journey end?"),
                "to {v}",
            ),
            "departure": Slot(
                "hour it leaves",
                HOURS,
                "the departure time",
                ("leaves at {v}", "departs at {v}"),
                ("At what time do you want to leave?", "When should the train leave?"),
                "leaving at {v}",
            ),
            "fare": Slot("cost of a seat", PRICES, "the fare", ("costs {v}", "has a fare of {v}")),
            "platform": Slot(
                "where it leaves",
                ("1", "2", "3", "4", "5", "6"),
                "the platform",
                ("leaves from platform {v}", "waits at platform {v}"),
                categorical=True,
            ),
            "date": DATE,
            "seats": Slot(
                "number of seats",
                PEOPLE,
                "the number of seats",
                ask=("How many seats do you need?", "For how many people are the seats?"),
                piece="for {v} people",
                categorical=True,
            ),
        },
        ("FindTrain", "find a train"),
        ("origin", "destination", "departure"),
        ("origin", "destination", "departure", "fare", "platform"),
        "train_name",
        ("Arrow", "Star", "Express", "Runner", "Swallow"),
        ("BuyTicket", "buy a ticket"),
        "a ticket",
        ("date", "seats"),
    ),
    "Movies_1": Service(
        3,
        "films and tickets",
        "film",
        "films",
        {
            "film_title": Slot("title of the film", (), "the film", piece="for {v}"),
            "city": _city("is shown in {v}", "is shown in the city of {v}", "can be seen in {v}"),
            "genre": Slot(
                "kind of film",
                ("comedy", "drama", "mystery", "western", "romance", "musical"),
                "the kind of film",
                ("is a {v}", "is known as a {v}"),
                ("What kind of film would you like?", "Which genre do you want to see?"),
                "of the {v} kind",
            ),
            "cinema": Slot(
                "where it is shown",
                ("the Odeon", "the Palace", "the Plaza", "the Rex", "the Capitol"),
                "the cinema",
                ("is on at {v}", "can be seen at {v}"),
                ("Which cinema would you like?", "At which cinema do you want to see it?"),
                "at {v}",
            ),
            "price": Slot(
                "cost of a ticket", PRICES[:12], "the price", ("costs {v} a ticket", "has tickets for {v}")
            ),
            "show_time": Slot(
                "hour it starts",
                HOURS[12:],
                "the starting time",
                ("starts at {v}", "begins at {v}"),
                ("At what time should it start?", "When would you like to see it?"),
                "starting at {v}",
            ),
            "date": DATE,
            "seats": Slot(
                "number of seats",
                PEOPLE,
                "the number of seats",
                ask=("How many seats do you need?", "For how many people are the seats?"),
                piece="for {v} people",
                categorical=True,
            ),
        },
        ("FindFilm", "find a film"),
        ("city", "genre", "cinema"),
        ("city", "genre", "cinema", "price", "show_time"),
        "film_title",
        ("River", "Night", "Road", "Dream", "Island", "Letter", "Train"),
        ("BuyTicket", "buy a ticket"),
        "a ticket",
        ("date", "seats"),
    ),
    "Museums_1": Service(
        4,
        "museums and guided tours",
        "museum",
        "museums",
        {
            "museum_name": Slot("name of the museum", (), "the museum", piece="of {v}"),
            "city": _city(),
            "subject": Slot(
                "what it shows",
                ("art", "history", "science", "music", "fashion", "toys", "ships"),
                "the subject",
                ("is a museum of {v}", "is all about {v}"),
                ("What subject would you like?", "What do you want to learn about?"),
                "about {v}",
            ),
            "opening_time": Slot(
                "hour it opens",
                HOURS[:7],
                "the opening time",
                ("opens at {v}", "opens its doors at {v}"),
                ("At what time should it open?", "From what hour should it be open?"),
                "open from {v}",
            ),
            "entry_price": Slot(
                "cost of a visit", PRICES[:14], "the entry price", ("costs {v}", "asks {v} for a visit")
            ),
            "street_address": STREET,
            "date": DATE,
            "time": DAY_TIME,
            "guests": GUESTS,
        },
        ("FindMuseum", "find a museum"),
        ("city", "subject", "opening_time"),
        ("city", "subject", "opening_time", "entry_price", "street_address"),
        "museum_name",
        ("Hall", "House", "Gallery", "Tower", "Mill", "Gate"),
        ("BookTour", "book a guided tour"),
        "a tour",
        ("date", "time", "guests"),
    ),
    "Bikes_1": Service(
        5,
        "bicycles for hire",
        "bike shop",
        "bike shops",
        {
            "shop_name": Slot("name of the shop", (), "the shop", piece="from {v}"),
            "city": _city(),
            "bike_type": Slot(
                "kind of bike",
                ("city", "road", "mountain", "electric", "folding"),
                "the kind of bike",
                ("hires out {v} bikes", "has {v} bikes"),
                ("What kind of bike would you like?", "Which bike do you want to ride?"),
                "with {v} bikes",
                categorical=True,
            ),
            "price": Slot(
                "cost of a day",
                PRICES[:16],
                "the price",
                ("charges {v} a day", "asks {v} for a day"),
                ("What price would you like to pay?", "How much may a day cost?"),
                "for {v}",
            ),
            "street_address": STREET,
            "phone_number": PHONE,
            "date": DATE,
            "days": Slot(
                "length of the hire",
                PEOPLE,
                "the number of days",
                ask=("How many days do you need it?", "For how many days should I book?"),
                piece="for {v} days",
                categorical=True,
            ),
        },
        ("FindShop", "find a bike shop"),
        ("city", "bike_type", "price"),
        ("city", "bike_type", "price", "street_address", "phone_number"),
        "shop_name",
        ("Wheel", "Chain", "Bell", "Saddle", "Pedal", "Road"),
        ("HireBike", "hire a bike"),
        "a bike",
        ("date", "days"),
    ),
    "Clinics_1": Service(
        6,
        "visits to a doctor",
        "clinic",
        "clinics",
        {
            "clinic_name": Slot("name of the clinic", (), "the clinic", piece="at {v}"),
            "city": _city(),
            "treatment": Slot(
                "what it treats",
                ("teeth", "eyes", "skin", "backs", "feet", "children"),
                "the speciality",
                ("treats {v}", "is a clinic for {v}"),
                ("What should the clinic treat?", "What kind of treatment do you need?"),
                "for {v}",
            ),
            "waiting_time": Slot(
                "days to wait",
                ("2 days", "3 days", "4 days", "5 days", "6 days"),
                "the waiting time",
                ("has a wait of {v}", "can see you in {v}"),
                ("How long can you wait?", "What waiting time is right for you?"),
                "with a wait of {v}",
            ),
            "street_address": STREET,
            "phone_number": PHONE,
            "date": DATE,
            "time": DAY_TIME,
        },
        ("FindClinic", "find a clinic"),
        ("city", "treatment", "waiting_time"),
        ("city", "treatment", "waiting_time", "street_address", "phone_number"),
        "clinic_name",
        ("Park", "Lake", "Hill", "Bridge", "Cross", "Rose"),
        ("BookVisit", "book a visit"),
        "a visit",
        ("date", "time"),
    ),
    "Weather_1": Service(
        7,
        "weather forecasts",
        "day",
        "days",
        {
            "city": Slot(
                "where it is",
                CITIES,
                "the city",
                ("is the forecast for {v}", "is what {v} can expect"),
                ("Which city do you want the weather for?", "In what city will you be?"),
                "in {v}",
            ),
            "date": Slot(
                "day of the forecast",
                DAYS,
                "the day",
                ("is for {v}",),
                ("For which day is the forecast?", "What day do you want to know about?"),
                "on {v}",
            ),
            "sky": Slot(
                "look of the sky",
                ("sunny", "cloudy", "rainy", "foggy", "stormy", "clear"),
                "the sky",
                ("will be {v}", "looks {v}"),
                categorical=True,
            ),
            "temperature": Slot(
                "warmest it gets",
                tuple(f"{number} degrees" for number in range(2, 36)),
                "the temperature",
                ("will reach {v}", "gets as warm as {v}"),
            ),
            "wind": Slot(
                "force of the wind",
                ("light", "gentle", "fresh", "strong"),
                "the wind",
                ("brings a {v} wind", "comes with a {v} wind"),
                categorical=True,
            ),
            "rain": Slot(
                "chance of rain",
                tuple(f"{number} percent" for number in range(10, 100, 10)),
                "the chance of rain",
                ("has a chance of rain of {v}", "brings rain with a chance of {v}"),
            ),
        },
        ("GetWeather", "get the weather"),
        ("city", "date"),
        ("sky", "temperature", "wind", "rain"),
    ),
}

SIZES = {"train": 2500, "dev": 300, "test": 300}
"""Distinct inputs (service and system actions) of each split, unless told otherwise."""

TELLINGS = {"train": (1, 2), "dev": (5, 6), "test": (5, 6)}
"""How often a dialogue is told in other words, fewest and most: that gives an input its references."""

HELD_OUT = {"dev": 0.15, "test": 0.28}
"""Share of the sets of two or three acts and slots that only this split may use."""

HELD_OUT_NAMES = {"dev": 2, "test": 4}
"""Names of each service's catalogue that only this split offers."""

CATALOGUE = 28
"""Names in the catalogue of a service."""

MORE = (
    "Is there anything else I can do?",
    "Can I help you with anything else?",
    "Do you need anything more?",
    "Would you like something else?",
    "What else can I do for you?",
    "May I help you with something more?",
    "Is there more that you need?",
)
GOODBYES = (
    "Have a good day.",
    "Goodbye and enjoy your day.",
    "Thank you and goodbye.",
    "Have a nice time.",
    "Goodbye, see you soon.",
    "Thanks for calling, goodbye.",
    "All the best and goodbye.",
)


@dataclass(frozen=True)
class Action:
    """A dialogue act about a slot, as the format has it."""

    act: str
    slot: str = ""
    values: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the action as the format writes it."""
        return {
            "act": self.act,
            "slot": self.slot,
            "values": list(self.values),
            "canonical_values": list(self.values),
        }


@dataclass
class Turn:
    """One turn of a plan: what is done, and for the user's turns the state after it."""

    speaker: str
    actions: tuple[Action, ...]
    state: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


def card() -> str:
    """Say what this corpus is and how it is made, for a reader who wonders what the numbers are about."""
    services = ", ".join(name.split("_")[0].lower() for name in SERVICES)
    text = f"""
        Service dialogues, a corpus in the Schema-Guided Dialogue format written for this package. A seeded
        planner leads a user and a system through {len(SERVICES)} services ({services}), each with a schema,
        an invented catalogue, and an intent to find and, but for the weather, one to book; the system's acts
        are inform, request, confirm, offer, inform count, offer intent, notify success, notify failure, req
        more and goodbye. Every phrase was written for this package and no text is taken from the
        Schema-Guided Dialogue corpus. System turns have one to three actions; their wordings differ in
        phrases, in order and in how facts are joined. The usual wording is drawn more often than the others,
        and services differ in what is usual. Each dialogue of the development and test sets is told five or
        six times in other words, which gives every input three references or more. No input is in two splits;
        about half of the test inputs combine acts and slots in a way that training never does, and some names
        are offered in the test set only. Being made from a grammar it is easier and more regular than what
        people write: scores on it say how methods compare, not how well a model would do on the real corpus.
    """
    return " ".join(text.split())


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


def report(folder: str | Path) -> dict[str, Any]:
    """Measure a corpus that `write` made, from its files.

    Returns
    -------
    dict
        By split: `measure.summary`. For the test set: the share of inputs whose service, acts and slots are
        together not in training, those combinations, and the names that training never offers. And the number
        of services and of distinct words.
    """
    found: dict[str, Any] = {"splits": {}}
    combinations: dict[str, list[str]] = {}
    names: dict[str, set[str]] = {}
    words: set[str] = set()
    for split in sgd.SPLITS:
        examples = sgd.read(folder, split)
        if not examples:
            raise CorpusError(f"{folder} has no dialogues for '{split}': write the corpus again.")
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
    seen = set(combinations["train"])
    found["words"] = len(words)
    found["held-out share"] = mean(name not in seen for name in combinations["test"])
    found["held-out combinations"] = sorted(set(combinations["test"]) - seen)
    found["names only in test"] = sorted(names["test"] - names["train"])
    return found


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
        self.draws: dict[str, float] = {}
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
                raise CorpusError(
                    f"The dialogue grammar does not hold {size} different inputs for '{split}': "
                    "ask for fewer."
                )
        return plans

    def allowed(self, split: str, service: str, actions: tuple[Action, ...], text: str) -> tuple[bool, bool]:
        """Say whether a split may use these actions, and whether their combination is its own."""
        if _parts(text) in self.owner:
            return self.owner[_parts(text)] == (split, text), False
        key = f"{self.seed} {service} " + " ".join(
            sorted(f"{action.act}/{action.slot}" for action in actions)
        )
        if key not in self.draws:
            self.draws[key] = random.Random(key).random()
        draw = self.draws[key]
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


class _Draft:
    """One dialogue being planned."""

    def __init__(
        self, planner: _Planner, split: str, service_name: str, rng: random.Random, done: set[str], size: int
    ) -> None:
        self.planner, self.split, self.rng, self.done, self.size = planner, split, rng, done, size
        self.service_name, self.service = service_name, SERVICES[service_name]
        self.turns: list[Turn] = []
        self.fresh: dict[frozenset[str], str] = {}
        self.complete = False
        self.values: dict[str, list[str]] = {}
        self.intent = self.service.find[0]
        self.item: dict[str, str] = {}
        self.told: set[str] = set()
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
            self._answer(item)
        if rng.random() < 0.25:
            return
        if rng.random() < 0.4:
            self._say(
                lambda: (
                    *self._facts_of(item, rng.randint(0, 2)),
                    Action("OFFER_INTENT", "intent", (service.book[0],)),
                ),
                before=self._ask_facts,
            )
        self._book(item)

    def _inform_only(self) -> None:
        rng, service = self.rng, self.service
        self.item = self._item()
        known = rng.sample(service.search, rng.choice((0, 1, 2, 2)))
        self._user(Action("INFORM_INTENT", "intent", (service.find[0],)), *self._informs(self.item, known))
        missing = [slot for slot in service.search if slot not in known]
        self._inform_later(self.item, self._request(missing))
        self._answer(self.item, call=True)
        for _ in range(rng.randint(1, 3)):
            self.item = {**self._item(), "city": self.item["city"]}
            self.told = set()
            self._user(*self._informs(self.item, ["date"]))
            self._answer(self.item, call=True)

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
            booking[slot] = rng.choice(
                [value for value in service.slots[slot].values if value != booking[slot]]
            )
            self._user(Action("NEGATE"), *self._informs(booking, [slot]))
            if not self._say(confirm):
                return
        if rng.random() < 0.2:
            slot = rng.choice([slot for slot in service.needs if slot in ("date", "time")])
            self._user(Action("AFFIRM"))

            refused = booking[slot]

            def fail() -> tuple[Action, ...]:
                booking[slot] = rng.choice(
                    [value for value in service.slots[slot].values if value != refused]
                )
                return (Action("NOTIFY_FAILURE"), Action("OFFER", slot, (booking[slot],)))

            if self._say(fail, call=(service.book[0], booking)):
                self._user(Action("AFFIRM"))
                self._say(
                    lambda: (Action("NOTIFY_SUCCESS"), *self._facts_of(item, rng.randint(0, 1))),
                    before=self._ask_facts,
                    call=(service.book[0], booking),
                )
            return
        self._user(Action("AFFIRM"))
        self._say(
            lambda: (Action("NOTIFY_SUCCESS"), *self._facts_of(item, rng.choice((0, 1, 1, 2)))),
            before=self._ask_facts,
            call=(service.book[0], booking),
        )

    def _close(self) -> None:
        """End with a goodbye; where the bare one belongs to another split, with one that also answers."""
        if not any(turn.speaker == "SYSTEM" for turn in self.turns):
            return
        rng = self.rng
        item = self.item
        self._user(Action("THANK_YOU"))
        if rng.random() < 0.5 and self._say(
            lambda: (*self._facts_of(item, rng.choice((0, 1, 2, 2))), Action("REQ_MORE")),
            before=self._ask_facts,
        ):
            self._user(Action("NEGATE"), Action("GOODBYE"))
        else:
            self._user(Action("GOODBYE"))
        self.complete = self._say(lambda: (Action("GOODBYE"),)) or self._say(
            lambda: (*self._facts_of(item, rng.choice((1, 2, 2))), Action("GOODBYE")), before=self._ask_facts
        )

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
            return (
                Action("OFFER", service.name, (item[service.name],)),
                *(Action("OFFER", slot, (item[slot],)) for slot in slots),
                *counted,
            )

        self.item = item
        self.told = set()
        self.values[service.name] = [item[service.name]]
        return self._say(draw, call=(service.find[0], item))

    def _answer(self, item: Mapping[str, str], call: bool = False) -> None:
        self._say(
            lambda: self._facts_of(item, self.rng.choice((1, 2, 2, 3, 3))),
            before=self._ask_facts,
            call=(self.service.find[0], item) if call else None,
        )

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
            kept = [
                action
                for action in earlier.actions
                if action.act not in {new.act for new in actions}
                or action.act == "INFORM"
                and action.slot not in {new.slot for new in actions}
            ]
            actions = (*kept, *actions)
            requested = [*earlier.state["requested_slots"], *requested]
        self.turns.append(
            Turn(
                "USER",
                actions,
                {
                    "active_intent": self.intent,
                    "requested_slots": list(dict.fromkeys(requested)),
                    "slot_values": {slot: list(values) for slot, values in self.values.items()},
                },
            )
        )

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


def _statements(rng: random.Random, service: Service, actions: list[Action]) -> str:
    """Tell facts about what is offered, in one or two sentences."""
    slots = [service.slots[action.slot] for action in actions]
    verbs = [
        _styled(rng, service, slot.verbs).format(v=action.values[0])
        for slot, action in zip(slots, actions, strict=True)
    ]
    nouns = [f"{slot.noun} is {action.values[0]}" for slot, action in zip(slots, actions, strict=True)]
    several = " and ".join(verbs) if len(verbs) < 3 else f"{verbs[0]}, {verbs[1]} and {verbs[2]}"
    forms = [f"It {several}.", f"The {service.noun} {several}.", f"As I see here, it {several}."]
    if len(actions) == 1:
        forms.append(f"{capital(nouns[0])}.")
    elif len(actions) == 2:
        forms += [f"It {verbs[0]}. {capital(nouns[1])}.", f"{capital(nouns[0])} and {nouns[1]}."]
    else:
        forms += [
            f"It {verbs[0]} and {verbs[1]}. {capital(nouns[2])}.",
            f"{capital(nouns[0])}. It {verbs[1]} and {verbs[2]}.",
        ]
    return _styled(rng, service, forms)


def _offer_text(rng: random.Random, service: Service, actions: list[Action], count: str) -> str:
    name, *rest = actions
    title = name.values[0]
    verbs = " and ".join(
        _styled(rng, service, service.slots[action.slot].verbs).format(v=action.values[0]) for action in rest
    )
    if count and not rest:
        return _styled(
            rng,
            service,
            (
                f"I found {count} {service.plural}. How about {title}?",
                f"There are {count} {service.plural}, for example {title}.",
                f"I found {count} {service.plural} and one of them is {title}.",
                f"There are {count} {service.plural}. Would you like {title}?",
            ),
        )
    if count:
        return _styled(
            rng,
            service,
            (
                f"I found {count} {service.plural}. {title} {verbs}.",
                f"There are {count} {service.plural}. How about {title}, which {verbs}?",
                f"I found {count} {service.plural}. One is {title}, which {verbs}.",
                f"There are {count} {service.plural}. {title} {verbs}.",
            ),
        )
    if not rest:
        return _styled(
            rng,
            service,
            (
                f"How about the {service.noun} {title}?",
                f"There is {article(service.noun)} {service.noun} called {title}.",
                f"I can offer you the {service.noun} {title}.",
                f"Would you like the {service.noun} {title}?",
                f"I found {title}. Is that good for you?",
            ),
        )
    return _styled(
        rng,
        service,
        (
            f"How about {title}? It {verbs}.",
            f"There is {article(service.noun)} {service.noun} called {title} that {verbs}.",
            f"I found {title}, which {verbs}.",
            f"{title} {verbs}. Does that suit you?",
            f"Would you like {title}, which {verbs}?",
            f"One good choice is {title}. It {verbs}.",
        ),
    )


def _confirm_text(rng: random.Random, service: Service, actions: list[Action]) -> str:
    pieces = [service.slots[action.slot].piece.format(v=action.values[0]) for action in actions]
    if rng.random() < 0.2:
        pieces.sort(key=lambda _: rng.random())
    booking = " ".join((service.booking, *pieces))
    return _styled(
        rng,
        service,
        (
            f"Please confirm: {booking}.",
            f"Shall I book {booking}?",
            f"You want {booking}, is that right?",
            f"So that is {booking}. Is it correct?",
            f"Let me check: you would like {booking}.",
            f"I am going to book {booking}, all right?",
        ),
    )


def _request_text(rng: random.Random, service: Service, actions: list[Action]) -> str:
    examples, *rest = sorted(
        (service.slots[action.slot] for action in actions),
        key=lambda slot: not any(action.values for action in actions if service.slots[action.slot] is slot),
    )
    values = next((action.values for action in actions if action.values), ())
    ask = usual(rng, examples.ask)
    if not rest and not values:
        return _styled(
            rng,
            service,
            (
                ask,
                f"Please tell me {examples.noun}.",
                f"I need to know {examples.noun}.",
                f"May I ask for {examples.noun}?",
            ),
        )
    if not rest:
        choice = " or ".join(values)
        return _styled(
            rng,
            service,
            (
                f"{ask} For example, {choice}?",
                f"Please tell me {examples.noun}, for example {choice}.",
                f"{ask} Maybe {choice}?",
                f"I need to know {examples.noun}. Is it {choice}?",
            ),
        )
    other = usual(rng, rest[0].ask)
    if not values:
        return _styled(
            rng,
            service,
            (
                f"Please tell me {examples.noun} and {rest[0].noun}.",
                f"{ask} {other}",
                f"I need to know {examples.noun} and {rest[0].noun}.",
                f"What are {examples.noun} and {rest[0].noun}?",
            ),
        )
    choice = " or ".join(values)
    return _styled(
        rng,
        service,
        (
            f"{other} {ask} For example, {choice}?",
            f"Please tell me {rest[0].noun} and {examples.noun}, for example {choice}.",
            f"I need to know {rest[0].noun} and {examples.noun}, for example {choice}.",
            f"{other} And {examples.noun}, maybe {choice}?",
        ),
    )


def _system_text(rng: random.Random, service: Service, actions: tuple[Action, ...]) -> str:
    """Say the actions of a system turn."""
    acts = {action.act: [other for other in actions if other.act == action.act] for action in actions}
    parts = []
    if "NOTIFY_SUCCESS" in acts:
        booked = service.booking.split()[-1]
        parts.append(
            _styled(
                rng,
                service,
                (
                    f"Your {booked} is booked.",
                    f"I have booked {service.booking} for you.",
                    f"All done, your {booked} is booked.",
                    "Your booking was made without trouble.",
                ),
            )
        )
    if "NOTIFY_FAILURE" in acts:
        offer = acts.pop("OFFER")[0]
        value = offer.values[0]
        piece = service.slots[offer.slot].piece.format(v=value)
        parts.append(
            _styled(
                rng,
                service,
                (
                    "Sorry, I could not book that.",
                    "I am sorry, the booking failed.",
                    "Unfortunately that did not work.",
                ),
            )
        )
        parts.append(
            _styled(
                rng,
                service,
                (
                    f"How about {value} instead?",
                    f"Could it be {piece}?",
                    f"Would {value} be possible?",
                    f"I can try again for {value}.",
                ),
            )
        )
    if "OFFER" in acts:
        counts = acts.get("INFORM_COUNT")
        parts.append(_offer_text(rng, service, acts["OFFER"], counts[0].values[0] if counts else ""))
    if "INFORM" in acts:
        parts.append(_statements(rng, service, acts["INFORM"]))
    if "CONFIRM" in acts:
        parts.append(_confirm_text(rng, service, acts["CONFIRM"]))
    if "REQUEST" in acts:
        parts.append(_request_text(rng, service, acts["REQUEST"]))
    if "OFFER_INTENT" in acts:
        parts.append(
            _styled(
                rng,
                service,
                (
                    f"Shall I {service.book[1]}?",
                    f"Would you like me to {service.book[1]}?",
                    f"Do you want to {service.book[1]}?",
                    f"I can {service.book[1]} if you like.",
                ),
            )
        )
    if "REQ_MORE" in acts:
        parts.append(_styled(rng, service, MORE))
    if "GOODBYE" in acts:
        parts.append(_styled(rng, service, GOODBYES))
    return " ".join(parts)


def _user_text(rng: random.Random, service: Service, actions: tuple[Action, ...]) -> str:
    """Say the actions of a user turn."""
    acts = {action.act: [other for other in actions if other.act == action.act] for action in actions}
    pieces = " ".join(
        service.slots[action.slot].piece.format(v=action.values[0]) for action in acts.get("INFORM", ())
    )
    parts = []
    if "AFFIRM" in acts:
        parts.append(rng.choice(("Yes, please.", "Yes, that is right.", "That is fine with me.")))
    if "SELECT" in acts:
        parts.append(rng.choice(("That sounds good.", "I like that one.")))
    if "NEGATE" in acts:
        parts.append(
            rng.choice(("No, thank you.", "No, that is all."))
            if "GOODBYE" in acts
            else "No, that is not right."
        )
    if "THANK_YOU" in acts:
        parts.append(rng.choice(("Thank you.", "Thanks a lot.", "Many thanks.")))
    if "INFORM_INTENT" in acts:
        intent = dict(filter(None, (service.find, service.book)))[acts["INFORM_INTENT"][0].values[0]]
        wish = f"{intent} {pieces}".strip()
        parts.append(
            rng.choice((f"I want to {wish}.", f"I would like to {wish}.", f"Please help me {wish}."))
        )
    elif pieces:
        parts.append(
            rng.choice(
                (f"I would like it {pieces}.", f"Make it {pieces}, please.", f"{capital(pieces)}, please.")
            )
        )
    if "REQUEST_ALTS" in acts:
        parts.append(
            rng.choice(("Is there another one?", "What else is there?", "Do you have a different one?"))
        )
    if "REQUEST" in acts:
        nouns = [service.slots[action.slot].noun for action in acts["REQUEST"]]
        asked = nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} and {nouns[-1]}"
        parts.append(
            rng.choice((f"Can you tell me {asked}?", f"I would like to know {asked}.", f"And {asked}?"))
        )
    if "GOODBYE" in acts:
        parts.append(rng.choice(("Goodbye.", "Bye for now.", "See you next time.")))
    return " ".join(parts)


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
        frame: dict[str, Any] = {
            "service": service_name,
            "actions": [action.as_json() for action in turn.actions],
        }
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
    schema = []
    for name, service in SERVICES.items():
        intents = [
            {
                "name": service.find[0],
                "description": service.find[1],
                "is_transactional": False,
                "required_slots": [service.search[0]],
                "optional_slots": dict.fromkeys(service.search[1:], "dontcare"),
                "result_slots": [*filter(None, (service.name,)), *service.facts],
            }
        ]
        if service.name:
            intents.append(
                {
                    "name": service.book[0],
                    "description": service.book[1],
                    "is_transactional": True,
                    "required_slots": [service.name, *service.needs],
                    "optional_slots": {},
                    "result_slots": [service.name, *service.needs],
                }
            )
        schema.append(
            {
                "service_name": name,
                "description": service.description,
                "slots": [
                    {
                        "name": slot,
                        "description": item.description,
                        "is_categorical": item.categorical,
                        "possible_values": list(item.values) if item.categorical else [],
                    }
                    for slot, item in service.slots.items()
                ],
                "intents": intents,
            }
        )
    return schema


def _write_split(folder: Path, plans: list[tuple[str, list[Turn]]], split: str, rng: random.Random) -> None:
    used: dict[str, set[str]] = {}
    dialogues = []
    for service_name, turns in plans:
        for _ in range(rng.randint(*TELLINGS[split])):
            dialogues.append({"services": [service_name], "turns": _tell(rng, service_name, turns, used)})
    # The tellings of one plan should not follow each other.
    rng.shuffle(dialogues)
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "schema.json", _schema())
    for start in range(0, len(dialogues), 128):
        number = start // 128 + 1
        _dump(
            folder / f"dialogues_{number:03}.json",
            [
                {"dialogue_id": f"{number}_{index:05}", **dialogue}
                for index, dialogue in enumerate(dialogues[start : start + 128])
            ],
        )


def _dump(path: Path, content: list[dict[str, Any]]) -> None:
    # One item a line: quick to write, and an error's line number says which item.
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in content)
    path.write_text(f"[\n{lines}\n]\n", "utf-8")
