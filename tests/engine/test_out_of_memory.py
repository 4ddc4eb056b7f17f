"""Errors for too little memory: which they are, what they hold, and the one repetition."""

from __future__ import annotations

import traceback
import weakref

import pytest
import torch

from orchestrator.engine.out_of_memory import drop_frames, is_out_of_memory, retry_with_released_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
    ids=["torch", "python", "processor", "cublas", "cudnn", "driver"],
)
def test_out_of_memory_errors_are_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "outcome",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        ValueError("CUDA out of memory"),
        torch.zeros(()),
    ],
    ids=["assert", "cublas", "value", "loss"],
)
def test_out_of_memory_is_told_from_other_outcomes(outcome: object) -> None:
    assert not is_out_of_memory(outcome)


def fail_with(tensors: list[weakref.ref[torch.Tensor]]) -> None:
    """Raise an error, raised from another one, both with a tensor in their frames."""
    held = torch.zeros(3)
    tensors.append(weakref.ref(held))
    if len(tensors) == 2:
        raise torch.OutOfMemoryError("no room")
    try:
        fail_with(tensors)
    except torch.OutOfMemoryError as error:
        raise RuntimeError("CUDA out of memory, raised again") from error


def test_dropped_frames_hold_no_tensors_and_can_be_printed() -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []
    errors: list[Exception] = []
    try:
        fail_with(tensors)
    except RuntimeError as error:
        errors.append(error)
    assert all(tensor() is not None for tensor in tensors)
    drop_frames(errors[0])
    assert [tensor() for tensor in tensors] == [None, None]
    assert "in fail_with" in "".join(traceback.format_exception(errors[0]))


def test_retry_begins_with_nothing_of_the_failed_call() -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []
    events: list[str] = []

    def call() -> str:
        if not tensors:
            events.append("fails")
            fail_with(tensors)
        assert [tensor() for tensor in tensors] == [None, None]
        return "done"

    assert retry_with_released_memory(call, lambda: events.append("freed"), CPU) == "done"
    assert events == ["fails", "freed"]


@pytest.mark.parametrize(("error", "calls"), [(torch.OutOfMemoryError("no room"), 2), (ValueError("no"), 1)])
def test_retry_is_for_one_shortage_of_memory(error: Exception, calls: int) -> None:
    made: list[int] = []

    def call() -> None:
        made.append(1)
        raise error

    with pytest.raises(type(error)):
        retry_with_released_memory(call, lambda: None, CPU)
    assert len(made) == calls
