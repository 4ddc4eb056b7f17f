"""LoRA that can be made to hang: the plugin of the sweeps that faults are tried on.

A lane hangs where it finds a file ``hang in training`` or ``hang in scoring`` in the folder that ``CHAOS_FOLDER``
names, which it removes: the next attempt goes on. Only work of which a time is known hangs, since a first step or a
first evaluation may load libraries for minutes.
"""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import methods
import search_spaces
from methods import Attached, Context, blocks

FIRST_PASSES = 2
_scored = {"phases": 0, "is_scoring": False}


class HangPoint:
    """Runs after the first block, in every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, _: nn.Module, __: Any, ___: Any) -> None:
        """Wait for ever if there is a file that asks for it."""
        folder = os.environ.get("CHAOS_FOLDER")
        if folder is None or "TrainingThread" not in threading.current_thread().name:
            return
        is_scoring = not torch.is_grad_enabled()
        _scored["phases"] += is_scoring and not _scored["is_scoring"]
        _scored["is_scoring"] = is_scoring
        self.passes += not is_scoring
        if (_scored["phases"] if is_scoring else self.passes) > FIRST_PASSES:
            try:
                (Path(folder) / f"hang in {'scoring' if is_scoring else 'training'}").unlink()
            except FileNotFoundError:
                return
            threading.Event().wait()


def attach(view: nn.Module, params: Any, context: Context) -> Attached:
    """Attach LoRA, and a point where the lane may hang."""
    attached = methods.get("lora").attach(view, params, context)
    blocks(view, context.layers)[0].module.register_forward_hook(HangPoint())
    return attached


SPEC = replace(methods.get("lora"), name="chaos_lora", attach=attach)
SPACE = search_spaces.get("lora")
