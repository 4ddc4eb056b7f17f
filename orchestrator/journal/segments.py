"""A journal in the storage: numbered files, each of which holds the bytes of the journal from one position to another.

An object store cannot append to a file, so what is new becomes a file of its own. When many have come together they
are written once more as one, so that reading a journal takes few requests and every byte is uploaded twice at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.common.storage import Storage  # imports pyarrow

MERGED_AT = 64
"""Number of files that are merged into one."""
_READERS = 16
Segment = tuple[int, int]
"""Positions in the journal, in bytes, where a file begins and ends."""


class SegmentWriter:
    """Writes a local journal into the storage, as far as it is not there yet.

    Args:
        journal: the local journal; only its whole lines count.
        storage: storage of the sweep's folder.
        folder: folder of the segments, new and empty.
    """

    def __init__(self, journal: Path, storage: Storage, folder: str) -> None:
        self._journal, self._storage, self._folder = journal, storage, folder
        self._loose: list[Segment] = []
        self._merged: list[Segment] = []  # written as one file, and not deleted yet
        self.end = 0
        """Position up to which the journal is in the storage."""

    def write(self) -> None:
        """Upload what is new.

        Raises:
            OSError: if the storage cannot be reached; call it again.
        """
        content = _from(self._journal, self.end)
        if content:
            end = self.end + len(content)
            self._storage.write(segment_path(self._folder, (self.end, end)), content)
            self._loose.append((self.end, end))
            self.end = end
        if len(self._loose) >= MERGED_AT:
            self._merge()
        while self._merged:
            self._storage.delete(segment_path(self._folder, self._merged[-1]))
            self._merged.pop()

    def _merge(self) -> None:
        whole = self._loose[0][0], self._loose[-1][1]
        content = _from(self._journal, whole[0])[: whole[1] - whole[0]]
        self._storage.write(segment_path(self._folder, whole), content)
        self._merged, self._loose = self._loose, []


def read_segments(storage: Storage, folder: str) -> bytes:
    """Return the journal that a folder of segments holds.

    Args:
        storage: storage of the sweep's folder.
        folder: folder of the segments. One that a writer is working on gives all that it had written before.
    """
    segments = contiguous(_parse(name) for name in storage.files(folder))
    with ThreadPoolExecutor(_READERS) as readers:
        return b"".join(readers.map(lambda segment: storage.read(segment_path(folder, segment)), segments))


def contiguous(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments that follow each other from position 0 on, without those that a merged one contains."""
    longest: dict[int, int] = {}
    for start, end in segments:
        longest[start] = max(end, longest.get(start, 0))
    chain, position = [], 0
    while position in longest:
        chain.append((position, longest[position]))
        position = longest[position]
    return chain


def segment_path(folder: str, segment: Segment) -> str:
    """Return the path of a segment in the sweep's folder."""
    start, end = segment
    return f"{folder}/{start:012d}-{end:012d}.jsonl"


def _parse(name: str) -> Segment:
    start, _, end = PurePosixPath(name).stem.partition("-")
    return int(start), int(end)


def _from(journal: Path, position: int) -> bytes:
    """Return the whole lines of a file from a position on."""
    with journal.open("rb") as file:
        file.seek(position)
        content = file.read()
    return content[: content.rfind(b"\n") + 1]
