"""A stored segment, looked at without NumPy: where experiments are created there need be none.

`services/agent_trainer/clips.py` writes and reads segments; here is what can be said of one that somebody
else brings: that it is a segment of so many steps, of what shape, and that every number in it is one.
"""

import ast
import math
import struct
import sys
import zipfile
from array import array
from io import BytesIO
from typing import Any

MOST_UNPACKED = 256 << 20  # bytes: more than any segment, and no more than a labeler's memory can bear
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others a piece is unpacked whole, however long
MOST_HEADER = 10_000  # bytes of an array's header
CHUNK = 1 << 20  # bytes of numbers looked at together
SIZES = {
    "|u1": 1,
    "|i1": 1,
    "<i2": 2,
    "<i4": 4,
    "<i8": 8,
    "<f4": 4,
    "<f8": 8,
}  # the kinds of numbers that a segment may hold


def shape_of(data: bytes, steps: int) -> tuple[int, ...]:
    """Return the shape of one observation of a segment; ValueError if `data` is none of `steps` steps."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED:
                raise ValueError("it would unpack to more than any segment")
            if any(entry.compress_type not in PACKED for entry in archive.infolist()):
                raise ValueError("it is packed as NumPy packs nothing")
            stored = "frames" if "frames.npy" in archive.namelist() else "observations"
            observations, actions = (_array(archive.read(f"{name}.npy")) for name in (stored, "actions"))
        if not actions["shape"] or actions["shape"][0] != steps:
            raise ValueError(f"its actions are {actions}")
        length, *shape = observations["shape"]
        if stored == "frames" and observations["descr"] == "|u1" and length > steps and len(shape) == 2:
            return (length - steps, *shape)  # frames are stored once each, and stacked when they are read
        if stored == "frames" or observations["descr"] != "<f4" or length != steps + 1:
            raise ValueError(f"its observations are {observations}")
        return tuple(shape)
    except Exception as error:  # a zip file can be broken in more ways than its module names
        raise ValueError(str(error) or type(error).__name__) from None


def _array(content: bytes) -> dict[str, Any]:
    """Return the header of an array in NumPy's format, once its numbers are all there and finite."""
    if content[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("it holds no array")
    (length,) = struct.unpack("<H", content[8:10])
    if length > MOST_HEADER:
        raise ValueError("its header is too long")
    header: dict[str, Any] = ast.literal_eval(content[10 : 10 + length].decode("latin-1"))
    kind, shape = header["descr"], header["shape"]
    numbers = memoryview(content)[10 + length :]  # not another copy of what may be large
    if kind not in SIZES:
        raise ValueError(f"it holds {kind!r}, which are no numbers of a segment")
    if any(side < 0 for side in shape) or len(numbers) != SIZES[kind] * math.prod(shape):
        raise ValueError(f"it holds {len(numbers)} bytes of numbers, not those of the shape {shape}")
    if kind[1] == "f":
        for start in range(0, len(numbers), CHUNK):
            values = array(kind[1] if kind == "<f4" else "d", bytes(numbers[start : start + CHUNK]))
            if sys.byteorder == "big":
                values.byteswap()
            if not all(map(math.isfinite, values)):
                raise ValueError("it holds a number that is infinite or none")
    return header
