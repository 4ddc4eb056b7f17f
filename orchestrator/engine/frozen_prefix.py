"""The frozen lower blocks, run once per row for all trials that leave them alone.

Every trial sees the same rows, and frozen layers run in evaluation mode, so that what they make of a row is the same
for every trial, at every step and in every epoch. It is kept in the lane's own memory: a row takes some ten kilobytes,
and asking the object store for it takes about as long as to compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psutil
import torch
from greenlet import getcurrent
from torch import Tensor, nn

from methods.base.architecture import blocks
from methods.base.spec import MethodError
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.activation_cache import ActivationCache
from orchestrator.engine.frozen_depth import CallOrder

SHARE, MOST = 0.125, 2 * 2**30
Key = tuple[int, bytes]


class FrozenPrefix:
    """The blocks of a backbone, counted from the input, and what they made of rows.

    Rows are known by their tokens, so that splits and padding do not matter.

    Args:
        backbone: never changed.
        most: bytes that states may take; an eighth of the free memory and two GiB at most if left out.
    """

    def __init__(self, backbone: SharedBackbone, most: int | None = None) -> None:
        self._bare, self._model = backbone.model, backbone.view(0)
        self._head = backbone.context.head
        self._kept = ActivationCache(_micro_batch_memory() if most is None else most)
        self._passes: dict[Any, _Pass] = {}
        self._levels: set[int] = set()
        for level, name in enumerate(self.names, 1):
            self._model.get_submodule(name).register_forward_hook(self._at(level))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the blocks; none where the architecture has an encoder and a decoder, or nothing like blocks."""
        if getattr(self._model.config, "is_encoder_decoder", False):
            return ()
        with suppress(MethodError):
            return tuple(block.name for block in blocks(self._model))
        return ()

    @property
    def held_bytes(self) -> int:
        """What the kept states take."""
        return self._kept.bytes

    def level(self, view: nn.Module, active: Sequence[nn.Module]) -> int:
        """How many of the lowest blocks, and everything before them, a method has left alone.

        Args:
            view: of the same backbone, with the method attached.
            active: the modules that are in training mode while the trial trains.
        """
        return self._order.frozen_depth(view, active) if self.names else 0

    def states(self, level: int, input_ids: Tensor, mask: Tensor) -> Tensor:
        """What the lowest blocks make of rows, without gradients.

        Args:
            level: how many blocks.
            input_ids: of shape ``(rows, tokens)``.
            mask: of that shape, 0 where there is padding, on either side.

        Returns:
            shape ``(rows, tokens, width)``, 0 at the padding.
        """
        self._levels.add(level)
        real = mask.bool()
        tokens = [ids[kept].tobytes() for ids, kept in zip(input_ids.cpu().numpy(), real.cpu().numpy(), strict=True)]
        found = {row: self._kept.get((level, row)) for row in tokens}
        new = [k for k, row in enumerate(tokens) if found[row] is None]
        if new:
            found |= self._computed(level, input_ids[new], real[new], [tokens[k] for k in new])
        states = torch.cat([state for row in tokens if (state := found[row]) is not None])
        out = states.new_zeros(*input_ids.shape, states.shape[-1])
        out[real] = states
        return out

    @cached_property
    def _order(self) -> CallOrder:
        return CallOrder.of(self._bare, self.names, self._head)

    def _computed(self, level: int, input_ids: Tensor, real: Tensor, tokens: Sequence[bytes]) -> dict[bytes, Tensor]:
        """One pass up to the level; what it meets at the lower levels of others is kept as well."""
        columns = real.any(dim=0)
        input_ids, real = input_ids[:, columns], real[:, columns]
        here = self._passes[getcurrent()] = _Pass(level)
        try:
            with torch.no_grad(), suppress(_ReachedError):
                self._model(input_ids=input_ids, attention_mask=real.long())
        finally:
            del self._passes[getcurrent()]
        counts = real.sum(dim=1).tolist()
        rows: dict[bytes, Tensor] = {}
        for passed, states in here.states.items():
            rows = dict(zip(tokens, (state.clone() for state in states[real].split(counts)), strict=True))
            for row, state in rows.items():
                self._kept.put((passed, row), state)
        return rows

    def _at(self, level: int) -> Any:
        def reached(_: nn.Module, __: Any, output: Any) -> None:
            here = self._passes.get(getcurrent())
            if here and level in self._levels:
                here.states[level] = output[0] if isinstance(output, tuple) else output
            if here and level == here.level:
                raise _ReachedError

        return reached


@dataclass
class _Pass:
    """One of several that may be under way, each in a greenlet of its own."""

    level: int
    states: dict[int, Tensor] = field(default_factory=dict)


class _ReachedError(Exception):
    """Nobody asks for the rest of the model."""


def _micro_batch_memory() -> int:
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    return int(min(SHARE * free, MOST))
