"""Versions of Python and of the packages that influence the result of a trial."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("peft-sweep", "torch", "transformers", "peft", "bitsandbytes", "optuna", "ray", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Return the installed versions by package name, without packages that are not installed."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
