"""Errors of a device, and whether it still computes after one.

Some errors of a GPU are sticky: after a failed assertion in a kernel, an illegal access or a fault of the hardware,
every later call of the process fails as well. The trial that happens to be at work is not at fault, and neither is the
next: only a new process helps.
"""

from __future__ import annotations

import torch

from orchestrator.common.errors import describe_error
from orchestrator.engine.out_of_memory import is_out_of_memory

MESSAGES = (
    "AcceleratorError",  # another worker's, which arrives as text
    "CUDA error",
    "CUDA driver error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "CUSOLVER_STATUS",
    "CUSPARSE_STATUS",
    "NCCL",
    "device-side assert",
    "Xid",
)
"""What errors other than torch's own class say. Not all are sticky, which is why the device is tried out."""


class BrokenDeviceError(BaseException):
    """The device does not compute any more in this process. The process ends, and Ray Train starts another.

    It is a ``BaseException``, so that code that turns an ``Exception`` into a failed trial does not catch it: no trial
    is known to be at fault.
    """


def is_device_error(error: BaseException) -> bool:
    """Return whether an error may come from a device that is unusable from now on; too little memory is none."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def device_computes(device: torch.device) -> bool:
    """Try a tiny computation on a device, and return whether it succeeds.

    Reading the number waits for the device, whose errors are reported late; every pending error appears here too.
    """
    try:
        return float(torch.zeros(1, device=device).add(1)) == 1.0
    except Exception as error:
        # Too little memory for one number says nothing of the device: the process's memory is freed by then, or not.
        return is_out_of_memory(error)


def breaks_device(error: BaseException, device: torch.device) -> bool:
    """Return whether an error has left the device unusable for this process."""
    return is_device_error(error) and not device_computes(device)


def broken_device(error: BaseException, device: torch.device) -> BrokenDeviceError:
    """Return the error that ends a worker whose device, or that of another worker of its lane, is unusable."""
    return BrokenDeviceError(f"{device.type} cannot be used by this process any more: {describe_error(error)}")
