"""Coverage-guided fuzzing of the readers, run by hand: it stops at the first input that they mishandle.

    pip install atheris==3.0.0
    PYTHONPATH=lib python tests/fuzz_readers.py -max_total_time=600

atheris is not in environment.yml: it is needed for nothing else, and has builds for few platforms.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["synthtune.own_rows", "openpyxl", "charset_normalizer"]):
    from synthtune.errors import RowsError
    from synthtune.own_rows import gather, readers

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


def one_input(data: bytes) -> None:
    """Read bytes as a file of each kind; the first byte chooses which."""
    if not data:
        return
    path = FOLDER / f"rows{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    try:
        table = readers.open_table(path, path.name)
        columns = gather.Columns((table.columns[0],), "", "nlg")
        read = gather.gather(table, "rows", columns, seed=0)
    except RowsError:
        return
    assert read.rows_in == len(read.frame) + sum(map(len, read.dropped.values())), "a row was lost"
    assert read.frame["row"].is_unique, "two rows have one number"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
