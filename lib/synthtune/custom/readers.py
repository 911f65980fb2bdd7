"""Rows one by one from the files people have: every row comes out, or a reason why it cannot be read.

Nothing is executed and nothing is fetched: formats that can hold code (pickles, macros, loading scripts) are
refused or read as data. Files are streamed, so that one of ten million rows needs little memory.
"""

import codecs
import contextlib
import csv
import datetime
import decimal
import itertools
import json
import math
import re
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from synthtune.custom.report import Guess, Problem, listed, numbered, problem
from synthtune.errors import RowsError, SynthtuneError

# Characters of the longest line, and of the longest cell with line ends in it, that are looked at as one.
LINE_LIMIT = 16 * 2**20

# Quotes that are not closed, in one file, before the file as a whole is taken to be broken.
BROKEN_LIMIT = 100

# Rows that guesses go by.
LOOKED_AT = 1000

# The separator of a file that has none: a character that is in no text.
ONE_COLUMN = "\x1f"

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}

FORMATS = ("CSV (.csv), TSV (.tsv, .tab), JSON lines (.jsonl, .ndjson, .json), Parquet (.parquet), Excel (.xlsx, .xlsm) or a folder "
           "written by datasets' save_to_disk")
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".dill", ".npy", ".npz", ".ckpt"}

_UNPACK, _SAVE = "unpack it, and name the file that is in it", "save its table as CSV or .xlsx"
# First bytes of files that are not read whatever their name is, what they are, and what to do.
_CONTENTS = (
    (rb"\x1f\x8b", "compressed with gzip", _UNPACK),
    (rb"BZh\d1AY&SY", "compressed with bzip2", _UNPACK),
    (rb"\xfd7zXZ\0|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18", "compressed with xz, Zstandard or LZ4", _UNPACK),
    (rb"7z\xbc\xaf\x27|Rar!\x1a|.{257}ustar", "an archive (7z, RAR or tar)", _UNPACK),
    (rb"\xd0\xcf\x11\xe0", "an office file in the old format or with a password", "save it as .xlsx without a password"),
    (rb"ARROW1\0|FEA1\0|\xff{4}", "an Arrow or Feather file", "save it as Parquet, or give the datasets folder it is in"),
    (rb"%PDF-|\{\\rtf|(\xef\xbb\xbf)?\s*<(?i:!doctype|html|\?xml|table)", "a PDF, RTF, HTML or XML document", _SAVE),
    (rb"version https://git-lfs", "what Git LFS leaves in the place of a file", "get the file with 'git lfs pull'"),
)

_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
# Different control characters that the start of a text which is not UTF-8 may have: binary content has nearly all of them.
_KINDS_OF_CONTROL = 4


class EmptyFile(RowsError):
    """A file without rows, and without the names of columns."""


@dataclass(frozen=True)
class Record:
    """One row of a file.

    Attributes
    ----------
    row : int
        As the user counts it: the line it starts on, the row of a sheet, or the number of a row from 1.
    cells : list or None
        Values in the order of the table's columns; None if the row cannot be read.
    reason : str
        Why it cannot be read.
    decoded : bool
        Whether it has bytes that are not UTF-8, in a file that mostly is, which were read as Windows-1252.
    """

    row: int
    cells: list[Any] | None
    reason: str = ""
    decoded: bool = False


@dataclass(frozen=True)
class Table:
    """A file that can be read as often as needed.

    Attributes
    ----------
    file : str
        The name the user gave it.
    kind : str
        "delimited", "jsonl", "arrow" or "excel".
    unit : str
        What rows are counted in: "line" or "row".
    columns : list of str
    header : int
        Where the column names are: a line or row; 0 if they have no line of their own.
    read : callable
        Gives an iterator over all records, from the start. Raises RowsError where the file cannot be read on.
    guesses : list of Guess
    separator : str
        Of a delimited file.
    warnings : list of Problem
        What is odd about the file as a whole.
    encoding : str
        Of a text file.
    """

    file: str
    kind: str
    unit: str
    columns: list[str]
    header: int
    read: Callable[[], Iterator[Record]]
    guesses: list[Guess] = field(default_factory=list)
    separator: str = ","
    warnings: list[Problem] = field(default_factory=list)
    encoding: str = "utf-8"

    def problem(self, check: str, column: str = "", rows: Iterable[int] = (), **values: Any) -> Problem:
        """A problem of some rows of the file; see `report.problem`."""
        return problem(check, self.file, column, rows, self.unit, **values)


