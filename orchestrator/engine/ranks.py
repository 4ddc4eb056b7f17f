"""The workers of one lane, as one of them sees the others.

Everything that decides what a lane does comes from rank 0, or is the same on all ranks; whatever can differ between
them, an error above all, is exchanged before anybody acts on it. What is exchanged is JSON, Arrow or plain tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from orchestrator.common.errors import told

T = TypeVar("T")
FRAME = 1024
LENGTH = 8


class OtherWorkerError(RuntimeError):
    """What another worker of the lane raised."""


class LostWorkerError(BaseException):  # no trial's fault, so that nothing which looks for those takes it for one
    """Another worker of the lane is gone. This one ends as well, and all of them start again."""


@dataclass(frozen=True)
class Ranks:
    """One worker's place among those of its lane.

    With more than one, every call that speaks of all ranks must be made by all of them, in the same order: it waits
    for the others. A lane of one worker waits for nobody.

    Args:
        rank: of this worker, from 0.
        size: workers of the lane.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """As torch's process group says; alone where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def is_rank_zero(self) -> bool:
        """Whether it speaks for the lane: to the broker, and to the storage."""
        return self.rank == 0

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on all ranks; what the others pass is not looked at.

        Args:
            value: JSON.
        """
        if self.size == 1:
            return value
        frame, rest = _framed(json.dumps(value).encode() if self.is_rank_zero else b"")
        with _all_there():
            dist.broadcast(frame, src=0)
            more = _length(frame) - (FRAME - LENGTH)
            if more > 0:
                rest = rest if self.is_rank_zero else torch.empty(more, dtype=torch.uint8)
                dist.broadcast(rest, src=0)
        return json.loads(_payload(frame, rest))

    def all_gather_object(self, value: Any) -> list[Any]:
        """What each rank passed, in the order of the ranks.

        Args:
            value: JSON.
        """
        if self.size == 1:
            return [value]
        return [json.loads(payload) for payload in self.gather(json.dumps(value).encode())]

    def gather(self, payload: bytes) -> list[bytes]:
        """The bytes that each rank passed, in the order of the ranks."""
        if self.size == 1:
            return [payload]
        frame, rest = _framed(payload)
        frames = [torch.empty_like(frame) for _ in range(self.size)]
        with _all_there():
            dist.all_gather(frames, frame)
            longest = max(0, *(_length(one) - (FRAME - LENGTH) for one in frames))
            rests = [torch.empty(longest, dtype=torch.uint8) for _ in frames]
            if longest:
                dist.all_gather(rests, torch.nn.functional.pad(rest, (0, longest - len(rest))))
        return [_payload(one, own) for one, own in zip(frames, rests, strict=True)]

    def sync_error(self, error: Exception | None) -> Exception | None:
        """The error that stands for all ranks: this one's own, else the first other's; ``None`` if nobody has one."""
        said = self.all_gather_object(told(error) if error else None)
        other = next((f"worker {rank}: {text}" for rank, text in enumerate(said) if text), None)
        return error or (OtherWorkerError(other) if other else None)

    def run_on_all_ranks(self, call: Callable[[], T]) -> T:
        """Call it on all ranks: what it returns here.

        Args:
            call: does not speak to other ranks itself.

        Raises:
            Exception: on every rank, if it raised on any.
        """
        error: Exception | None = None
        try:
            result = call()
        except Exception as raised:
            error = raised
        if error := self.sync_error(error):
            raise error
        return result

    def all_reduce(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks; every rank gets the same bits."""
        if self.size > 1:
            with _all_there():
                dist.all_reduce(tensor)

    def broadcast_parameters(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0: of one device, and of the same shapes on all ranks."""
        if self.size == 1 or not tensors:
            return
        with torch.no_grad(), _all_there():
            flat = torch.cat([tensor.float().reshape(-1) for tensor in tensors])
            dist.broadcast(flat, src=0)
            for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(values.view_as(tensor))


ALONE = Ranks()


@contextmanager
def _all_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostWorkerError(f"a worker of the lane is gone: {told(error)}") from error


def _framed(payload: bytes) -> tuple[Tensor, Tensor]:
    """A frame of fixed size, which small messages fit with their length, and what did not fit."""
    head = len(payload).to_bytes(LENGTH, "little") + payload[: FRAME - LENGTH]
    return _bytes(head.ljust(FRAME, b"\0")), _bytes(payload[FRAME - LENGTH :])


def _bytes(payload: bytes) -> Tensor:
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.empty(0, dtype=torch.uint8)


def _length(frame: Tensor) -> int:
    return int.from_bytes(frame[:LENGTH].numpy().tobytes(), "little")


def _payload(frame: Tensor, rest: Tensor) -> bytes:
    return (frame[LENGTH:].numpy().tobytes() + rest.numpy().tobytes())[: _length(frame)]
