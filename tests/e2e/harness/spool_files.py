"""The files of a local log or spool, read as docs/local-log.md describes them, without the gateway's code.

Owns finding records in intact files, and damaging files at random. Recovers nothing: which records are intact afterwards follows from
which were intact before, and from which bytes were changed.
"""

import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<8sIIIIQQ")
_RECORD = struct.Struct("<IIIHBBQQ")
_MAGIC = b"OCPPLOG\n"


@dataclass(frozen=True)
class Stored:
    """One record and its range of bytes in its file."""

    segment: str
    start: int
    end: int
    position: int
    key: str
    value: bytes


def read_log(folder: Path) -> list[Stored]:
    """Every record of an intact log, by position."""
    found: list[Stored] = []
    for path in segments(folder):
        data = path.read_bytes()
        magic, crc, _, marker, _, base, _ = _HEADER.unpack_from(data)
        assert magic == _MAGIC, f"{path.name}: no segment"
        assert crc == zlib.crc32(data[12:40]), f"{path.name}: wrong checksum in the header"
        assert base == int(path.stem), f"{path.name}: the name is not the base"
        at = _HEADER.size
        while at < len(data):
            its_marker, crc, length, key_length, _, _, position, _ = _RECORD.unpack_from(data, at)
            end = at + _RECORD.size + length
            assert its_marker == marker, f"{path.name}: a record of another segment at {at}"
            assert crc == zlib.crc32(data[at + 8 : end], zlib.crc32(data[at : at + 4])), f"{path.name}: damage at {at}"
            assert position == (found[-1].position + 1 if found else base), f"{path.name}: a hole before {position}"
            body = at + _RECORD.size
            key = data[body : body + key_length].decode()
            found.append(Stored(path.name, at, end, position, key, data[body + key_length : end]))
            at = end
    return found


def segments(folder: Path) -> list[Path]:
    """The segment files, oldest first."""
    return sorted(folder.glob("*.log"))


@dataclass(frozen=True)
class Touched:
    """Bytes of a file that were changed."""

    segment: str
    start: int
    end: int


def damage(folder: Path, chance: random.Random) -> tuple[str, list[Touched]]:
    """Damages the log's files in one to three ways. Returns what was done, in words, and which bytes it changed."""
    done: list[str] = []
    touched: list[Touched] = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        files = segments(folder)
        path = chance.choice(files)
        size = path.stat().st_size
        kind = chance.choice(["flip", "flip", "flip", "overwrite", "zero", "truncate", "junk", "remove", "cursor"])
        if kind == "flip" and size > 0:
            flips = chance.choice([1, 1, 3, 20])
            data = bytearray(path.read_bytes())
            for _ in range(flips):
                # The header is small; without a bias hardly anything would ever hit it.
                at = chance.randrange(min(size, _HEADER.size) if chance.random() < 0.1 else size)
                data[at] ^= 1 << chance.randrange(8)
                touched.append(Touched(path.name, at, at + 1))
            path.write_bytes(data)
            done.append(f"{flips} bits of {path.name}")
        elif kind in ("overwrite", "zero") and size > 0:
            at = chance.randrange(size)
            length = min(size - at, chance.choice([1, 8, 100, 4096, 65536]))
            data = bytearray(path.read_bytes())
            data[at : at + length] = bytes(length) if kind == "zero" else chance.randbytes(length)
            path.write_bytes(data)
            touched.append(Touched(path.name, at, at + length))
            done.append(f"{kind} {length} bytes at {at} of {path.name}")
        elif kind == "truncate" and size > 0:
            at = chance.randrange(size)
            with path.open("r+b") as file:
                file.truncate(at)
            touched.append(Touched(path.name, at, size))
            done.append(f"{path.name} cut at {at}")
        elif kind == "junk":
            junk = chance.randbytes(chance.choice([1, 31, 32, 5000]))
            with path.open("ab") as file:
                file.write(junk)
            done.append(f"{len(junk)} bytes of junk behind {path.name}")
        elif kind == "remove" and path != files[-1]:
            # The newest segment would not be missed: nothing after it says that it existed.
            path.unlink()
            touched.append(Touched(path.name, 0, size))
            done.append(f"{path.name} removed")
        else:
            (folder / "cursor").write_bytes(chance.randbytes(chance.randrange(20)))
            done.append("the cursor spoilt")
    return ", ".join(done), touched


def undamaged(records: list[Stored], touched: list[Touched]) -> list[Stored]:
    """The records of which no byte was changed."""
    return [
        record
        for record in records
        if not any(
            hit.segment == record.segment and hit.start < record.end and record.start < hit.end for hit in touched
        )
    ]