def open_table(path: Path, file: str, *, split: str = "train", separator: str | None = None, encoding: str | None = None,
               sheet: str | None = None) -> Table:
    """Recognise a file and find its columns.

    Parameters
    ----------
    path : Path
    file : str
        How messages call the file.
    split : str
        Which split of a datasets folder that has several, unless the path names one itself.
    separator, encoding, sheet : str, optional
        What the user says of it; guessed from the content where missing.

    Raises
    ------
    RowsError
        The file is missing, is of a kind that is not read, or is damaged; the message says what to do.
    """
    try:
        kind = _kind(path, file)
        if kind == "folder":
            return _datasets_folder(path, file, split)
        if kind == "excel":
            return _excel(path, file, sheet)
        if kind == "parquet":
            return _parquet(path, file)
        return _json_lines(path, file, encoding) if kind == "jsonl" else _delimited(path, file, separator, encoding)
    except OSError as error:
        raise RowsError(f"{file}: cannot be read ({error.strerror or error}).") from error


def _kind(path: Path, file: str) -> str:
    """What a file is, by its content where that tells, else by the ending of its name."""
    if not path.exists():
        raise RowsError(f"{file}: there is no such file in {path.parent}; correct the path.")
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise RowsError(f"{file}: neither a file nor a folder (a device or a pipe); copy its content to a file.")
    suffix = path.suffix.lower()
    with open(path, "rb") as handle:
        head = handle.read(4096)
    if suffix in PICKLES or re.match(rb"\x80[\x02-\x05]|\x93NUMPY", head):
        raise RowsError(f"{file}: a pickle, or a file that may hold one. Reading one can run any code in it, so none "
                        f"is read here. Save the table as {FORMATS}.")
    if not head:
        raise EmptyFile(f"{file}: empty; it needs a line of column names and rows.")
    for first, what, advice in _CONTENTS:
        if re.match(first, head, re.DOTALL):
            raise RowsError(f"{file}: {what}, whatever its name says; {advice}.")
    if suffix in (".xlsx", ".xlsm"):
        return "excel"
    if head.startswith(b"PK\3\4"):
        return _zipped(path, file)
    if suffix == ".parquet" or re.match(rb"PAR1[\0-\x1f]", head):
        return "parquet"
    if suffix in (".jsonl", ".ndjson", ".json") or re.match(rb'(\xef\xbb\xbf)?\s*\[?\s*\{\s*"', head):
        return "jsonl"
    if suffix in (".csv", ".tsv", ".tab"):
        return "delimited"
    raise RowsError(f"{file}: files that end in '{suffix}' are not read; a text with a line of column names can be named .csv or "
                    f".tsv; else save it as {FORMATS}.")


def _zipped(path: Path, file: str) -> str:
    """"excel" for a zip archive that is a workbook; others are refused."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = set(packed.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RowsError(f"{file}: a zip archive that is damaged; save the table anew.") from error
    if "xl/workbook.xml" in names:
        return "excel"
    if names & {"[Content_Types].xml", "mimetype"}:
        raise RowsError(f"{file}: a document of an office program, and no .xlsx workbook; save its table as .xlsx or CSV.")
    raise RowsError(f"{file}: a zip archive; {_UNPACK}.")


# -- text: encoding and lines ----------------------------------------------------------------------

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

# Encodings that are told apart where most letters are not ASCII; they share few letters.
_OTHER_SCRIPTS = ["cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "cp949"]


def _encoding(path: Path, file: str, given: str | None) -> tuple[str, list[Guess], list[Problem]]:
    """The encoding of a text file, how it was guessed, and what is odd about it."""
    if given:
        return given, [], []
    with open(path, "rb") as handle:
        name, why, warnings = _by_start(handle.read(4096), file) or _by_lines(handle, file)
    return name, [Guess(file, "encoding", name, why)], warnings


def _by_start(head: bytes, file: str) -> tuple[str, str, list[Problem]] | None:
    """The encoding that the first bytes of a file tell, if they do; binary content is refused."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, "its byte-order mark", [problem("byte-order mark", file, rows=[1], unit="line")]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 8 and head[first::2].count(0) > 0.4 * len(head):
            return name, "every second byte is NUL", []
    if len(_CONTROL & set(head)) > _KINDS_OF_CONTROL:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # perhaps cut within a character
        except UnicodeDecodeError as error:
            raise RowsError(f"{file}: not text but binary, or text in an encoding that has to be named with 'encoding:'; save it "
                            f"as {FORMATS}.") from error
    return None


