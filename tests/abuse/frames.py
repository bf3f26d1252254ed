"""What abusive stations send, ready for the wire."""

import json
import zlib
from collections.abc import Callable

from harness.raw import CONTINUATION, PING, TEXT, frame
from harness.station import BOOT

from .flood import Load

MIB = 1 << 20
RSV1 = 4
MAX_MESSAGE = MIB
# The gateway accepts a compressed message of up to its largest message and a 64th of that on the wire.
MAX_COMPRESSED = MAX_MESSAGE + MAX_MESSAGE // 64 + 64
PINGS = 2000
FRAGMENTS = 10_000
# More than the gateway remembers, so that none of them counts as repeated.
VARIANTS = 8
BOOT_CALL = frame(TEXT, json.dumps([2, "boot", "BootNotification", BOOT["1.6"]]).encode())


def bomb(_: int) -> Load:
    """One compressed message just below the limit on the wire, which inflates to more than a GiB."""
    # After a full flush nothing refers to earlier data, so that the same bytes can be repeated.
    codec = zlib.compressobj(wbits=-15)
    piece = codec.compress(b" " * (4 * MIB)) + codec.flush(zlib.Z_FULL_FLUSH)
    compressed = piece * (MAX_COMPRESSED // len(piece))
    assert len(compressed) // len(piece) * 4 * MIB > 1 << 30
    return Load(once=frame(TEXT, compressed, reserved=RSV1), compressed=True)


def swollen(number: int) -> Load:
    """CALLs as large as a message may be, and a thousandth of that on the wire."""
    calls = b"".join(_swollen_call(f"{number}-{variant}") for variant in range(VARIANTS))
    return Load(once=BOOT_CALL, again=calls, units=VARIANTS, compressed=True)


def _swollen_call(id: str) -> bytes:
    text = _data_transfer(id, MAX_MESSAGE - 200)
    codec = zlib.compressobj(wbits=-15)
    compressed = codec.compress(text) + codec.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, compressed.removesuffix(b"\0\0\xff\xff"), reserved=RSV1)


def _data_transfer(id: str, length: int) -> bytes:
    return json.dumps([2, id, "DataTransfer", {"vendorId": "v", "data": "x" * length}]).encode()


def tables(_: int) -> Load:
    """A compressed message of nothing but Huffman tables: the most work for the inflater, and it inflates to nothing."""
    piece = _EMPTY_BLOCKS
    compressed = piece * (MAX_COMPRESSED // len(piece))
    again = frame(TEXT, compressed, reserved=RSV1)
    return Load(once=b"", again=again, units=1, compressed=True)


def _empty_blocks() -> bytes:
    """Eight blocks of RFC 1951 section 3.2.7, each of 90 bits: a code for the end of the block, and that end."""
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    # Not the last block, dynamic codes, 257 and 1 code lengths, the lengths of 18 codes for code lengths: 1 and 18 have one bit.
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (len(order) - 4, 4), *((int(symbol in (1, 18)), 3) for symbol in order)]
    # 138 and 118 zeros, then a length of one bit for the end of the block and for the only distance; then that end.
    fields += [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1), (0, 1), (0, 1)]
    bits = [value >> place & 1 for value, width in fields for place in range(width)] * 8
    return bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


_EMPTY_BLOCKS = _empty_blocks()


def pings(_: int) -> Load:
    return Load(once=b"", again=frame(PING, b"p" * 125) * PINGS, units=PINGS)


def pings_unread(_: int) -> Load:
    return Load(once=b"", again=frame(PING, b"p" * 125) * PINGS, units=PINGS, reads=False)


def fragmented(number: int) -> Load:
    """CALLs of 64 KB, each byte of them a frame."""
    calls = [_data_transfer(f"{number}-{variant}", 65_000) for variant in range(VARIANTS)]
    again = b"".join(_in_single_bytes(call) for call in calls)
    return Load(once=BOOT_CALL, again=again, units=sum(map(len, calls)))


def _in_single_bytes(text: bytes) -> bytes:
    middle = (frame(CONTINUATION, text[at : at + 1], fin=False) for at in range(1, len(text) - 1))
    return b"".join([frame(TEXT, text[:1], fin=False), *middle, frame(CONTINUATION, text[-1:])])


def endless(_: int) -> Load:
    """A message of one-byte frames without a last one."""
    more = frame(CONTINUATION, b" ", fin=False) * FRAGMENTS
    return Load(once=frame(TEXT, b" ", fin=False), again=more, units=FRAGMENTS)


def empty(_: int) -> Load:
    """A message of empty frames without a last one."""
    more = frame(CONTINUATION, b"", fin=False) * FRAGMENTS
    return Load(once=frame(TEXT, b"", fin=False), again=more, units=FRAGMENTS)


LOADS: dict[str, Callable[[int], Load]] = {
    "bomb": bomb,
    "swollen": swollen,
    "tables": tables,
    "pings": pings,
    "pings-unread": pings_unread,
    "fragmented": fragmented,
    "endless": endless,
    "empty": empty,
}
