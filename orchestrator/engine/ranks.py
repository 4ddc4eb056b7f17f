"""The workers of one lane: collective operations in torch.distributed's words.

Rank 0 decides what the lane does; the other ranks receive its decisions. Whatever can differ between ranks, errors
above all, is exchanged before any rank acts on it: a rank that raised alone would leave the others waiting in the next
collective call. Only JSON, Arrow and plain tensors are exchanged, never pickles.
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

from orchestrator.common.errors import describe_error

ResultT = TypeVar("ResultT")
FRAME_BYTES = 1024
LENGTH_BYTES = 8


class OtherWorkerError(RuntimeError):
    """An error that another worker of the lane raised."""


class LostWorkerError(BaseException):
    """Another worker of the lane has died. This worker ends too, and Ray Train starts all of them again.

    It is a ``BaseException``, so that code that turns an ``Exception`` into a failed trial does not catch it: no trial
    is at fault.
    """


@dataclass(frozen=True)
class Ranks:
    """This worker's rank in its lane, and the collective operations of the lane.

    In a lane of several workers, all workers must make the same collective calls in the same order; each call waits for
    the other ranks. In a lane of one worker every call returns at once.

    Args:
        rank: number of this worker, from 0.
        size: number of workers in the lane.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Return this process's rank in torch's process group; rank 0 of 1 without a group."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def is_rank_zero(self) -> bool:
        """Whether this worker talks to the broker and writes to the storage."""
        return self.rank == 0

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value on all ranks; the other ranks' arguments are ignored.

        Args:
            value: JSON value.
        """
        if self.size == 1:
            return value
        frame, rest = _pack_frame(json.dumps(value).encode() if self.is_rank_zero else b"")
        with _raise_lost_worker():
            dist.broadcast(frame, src=0)
            rest_bytes = _payload_length(frame) - (FRAME_BYTES - LENGTH_BYTES)
            if rest_bytes > 0:
                rest = rest if self.is_rank_zero else torch.empty(rest_bytes, dtype=torch.uint8)
                dist.broadcast(rest, src=0)
        return json.loads(_unpack_frame(frame, rest))

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in the order of the ranks.

        Args:
            value: JSON value.
        """
        if self.size == 1:
            return [value]
        return [json.loads(payload) for payload in self.all_gather_bytes(json.dumps(value).encode())]

    def all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """Return the bytes of all ranks, in the order of the ranks; their lengths may differ."""
        if self.size == 1:
            return [payload]
        frame, rest = _pack_frame(payload)
        frames = [torch.empty_like(frame) for _ in range(self.size)]
        with _raise_lost_worker():
            dist.all_gather(frames, frame)
            longest = max(0, *(_payload_length(frame) - (FRAME_BYTES - LENGTH_BYTES) for frame in frames))
            rests = [torch.empty(longest, dtype=torch.uint8) for _ in frames]
            if longest:
                dist.all_gather(rests, torch.nn.functional.pad(rest, (0, longest - len(rest))))
        return [_unpack_frame(frame, rest) for frame, rest in zip(frames, rests, strict=True)]

    def sync_error(self, error: Exception | None) -> Exception | None:
        """Return this rank's error, else the first error of another rank, else ``None``; all ranks agree whether."""
        texts = self.all_gather_object(describe_error(error) if error else None)
        other = next((f"worker {rank}: {text}" for rank, text in enumerate(texts) if text), None)
        return error or (OtherWorkerError(other) if other else None)

    def run_on_all_ranks(self, call: Callable[[], ResultT]) -> ResultT:
        """Run a call on every rank and return this rank's result.

        Args:
            call: function that makes no collective calls itself.

        Raises:
            Exception: on every rank, if the call raised on any rank.
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
            with _raise_lost_worker():
                dist.all_reduce(tensor)

    def broadcast_parameters(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors of all ranks by those of rank 0.

        Args:
            tensors: tensors on one device, of the same shapes on all ranks.
        """
        if self.size == 1 or not tensors:
            return
        with torch.no_grad(), _raise_lost_worker():
            flat = torch.cat([tensor.float().reshape(-1) for tensor in tensors])
            dist.broadcast(flat, src=0)
            for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(values.view_as(tensor))


ALONE = Ranks()


@contextmanager
def _raise_lost_worker() -> Iterator[None]:
    # torch.distributed reports a dead peer as a plain RuntimeError, which would pass for a trial's own.
    try:
        yield
    except RuntimeError as error:
        raise LostWorkerError(f"a worker of the lane is gone: {describe_error(error)}") from error


def _pack_frame(payload: bytes) -> tuple[Tensor, Tensor]:
    """Split a payload into a frame of fixed size, which starts with the length, and the rest.

    The receivers know the size of a frame in advance, so that a short message takes one collective call and not two.
    """
    head = len(payload).to_bytes(LENGTH_BYTES, "little") + payload[: FRAME_BYTES - LENGTH_BYTES]
    return _as_tensor(head.ljust(FRAME_BYTES, b"\0")), _as_tensor(payload[FRAME_BYTES - LENGTH_BYTES :])


def _as_tensor(payload: bytes) -> Tensor:
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.empty(0, dtype=torch.uint8)


def _payload_length(frame: Tensor) -> int:
    return int.from_bytes(frame[:LENGTH_BYTES].numpy().tobytes(), "little")


def _unpack_frame(frame: Tensor, rest: Tensor) -> bytes:
    return (frame[LENGTH_BYTES:].numpy().tobytes() + rest.numpy().tobytes())[: _payload_length(frame)]