def _by_lines(handle: BinaryIO, file: str) -> tuple[str, str, list[Problem]]:
    """UTF-8 if most lines with other than ASCII letters fit; else what the letters of the others tell."""
    handle.seek(0)
    fits, numbers, sample = 0, [], b""
    for number, line in enumerate(iter(lambda: handle.readline(LINE_LIMIT), b""), 1):
        try:
            line.decode("utf-8")
            fits += not line.isascii()
        except UnicodeDecodeError:
            numbers.append(number)
            sample += line[: 2**14 - len(sample)]
    if not numbers:
        return "utf-8", "every line fits", []
    if fits > len(numbers):  # those lines are read, and named, one by one
        return "utf-8", f"{fits:,} of {fits + len(numbers):,} lines with other than ASCII letters fit", []
    name, why = "cp1252", "not UTF-8, and most letters are ASCII: Western European"
    if sum(byte >= 128 for byte in sample) > sum(byte < 128 and chr(byte).isalpha() for byte in sample):
        import charset_normalizer  # only for such files

        if best := charset_normalizer.from_bytes(sample, cp_isolation=_OTHER_SCRIPTS).best():
            name, why = best.encoding, "not UTF-8; the letters fit this one best"
    return name, why, [problem("wrong encoding", file, "", numbers, "line", encoding=name)]


# Number of a line, its text, and whether bytes that are not UTF-8 were read as Windows-1252.
Line = tuple[int, str, bool]

_NOT_UTF8 = re.compile("[\udc80-\udcff]+")


