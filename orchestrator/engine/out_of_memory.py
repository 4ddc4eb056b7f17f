"""Too little memory: recognize the error, let go of what it holds, and free what can be had again."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FreeMemory = Callable[[], None]
"""Lets go of tensors that can be had again: paused trials that have a checkpoint, cached activations."""
MESSAGES = (
    "CUDA out of memory",
    "CUDA error: out of memory",  # of the driver, and of allocations beside torch's allocator
    "_STATUS_ALLOC_FAILED",  # of cuBLAS, cuDNN, cuSOLVER and cuSPARSE, for their workspaces
    "DefaultCPUAllocator",
)
"""What errors other than torch's own class say. bitsandbytes allocates by torch, except pages: if the driver refuses
those, its library prints an error and ends the process, which no program can catch."""


def no_memory_to_free() -> None:
    """Let go of nothing: for trials outside of a lane, beside which nothing is kept."""


def is_out_of_memory(outcome: object) -> bool:
    """Return whether this is an error for too little memory, on a GPU or on a processor."""
    if isinstance(outcome, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(outcome, RuntimeError) and any(message in str(outcome) for message in MESSAGES)


def drop_frames(error: Exception) -> Exception:
    """Return an error whose traceback holds no tensors any more; it can still be printed.

    The frames of a traceback keep the local variables of every function that the error ended: a pass's inputs, its
    activations and, through them, its graph. A repeated pass would have to fit beside them.

    Args:
        error: error that the caller has just caught.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if id(link) not in seen:
            seen.add(id(link))
            # The first frame is the caller's, which still runs and cannot be cleared.
            link.__traceback__ = link.__traceback__ and link.__traceback__.tb_next
            traceback.clear_frames(link.__traceback__)
            pending += [other for other in (link.__cause__, link.__context__) if other]
    return error


def release_memory(free_memory: FreeMemory, device: torch.device) -> None:
    """Free what can be had again, and return freed memory to the device, in one piece.

    Args:
        free_memory: function that lets go of tensors.
        device: device that is short of memory.
    """
    free_memory()
    gc.collect()  # module trees are full of cycles
    if device.type == "cuda":
        torch.cuda.empty_cache()


def retry_with_released_memory(call: Callable[[], ResultT], free_memory: FreeMemory, device: torch.device) -> ResultT:
    """Return the result of a call that is repeated once, with released memory, if it runs out of memory.

    Args:
        call: call that can be repeated after it has run out of memory.
        free_memory: as for :func:`release_memory`.
        device: as for :func:`release_memory`.
    """
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.warning("out of memory, tried again with released memory: %s", drop_frames(error))
    # Outside of the except block, nothing refers to the error.
    release_memory(free_memory, device)
    return call()
