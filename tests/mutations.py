"""Damaged files: bytes flipped, cut, doubled; values of structured files replaced by others."""

import contextlib
import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

Draw = random.Random
Mutation = Callable[[bytes, Draw], bytes]


def damaged(data: bytes, draw: Draw) -> bytes:
    """Bytes with one to four faults of a disk, a wire or an editor."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 2, 4, 8, 64, 1024))
        piece = data[at:at + size]
        match draw.randrange(8):
            case 0 | 1:
                data = _flipped(data, draw)
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + draw.randbytes(size) + data[at:]
            case 4:
                data = data[:at] + piece + data[at:]
            case 5:
                data = data[:at] + data[at + size:]
            case 6:
                data = data[:at] + draw.choice((b"\0", b"\xff", b"\x7f")) * len(piece) + data[at + size:]
            case 7:
                other = draw.randrange(len(data) + 1)
                data = data[:at] + data[other:other + size] + data[at + size:]
    return data


def _flipped(data: bytes, draw: Draw) -> bytes:
    if not data:
        return data
    flipped = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _nested(levels: int) -> Any:
    value: Any = 1
    for i in range(levels):
        value = [value] if i % 2 else {"a": value}
    return value


STRANGE = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**20, 10**300, 0.5, 1e308, float("nan"),
           float("inf"), "", " ", "a", "0", "nan", "\0", "\ud800", "x" * 2000, "../../etc", [], {}, [[]],
           [1], ["a"], [None], {"a": 1}, {"": None}, [{}], "é\u202e")


def altered(value: Any, draw: Draw) -> Any:
    """A structure with one to three of its values, keys or entries changed."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2, 3))):
        holders = list(_holders(value))
        if not holders or draw.random() < 0.02:
            return copy.deepcopy(draw.choice((*STRANGE, _nested(60), _nested(400))))
        holder = draw.choice(holders)
        place = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        match draw.randrange(6):
            case 0:
                del holder[place]
            case 1 if isinstance(holder, dict):
                holder[draw.choice(("", "x", f"{place}x", "0"))] = holder.pop(place)
            case 1 | 2 if isinstance(holder, list):
                holder.insert(place, copy.deepcopy(holder[place]))
            case 3:
                holder[place] = copy.deepcopy(draw.choice(list(_values(value))))
            case _:
                holder[place] = copy.deepcopy(draw.choice(
                    STRANGE if draw.random() < 0.95 else (_nested(60), _nested(150), _nested(400))))
    return value


def _holders(value: Any) -> Any:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _values(value: Any) -> Any:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)


def either(structured: Mutation) -> Mutation:
    """The structure changed in two of three cases, bytes in the third."""
    return lambda data, draw: (damaged if draw.random() < 1 / 3 else structured)(data, draw)


def _dumped(value: Any, draw: Draw) -> bytes:
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


@either
def json_file(data: bytes, draw: Draw) -> bytes:
    """One JSON value."""
    return _dumped(altered(json.loads(data), draw), draw)


@either
def json_lines(data: bytes, draw: Draw) -> bytes:
    """A JSON value a line."""
    rows = altered([json.loads(line) for line in data.splitlines()], draw)
    rows = rows if isinstance(rows, list) else [rows]
    return b"\n".join(_dumped(row, draw) for row in rows)


@either
def yaml_file(data: bytes, draw: Draw) -> bytes:
    """YAML written as JSON is, or with tags and aliases that nobody expects."""
    import yaml

    value = altered(yaml.safe_load(data), draw)
    text = _dumped(value, draw).decode("utf-8", "surrogatepass")
    if draw.random() < 0.5:
        with contextlib.suppress(RecursionError):  # PyYAML's own, over what is nested deep
            text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    if draw.random() < 0.3:
        words = ("!!int ", "!!map ", "!!str ", "!!binary ", "&a ", "*a", "<<: ", "? ", "- ", "%YAML 9\n",
                 "!!timestamp ", "---\n", "!!set ", "!!python/name:os.system ", '"\\U00110000"', "|\n", "@")
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(words) + text[at:]
    return text.encode("utf-8", "surrogatepass")


@either
def xml_file(data: bytes, draw: Draw) -> bytes:
    """Elements dropped, doubled, renamed, put into others; other texts."""
    root = ElementTree.fromstring(data)
    for _ in range(draw.choice((1, 2, 3))):
        elements = list(root.iter())
        element, other = draw.choice(elements), draw.choice(elements)
        match draw.randrange(5):
            case 0:
                element.text = draw.choice(("", "nan", "inf", "1e999", "-1", "9" * 400, "a", "../a", "1,5"))
            case 1:
                element.tag = draw.choice(("x", other.tag))
            case 2:
                for inner in list(element)[:1]:
                    element.remove(inner)
            case 3:
                element.append(copy.deepcopy(other))
            case 4:
                other.insert(0, copy.deepcopy(element))
    encoding = draw.choice((b"", b"", b'<?xml version="1.0" encoding="utf-16"?>', b"<!DOCTYPE a>",
                            b'<?xml version="1.0" encoding="x"?>'))
    return encoding + ElementTree.tostring(root)


@either
def safetensors_file(data: bytes, draw: Draw) -> bytes:
    """A header that is another one, of the right length."""
    size = struct.unpack("<Q", data[:8])[0]
    header = _dumped(altered(json.loads(data[8:8 + size]), draw), draw)
    return struct.pack("<Q", len(header)) + header + data[8 + size:]


@either
def zip_file(data: bytes, draw: Draw) -> bytes:
    """An archive, as torch writes, of which one entry is damaged and the rest is whole."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    pickles = [name for name in names if name.endswith(".pkl")]
    chosen = draw.choice(pickles if draw.random() < 0.7 and pickles else names)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name in names:
            content = archive.read(name)
            made.writestr(name, damaged(content, draw) if name == chosen else content)
    return stream.getvalue()


@either
def png_file(data: bytes, draw: Draw) -> bytes:
    """A chunk that is damaged, under a checksum that is right."""
    chunks, at = [], 8
    while at < len(data):
        size = struct.unpack(">I", data[at:at + 4])[0]
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + size]))
        at += 12 + size
    place = draw.randrange(len(chunks))
    chunks[place] = chunks[place][0], damaged(chunks[place][1], draw)
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in chunks)
