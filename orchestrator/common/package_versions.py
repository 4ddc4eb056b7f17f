"""What is installed here, as far as it has a say in what a trial comes to."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("peft-sweep", "torch", "transformers", "peft", "bitsandbytes", "optuna", "ray", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Version by name; packages that are not installed are missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
