"""A safetensors file that is written and read one tensor at a time, so that memory never holds all of it.

The format is a header of JSON, which has every tensor's dtype, shape and place, and then the tensors. The library
itself writes a whole dictionary at once, since the header comes first; here the header's room is reserved, and filled
at the end. The library maps a file to read it, and the pages that were read stay with the process as long as the map;
here they can be given back.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8  # of every tensor, in bytes
PAGE = 4096
ENTRY_BYTES = 160  # of a tensor in the header, without its name: dtype, shape and offsets of up to 2**63


class TensorFileWriter:
    """Writes a safetensors file, tensor by tensor in the order in which they come.

    Tensors whose size is no multiple of 8 bytes wait until the end: the format allows no gaps between tensors, so that
    what follows one of them would not be aligned.

    Args:
        file: file to write.
        room: bytes to reserve for the header; :func:`header_room` says how many are enough.
    """

    def __init__(self, file: Path, room: int) -> None:
        self._room = -(-(room + 8) // PAGE) * PAGE - 8
        self._entries: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, Tensor] = {}
        self._end = 0
        self._stream = file.open("wb")
        self._stream.seek(8 + self._room)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, which must be on the processor."""
        if tensor.nbytes % ALIGNMENT:
            self._waiting[name] = tensor.clone()  # it may be a view of something large
        else:
            self._write(name, tensor)

    def finish(self, metadata: dict[str, str]) -> None:
        """Write the waiting tensors and the header; the file is complete then.

        Raises:
            ValueError: if the header needs more than was reserved.
        """
        for name, tensor in sorted(self._waiting.items(), key=lambda item: (-item[1].itemsize, item[0])):
            self._write(name, tensor)
        header = json.dumps({"__metadata__": metadata, **self._entries}, separators=(",", ":")).encode()
        if len(header) > self._room:
            raise ValueError(f"a header of {len(header):,} bytes; {self._room:,} were reserved")
        self._stream.seek(0)
        self._stream.write(self._room.to_bytes(8, "little") + header.ljust(self._room))

    def _write(self, name: str, tensor: Tensor) -> None:
        begin, self._end = self._end, self._end + tensor.nbytes
        self._entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, self._end],
        }
        self._stream.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> TensorFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stream.close()


def header_room(names: list[str], metadata: dict[str, str]) -> int:
    """Return bytes that are enough for the header of a file with these tensors and this metadata."""
    return len(json.dumps(metadata)) + sum(len(json.dumps(name)) + ENTRY_BYTES for name in names) + 64


class TensorFile:
    """A mapped safetensors file. Its tensors are views of the map; nothing is read before they are.

    The map is private and copy-on-write: a write to a tensor changes neither the file nor what others map.

    Args:
        file: a file whose header :func:`safetensors.safe_open` has accepted.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        length = int.from_bytes(self._map[:8], "little")
        header: dict[str, Any] = json.loads(self._map[8 : 8 + length])
        self._begin = 8 + length
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor, by name."""
        return {name: self._tensor(entry) for name, entry in self._entries.items()}

    def release(self) -> None:
        """Give back the pages that were read, and undo what was written to the tensors; they are read again as needed.

        The system takes back such pages when memory is short, but counts them to this process until then.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _tensor(self, entry: dict[str, Any]) -> Tensor:
        dtype, (begin, end) = DTYPES[entry["dtype"]], entry["data_offsets"]
        if begin == end:
            return torch.empty(entry["shape"], dtype=dtype)
        count = (end - begin) // dtype.itemsize
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._begin + begin).view(entry["shape"])