def _as_windows_1252(found: re.Match[str]) -> str:
    return found[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _lines(path: Path, file: str, encoding: str) -> Iterator[Line]:
    """Give the lines of a file. Bytes that fit no encoding become U+FFFD, which the checks report."""
    mostly_utf8 = encoding == "utf-8"
    try:
        with open(path, encoding=encoding, errors="surrogateescape" if mostly_utf8 else "replace", newline="") as handle:
            for number, line in enumerate(iter(lambda: handle.readline(LINE_LIMIT), ""), 1):
                if len(line) == LINE_LIMIT and not line.endswith(("\n", "\r")):
                    raise RowsError(f"{file}, line {number}: more than {LINE_LIMIT:,} characters without a line end; this is not "
                                    "a table of texts.")
                decoded = mostly_utf8 and _NOT_UTF8.search(line) is not None
                yield number, _NOT_UTF8.sub(_as_windows_1252, line) if decoded else line, decoded
    except (LookupError, ValueError) as error:  # no such encoding, or bytes that do not fit it
        raise RowsError(f"{file}: not {encoding} ({error}); correct 'encoding', or leave it out to have it guessed.") from error


# -- delimited text --------------------------------------------------------------------------------

# What quotes may be, the most frequent first, and how a parser is told.
QUOTES = {
    "around cells": {"quoting": csv.QUOTE_MINIMAL},
    "around cells, with spaces beside them": {"quoting": csv.QUOTE_MINIMAL, "skipinitialspace": True},
    "part of the text": {"quoting": csv.QUOTE_NONE},
}

_SPACED_QUOTE = re.compile(' +"')


def _delimited(path: Path, file: str, separator: str | None, given: str | None) -> Table:
    """A CSV or TSV file.

    pandas would not do: it numbers no lines, loses the rest of a file with a quote that is not closed, and reads one encoding.
    """
    encoding, guesses, warnings = _encoding(path, file, given)
    above, comments, declared = _above(_lines(path, file, encoding))
    if comments:
        guesses.append(Guess(file, "comments", numbered("line", comments), "above the column names, and begin with #"))

    def lines() -> Iterator[Line]:
        return itertools.islice(_lines(path, file, encoding), above, None)

    if separator is None:
        separator = declared or _separator(lines(), file)
        why = ("a line above the column names says so" if declared else "it is in no header" if separator == ONE_COLUMN
               else "the header and most rows have the same number of cells")
        name = "none: one column" if separator == ONE_COLUMN else _separator_name(separator)
        guesses.append(Guess(file, "separator", name, why))
    quotes = _quotes(lines, file, separator)
    if quotes != "around cells":
        guesses.append(Guess(file, "quotes", quotes, "taken for marks right around cells, they leave rows broken"))
    uneven = f"with another number of cells than the header (a {_separator_name(separator)} " + (
        "inside a text)" if quotes == "part of the text" else "or a line end inside a text needs quotes around the text)")

    def all_records() -> Iterator[Record]:
        return (record for record in _split(lines(), file, separator, quotes)
                if record.cells is None or any(cell.strip() for cell in record.cells))

    first = next(all_records(), None)
    if first is None:
        raise EmptyFile(f"{file}: no line of column names.")
    if first.cells is None:
        raise RowsError(f"{file}, line {first.row}: {first.reason}: no line of column names.")
    columns = _names([cell.replace("\0", "") for cell in first.cells])

    def read() -> Iterator[Record]:
        for record in itertools.islice(all_records(), 1, None):
            cells = record.cells
            if cells is not None and (len(cells) < len(columns) or any(cells[len(columns):])):
                yield Record(record.row, None, uneven)
            elif cells is not None and comments and cells[0].startswith("# "):
                yield Record(record.row, None, "that begins with # as the comments above the column names do")
            else:
                yield replace(record, cells=cells and cells[: len(columns)])

    return Table(file, "delimited", "line", columns, first.row, read, guesses, separator, warnings, encoding)


def _separator_name(separator: str) -> str:
    return SEPARATORS.get(separator, f"'{separator}'")


def _names(cells: Sequence[Any]) -> list[str]:
    """Names of columns from the cells of a header."""
    return [as_text(cell)[0].strip() or f"column {number}" for number, cell in enumerate(cells, 1)]


def _above(lines: Iterator[Line]) -> tuple[int, list[int], str | None]:
    """Count the lines above the column names; say which are comments, and the separator that one names as Excel does.

    A line of names that begins with # is none: names are words, and there is more than one.
    """
    above, comments, declared = 0, [], None
    for number, line, _ in lines:
        if named := re.fullmatch(r'"?sep=(\\t|[^\w"\r\n])[";,\t]*\s*', line, re.IGNORECASE):
            declared = named[1].replace("\\t", "\t")
        elif line.startswith("#") and not re.fullmatch(r"#\s*[\w.-]+(\s*[,;|\t]\s*[\w.-]+)+\s*", line):
            comments.append(number)
        elif line.strip():
            break
        above = number
    return above, comments, declared


def _split(lines: Iterator[Line], file: str, separator: str, quotes: str = "around cells") -> Iterator[Record]:
    """Split lines into cells. A broken quote costs the line it is on, not what follows."""
    held: list[Line] = []  # the lines of the record under way
    again: deque[Line] = deque()
    dialect = QUOTES[quotes]
    space = re.compile(rf'" +(?=[{re.escape(separator)}\r\n])') if "skipinitialspace" in dialect else None

    def feed() -> Iterator[str]:
        while item := again.popleft() if again else next(lines, None):
            held.append(item)
            yield space.sub('"', item[1]) if space else item[1]

    csv.field_size_limit(LINE_LIMIT)
    for broken in itertools.count(1):
        held.clear()
        try:
            for cells in csv.reader(feed(), delimiter=separator, strict=True, **dialect):
                yield Record(held[0][0], cells, decoded=any(decoded for *_, decoded in held))
                held.clear()
            return
        except csv.Error as error:
            if broken > BROKEN_LIMIT:
                raise RowsError(f"{file}, line {held[0][0]}: the {broken}th quote that is not closed or has letters right "
                                'after it; write a quote inside a quoted text twice (""), then check again.') from error
            yield Record(held[0][0], None, 'with a quote (") that is not closed, or has letters right after it')
            again.extendleft(reversed(held[1:]))


def _separator(lines: Iterator[Line], file: str) -> str:
    """The separator that gives most of the first rows as many cells as the header has."""
    looked_at = list(itertools.islice(lines, LOOKED_AT // 10))
    best, found = (0.0, 0), ONE_COLUMN
    for separator in SEPARATORS:
        records = list(_split(iter(looked_at), file, separator))
        # The last record may be cut off, if there is more than the lines that are looked at.
        widths = [len(record.cells or ()) for record in records[:-1] or records if record.cells != []]
        score = (widths.count(widths[0]) / len(widths), widths[0]) if widths and widths[0] > 1 else best
        if score > best:
            best, found = score, separator
    return found


def _quotes(lines: Callable[[], Iterator[Line]], file: str, separator: str) -> str:
    """Which of `QUOTES` leaves the fewest rows broken, uneven, or with a quote that a space keeps from being a mark."""
    wrong = {}
    for quotes in QUOTES:
        width, wrong[quotes] = 0, 0
        try:
            for record in _split(lines(), file, separator, quotes):
                cells = record.cells
                width = width or len(cells or ())
                wrong[quotes] += cells is None or (cells != [] and (len(cells) != width or any(map(_SPACED_QUOTE.match, cells))))
        except RowsError:
            wrong[quotes] = BROKEN_LIMIT
        if not wrong[quotes]:
            break
    return min(wrong, key=wrong.__getitem__)


# -- JSON lines ------------------------------------------------------------------------------------


def _json_lines(path: Path, file: str, given: str | None) -> Table:
    """A file of JSON objects. pandas would give up the whole file for one line that is none."""
    encoding, guesses, warnings = _encoding(path, file, given)

    def objects() -> Iterator[Record]:
        for number, line, decoded in _lines(path, file, encoding):
            if line := line.strip("\ufeff\0 \t\r\n"):
                value, reason = _object(line)
                yield Record(number, None if reason else [value], reason, decoded)

    found = (record.cells[0] for record in itertools.islice(objects(), LOOKED_AT) if record.cells)
    keys = list(dict.fromkeys(itertools.chain.from_iterable(found)))
    if not keys:
        if next(objects(), None) is None:
            raise EmptyFile(f"{file}: no rows.")
        raise RowsError(f'{file}: none of the first lines is a JSON object; write one object ({{"text": …}}) a line, not one '
                        "list over all lines.")
    names = [as_text(key)[0] for key in keys]

    def read() -> Iterator[Record]:
        return (replace(record, cells=record.cells and [record.cells[0].get(key) for key in keys]) for record in objects())

    return Table(file, "jsonl", "line", names, 0, read, guesses, warnings=warnings, encoding=encoding)


def _object(line: str) -> tuple[dict[str, Any], str]:
    """The object of a line, or why it has none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "not valid JSON"
    return (value, "") if isinstance(value, dict) else ({}, "not a JSON object ({...})")


# -- Parquet and datasets folders ------------------------------------------------------------------


@contextlib.contextmanager
def _damaged(file: str, kind: str) -> Iterator[None]:
    """Turn what a parser raises on a damaged file into one sentence; parsers raise almost anything there."""
    try:
        yield
    except SynthtuneError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RowsError(f"{file}: cannot be read as {kind} ({said[:200]}); write it anew, or save it as CSV.") from error


def _parquet(path: Path, file: str) -> Table:
    """A Parquet file, in batches: pandas would hold all of it, and make floats of whole numbers where one is missing."""
    import pyarrow.parquet

    with _damaged(file, "Parquet"), pyarrow.parquet.ParquetFile(path) as opened:
        columns = list(opened.schema_arrow.names)

    def read() -> Iterator[Record]:
        with _damaged(file, "Parquet"), pyarrow.parquet.ParquetFile(path) as opened:
            yield from _arrow_records(opened.iter_batches(batch_size=LOOKED_AT, use_threads=False), {})

    return Table(file, "arrow", "row", columns, 0, read)


def _arrow_records(batches: Iterator[Any], names: dict[int, list[str]]) -> Iterator[Record]:
    """Rows of Arrow batches; `names` holds the label names of columns that store their numbers."""
    numbers = itertools.count(1)
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        for place, known in names.items():
            columns[place] = [known[value] if value is not None and 0 <= value < len(known) else None for value in columns[place]]
        yield from (Record(next(numbers), list(cells)) for cells in zip(*columns, strict=True))


def _datasets_folder(path: Path, file: str, split: str) -> Table:
    if not any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise RowsError(f"{file}: a folder that datasets' save_to_disk did not write (no dataset_dict.json or state.json in it); "
                        "give a file, or such a folder.")
    import datasets

    guesses = []
    with _damaged(file, "a datasets folder"):
        loaded = datasets.load_from_disk(str(path))
        if isinstance(loaded, datasets.DatasetDict):
            chosen = split if split in loaded or len(loaded) > 1 else next(iter(loaded))
            if chosen not in loaded:
                raise RowsError(f"{file}: has the splits {listed(sorted(loaded))} and no '{split}'; name one of them, as in "
                                f"{Path(file) / min(loaded)}.")
            guesses.append(Guess(file, "split", chosen, f"of {listed(sorted(loaded))}"))
            loaded = loaded[chosen]
    return of_dataset(loaded, file, guesses)


def of_dataset(loaded: Any, file: str, guesses: list[Guess]) -> Table:
    """A `datasets.Dataset` as a table; labels that it stores as numbers have their names."""
    columns = list(loaded.column_names)
    names = {place: list(loaded.features[name].names) for place, name in enumerate(columns) if hasattr(loaded.features[name], "names")}

    def read() -> Iterator[Record]:
        with _damaged(file, "a datasets folder"):
            yield from _arrow_records(loaded.with_format("arrow").iter(batch_size=LOOKED_AT), names)

    return Table(file, "arrow", "row", columns, 0, read, guesses)


def splits(path: Path) -> list[str]:
    """Names of the splits of a datasets folder; none for anything else."""
    try:
        return list(json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


# -- Excel -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _book(path: Path, computed: bool = True) -> Iterator[Any]:
    """A workbook as it is typed in, or with the values that were computed from it."""
    import openpyxl

    # As a file that is open, for openpyxl goes by the ending of a name.
    with open(path, "rb") as opened, contextlib.closing(
        openpyxl.load_workbook(opened, read_only=True, data_only=computed, keep_links=False)
    ) as book:
        yield book


def _excel(path: Path, file: str, sheet: str | None) -> Table:
    """A sheet of a workbook.

    pandas would not do: it reads a formula without a stored value, and a cell that is merged with another, as an empty cell, reads
    hidden sheets as others, and holds the whole sheet.
    """
    guesses = []
    with _damaged(file, "an Excel workbook"):
        sheets, shown = _sheets(path)
        if sheet is None:
            sheet = shown or sheets[0]
            why = f"the first of {listed(sheets)} that is shown and has cells" if sheets[1:] else "the only one"
            guesses.append(Guess(file, "sheet", sheet, why))
        if sheet not in sheets:
            raise RowsError(f"{file}: has no sheet '{sheet}'; it has {listed(sheets, most=10)}.")
        first = next(_sheet_records(path, sheet), None)
        if first is None:
            raise EmptyFile(f"{file}: sheet '{sheet}' has no cells; name another with 'sheet:'.")
        columns = _names(first.cells)
        merged = _merged(path, sheet, len(columns))

    def read() -> Iterator[Record]:
        with _damaged(file, "an Excel workbook"):
            for record in itertools.islice(_sheet_records(path, sheet), 1, None):
                cells = (record.cells + [None] * len(columns))[: len(columns)]
                # The value of merged cells is in the first of them alone.
                cells = [MERGED if cell is None and (record.row, place) in merged else cell for place, cell in enumerate(cells, 1)]
                beyond = any(cell is not None for cell in record.cells[len(columns):])
                yield (Record(record.row, None, "with cells beyond the last column that has a name") if beyond
                       else replace(record, cells=cells))

    return Table(file, "excel", "row", columns, first.row, read, guesses)


def _sheets(path: Path) -> tuple[list[str], str | None]:
    """Names of the sheets of a workbook, and the first that is shown and has cells."""
    with _book(path) as book:
        shown = (page.title for page in book.worksheets if page.sheet_state == "visible"
                 and any(cell is not None for row in _all_rows(page, values_only=True) for cell in row))
        return [page.title for page in book.worksheets], next(shown, None)


def _all_rows(page: Any, **how: bool) -> Iterator[tuple]:
    page.reset_dimensions()  # a wrong note of the sheet's size would hide rows
    return page.iter_rows(**how)


def _sheet_records(path: Path, sheet: str) -> Iterator[Record]:
    """All rows of a sheet that have cells: read as typed in, which tells formulas, and with the values computed from them."""
    with _book(path, computed=False) as typed_in, _book(path) as computed:
        pages = [_all_rows(book[sheet]) for book in (typed_in, computed)]
        for number, row in enumerate(zip(*pages, strict=True), 1):
            cells = []
            for cell, value in zip(*row, strict=True):
                # A formula that gives an empty text is of type "str"; one whose value was never stored is of none.
                unstored = cell.data_type == "f" and value.value is None and value.data_type != "str"
                cells.append(UNSTORED if unstored else None if value.data_type == "e" else value.value)
            if any(str(cell).strip() for cell in cells if cell is not None):
                yield Record(number, cells)


def _merged(path: Path, sheet: str, columns: int) -> set[tuple[int, int]]:
    """Row and column of every merged cell in the first `columns`.

    They stand behind the cells, where openpyxl finds them only if it keeps every cell in memory.
    """
    from openpyxl.utils import range_boundaries

    with _book(path) as book, book[sheet]._get_source() as source:
        found = re.findall(rb'<(?:\w+:)?mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"', source.read())
    ranges = [range_boundaries(each.decode()) for each in found]
    return {(row, column) for left, top, right, bottom in ranges
            for row in range(top, bottom + 1) for column in range(left, min(right, columns) + 1)}


# -- cells -----------------------------------------------------------------------------------------

# Half of a letter: JSON can name one, no file can hold it.
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Instead:
    """What a cell holds instead of a value, and what to do."""

    what: str


UNSTORED = Instead("a formula whose value is not stored (open the file in a spreadsheet program and save it)")
MERGED = Instead("a cell that is merged with another (undo the merge and fill each cell)")


def as_text(value: Any) -> tuple[str, str]:
    """A cell as text.

    Returns
    -------
    text : str
        "" for a missing value; whole numbers without a point; dates in ISO format; of a list of one, that one.
    kind : str
        "" where the cell can be read, otherwise what it holds instead: "a list", "bytes", ….
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    match value:
        case str():
            return _HALF.sub("\ufffd", value), ""
        case None | []:
            return "", ""
        case bool():
            return str(value).lower(), ""
        case float() if math.isnan(value):
            return "", ""
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value)), ""
        case int() | float() | decimal.Decimal():
            return str(value), ""
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat(), ""
        case datetime.date() | datetime.time():
            return value.isoformat(), ""
        case Instead():
            return "", value.what
        case list():
            return "", "a list of several (keep the one that is meant)"
    return "", {dict: "an object", bytes: "bytes"}.get(type(value), f"a {type(value).__name__}")
