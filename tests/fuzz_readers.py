"""Coverage-guided fuzzing of the readers and the validator, run by hand: it stops at the first input that they mishandle.

    pip install atheris==3.0.0
    PYTHONPATH=lib python tests/fuzz_readers.py -max_total_time=600

atheris is not in environment.yml: it is needed for nothing else, and has builds for few platforms.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["synthtune.custom", "openpyxl", "charset_normalizer"]):
    from synthtune import custom
    from synthtune.custom import gather, readers, task_file
    from synthtune.errors import RowsError

HEADER = b"text,label\n"
STARTS = (b"", b"", b"sep=;\n", b"# a note\n", b'text, "label"\n', b"\x1f\x8b", b"PK\3\4", b"PAR1\x15", b'{"label": [')
"""What files of the kinds that are looked for begin with; bytes alone seldom do."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


def one_input(data: bytes) -> None:
    """Read bytes as a file of some kind, or, where its first byte is high, check them as the rows of a CSV."""
    if not data:
        return
    if data[0] >= 224:  # not often, for checks take far longer than reading
        validate(data[1:])
        return
    path = FOLDER / f"rows{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(STARTS[data[1] % len(STARTS)] + data[2:] if data[1:] else b"")
    try:
        table = readers.open_table(path, path.name)
        columns = gather.Columns((table.columns[0],), "", "generation")
        read = gather.gather(table, "rows", columns, seed=0)
    except RowsError:
        return
    assert read.rows_in == len(read.frame) + sum(map(len, read.dropped.values())), "a row was lost"
    assert read.frame["row"].is_unique, "two rows have one number"


def validate(data: bytes) -> None:
    """Check bytes as labelled rows; cells as unlikely as they come, under a header that names the columns."""
    (FOLDER / "checked.csv").write_bytes(HEADER + data)
    task = FOLDER / "task.yaml"
    task.write_text("rows: checked.csv\ntext: text\nlabel: label\nseparator: ','\nprofile: smoke\n")
    own = custom.read(task)
    for count in own.report.counts:
        assert count.rows_in == count.used + sum(count.dropped.values()), "a row was lost"
    assert own.report.problems or len(own.gold), "nothing was read and nothing said"
    assert set(own.gold["output"]) == set(own.labels), "a label that is none"
    str(own.report).encode()
    assert all(label == task_file.plain(label) for label in own.labels), "a label that is not plain"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
