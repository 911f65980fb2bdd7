"""The tables of facts behind the package's own fact corpus.

Every row is a true and public fact that does not change with time, or an old one: cities, rivers, chemical elements,
books long out of copyright, buildings, animals, dishes. The tables were compiled by hand for this package from general
knowledge; nothing is copied from a data set. A lower-case "the " before a name is grammar (it appears in sentences and not
in triples); "-" means that the table has no value.
"""

import functools
from pathlib import Path

from synthtune.files import read_yaml

TABLES: dict[str, str] = read_yaml(Path(__file__).with_suffix(".yaml"))
"""A table of each domain: its columns' names, then a line for each entity."""


@functools.cache
def rows(table: str) -> list[dict[str, str]]:
    """Read a table: one dictionary per row, by column name, without the empty cells."""
    header, *lines = ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())
    return [{name: cell for name, cell in zip(header, line, strict=True) if cell != "-"} for line in lines]
