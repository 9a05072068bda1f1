"""Files into rows: one dict per row, streaming, with the line it stood on.

A row that is broken is passed on as a `Reject`; a file that is broken (missing, empty, another
encoding, a shape nobody can guess) is an `InputError` that names the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import InputError
from burnish.records.json_list import json_list

# Cells hold whole documents; the csv module's own limit is 128 KiB. 2^31 - 1 is its maximum.
csv.field_size_limit(2**31 - 1)

_MARK = b"\xef\xbb\xbf"
# Bytes of a line that are in memory at a time, where a line may be the whole file.
_PIECE = 1 << 16

OnBytes = Callable[[int], object]
"""Told how many bytes of the file were read since the last call."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    line: int
    """Line of a text file (1-based), or row number of a Parquet file."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was refused, with the reason."""

    line: int
    reason: str
    """What is wrong and, after a colon, the particulars; rejects are counted by the first part."""
    row: Any
    """As read: a dict, or the text where it could not be parsed."""


def read_rows(
    path: Path, on_bytes: OnBytes = lambda _: None, *, ending: str | None = None
) -> Iterator[Row | Reject]:
    """Stream the rows of a .jsonl, .json, .csv, .tsv, .parquet or .txt file.

    A file with none of these endings is read as if it had the one given.

    Raises:
        InputError: the file as a whole cannot be read; where that shows only half-way, the rows
            before have been given already.
    """
    _check_file(path)
    reader = _READERS.get(path.suffix.lower()) or _READERS.get(ending or "")
    if reader is None:
        raise InputError(
            f"a file ending in {path.suffix!r} cannot be read",
            where=str(path),
            do=f"give it one of these endings if it is one of them: {', '.join(SUFFIXES)}",
        )
    return reader(path, on_bytes)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError("is a folder, not a file", where=str(path), do="name the file in it")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(path), do="check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if not start.strip():
        raise InputError("the file is empty", where=str(path), do="check how it was made")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(
            "is in UTF-16, not UTF-8",
            where=str(path),
            do=f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > new{path.suffix}",
        )


def _lines(path: Path, on_bytes: OnBytes) -> Iterator[tuple[int, str]]:
    """Line numbers and lines, ends kept; UTF-8 with or without a byte order mark."""
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            on_bytes(len(data))
            if number == 1:
                data = data.removeprefix(_MARK)
            yield number, _text(data, path, number)


def _pieces(path: Path, on_bytes: OnBytes) -> Iterator[tuple[int, str]]:
    """Like `_lines`, long lines in pieces: tools write a list of a million on one line."""
    with path.open("rb") as file:
        number, begins = 1, True
        while data := file.readline(_PIECE):
            on_bytes(len(data))
            # A piece ends where a character does.
            while data[-1] >= 0x80 and (more := file.read(1)):
                on_bytes(1)
                data += more
            if begins:
                data, begins = data.removeprefix(_MARK), False
            yield number, _text(data, path, number)
            number += data.endswith(b"\n")


def _text(data: bytes, path: Path, number: int) -> str:
    if b"\0" in data:
        raise InputError(
            "a NUL byte: the file is not text, or was cut off while it was written",
            where=f"{path}:{number}",
            do="make the file again, or remove that line",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            where=f"{path}:{number}",
            do="convert it from what it is in, such as: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new{path.suffix}",
        ) from None


def _json_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    """By content, not by ending: a list, JSON lines, or one object that holds one list."""
    filled = (piece for _, piece in _pieces(path, lambda _: None) if piece.strip())
    if next(filled, "").lstrip().startswith("["):
        return _list_rows(path, on_bytes)
    first, more = _first_line(path)
    whole = path.suffix.lower() == ".json" and (not more or not _is_json(first))
    return _object_rows(path, on_bytes) if whole else _line_rows(path, on_bytes)


def _first_line(path: Path) -> tuple[str, bool]:
    """The first line with something on it, and whether another follows."""
    filled = (line for _, line in _lines(path, lambda _: None) if line.strip())
    first = next(filled, "").strip()
    return first, next(filled, None) is not None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _line_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    for number, line in _lines(path, on_bytes):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Reject(number, f"broken JSON: {_json_fault(error)}", line.rstrip("\r\n"))
        else:
            yield _object_row(number, value)


def _list_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    for number, value in json_list(_pieces(path, on_bytes), str(path)):
        yield _object_row(number, value)


def _object_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    """One object: the rows are the one list of objects in it, or it is a row by itself."""
    text = "".join(line for _, line in _lines(path, on_bytes))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"broken JSON: {_json_fault(error)}",
            where=f"{path}:{getattr(error, 'lineno', 1)}",
            do="mend that line; a file of one JSON object per line should end in .jsonl",
        ) from None
    if not isinstance(value, dict):
        raise _unexpected_shape(path, f"holds one {type(value).__name__}")
    lists = [k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if not lists or not {"messages", "conversations"}.isdisjoint(value):
        return iter([Row(1, value)])
    if len(lists) > 1:
        raise _unexpected_shape(path, f"one object with {len(lists)} lists: {', '.join(lists)}")
    return (_object_row(number, row) for number, row in enumerate(value[lists[0]], 1))


def _unexpected_shape(path: Path, what: str) -> InputError:
    return InputError(
        f"no rows to be found ({what})",
        where=str(path),
        do="give a list of objects, one object with one list of objects, or JSON lines",
    )


def _object_row(number: int, value: Any) -> Row | Reject:
    if isinstance(value, dict):
        return Row(number, value)
    return Reject(number, f"a row must be a JSON object, not a {type(value).__name__}", value)


def _json_fault(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return str(error)


def _csv_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    header, _ = _first_line(path)
    tabs = path.suffix.lower() == ".tsv"
    # Spreadsheets write semicolons where the comma is the decimal point.
    delimiter = "\t" if tabs else ";" if ";" in header and "," not in header else ","
    reader = csv.reader(
        (line for _, line in _lines(path, on_bytes)), delimiter=delimiter, strict=True
    )
    start = 1
    try:
        columns = next(reader)
        if len(set(columns)) < len(columns):
            raise InputError(
                f"two columns have the same name: {', '.join(columns)}", where=f"{path}:1"
            )
        while True:
            start = reader.line_num + 1
            cells = next(reader)
            if len(cells) == len(columns):
                # CSV cannot tell an empty text from a missing one; missing is what people mean.
                yield Row(start, {c: v or None for c, v in zip(columns, cells, strict=True)})
            elif cells:
                reason = f"{len(cells)} cells where the header names {len(columns)} columns"
                yield Reject(start, reason, cells)
    except StopIteration:
        return
    except csv.Error as error:
        raise InputError(
            f"broken CSV in the row that begins here: {error}",
            where=f"{path}:{start}",
            do='look for a quotation mark that is not closed or not doubled ("")',
        ) from None


def _parquet_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    # Here and not above: pyarrow takes 0.3 s to import, and text files do without.
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
                on_bytes(size * batch.num_rows // rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"cannot be read as Parquet: {error}", where=str(path), do="make the file again"
        ) from error


def _text_rows(path: Path, on_bytes: OnBytes) -> Iterator[Row | Reject]:
    """Every line with something on it is a text."""
    for number, line in _lines(path, on_bytes):
        if line.strip():
            yield Row(number, {"text": line.rstrip("\r\n")})


_READERS: dict[str, Callable[[Path, OnBytes], Iterator[Row | Reject]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
SUFFIXES = tuple(_READERS)
"""The endings of files that can be read."""
