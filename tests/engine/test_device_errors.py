"""Which errors may leave a device unusable, and whether it is tried out after one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.engine.device_errors import breaks_device, broken_device, device_computes, is_device_error
from orchestrator.engine.ranks import OtherWorkerError

CPU = torch.device("cpu")
ASSERTED = "CUDA error: device-side assert triggered"


class StickyError(TorchDispatchMode):
    """A device whose every call fails from now on."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "profiler":  # asks no device
            return function(*args, **(kwargs or {}))
        raise torch.AcceleratorError(ASSERTED)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(ASSERTED),
        RuntimeError(f"{ASSERTED}\nCUDA kernel errors might be reported asynchronously"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("NCCL Error 1: unhandled cuda error"),
        OtherWorkerError("worker 1: AcceleratorError: an illegal memory access was encountered"),
    ],
)
def test_device_error_is_recognized(error: Exception) -> None:
    assert is_device_error(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("the text 'CUDA error' in a value"),
        OSError("no space left"),
    ],
)
def test_device_error_is_neither_memory_nor_a_trials_own(error: Exception) -> None:
    assert not is_device_error(error)


def test_device_error_breaks_only_a_device_that_fails_again() -> None:
    error = torch.AcceleratorError(ASSERTED)
    assert not breaks_device(error, CPU), "it computes: the trial failed by itself"
    with StickyError():
        assert not device_computes(CPU)
        assert breaks_device(error, CPU)
        assert not breaks_device(ValueError("rank must be positive"), CPU), "the device is not asked for other errors"
    assert device_computes(CPU)


def test_broken_device_error_names_the_first_error() -> None:
    error = broken_device(torch.AcceleratorError(ASSERTED), CPU)
    assert not isinstance(error, Exception), "it must not pass for a trial's own"
    assert str(error) == f"cpu cannot be used by this process any more: AcceleratorError: {ASSERTED}"
