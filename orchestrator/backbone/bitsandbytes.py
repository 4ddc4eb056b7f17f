"""bitsandbytes, imported without torch's compiler.

On import, bitsandbytes compiles a few fallback kernels for devices without kernels of its own, which would take a
second in every process. Uncompiled, they compute the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch


def _leave_uncompiled(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return function or _leave_uncompiled


# It looks for an optional package of kernels, and warns at length in every process where that is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
with patch.object(torch, "compile", _leave_uncompiled):
    from bitsandbytes import functional as functional
