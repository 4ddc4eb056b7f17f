"""bitsandbytes, imported without torch's compiler.

It compiles a few kernels as it is imported, which takes a second of every process. They stand in where a device has
none of bitsandbytes' own, and compute the same as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch


def _as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return function or _as_it_is


with patch.object(torch, "compile", _as_it_is):
    from bitsandbytes import functional as functional
