"""The name of a GPU and the versions of what multiplies on it: floating-point sums depend on all of them."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

CUBLAS_PACKAGES = ("nvidia-cublas", "nvidia-cublas-cu12")
"""Packages that bring cuBLAS with PyTorch, of CUDA 13 and 12; torch itself does not tell its version."""


def gpu_identity(device: torch.device) -> dict[str, str]:
    """Return ``gpu``, ``cuda`` and ``cublas`` of a device; nothing for a processor, and empty texts where unknown."""
    if device.type != "cuda":
        return {}
    name = torch.cuda.get_device_name(device)
    return {"gpu": name, "cuda": torch.version.cuda or "", "cublas": _cublas_version()}


def _cublas_version() -> str:
    for package in CUBLAS_PACKAGES:
        with suppress(PackageNotFoundError):
            return version(package)
    return ""
