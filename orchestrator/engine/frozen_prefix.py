"""The frozen lowest blocks, computed once per row for all trials that leave them unchanged.

Every trial sees the same rows, and frozen layers run in evaluation mode, so their activations for a row are the same
for every trial, step and epoch. They are cached in the worker's own memory and not in Ray's object store: the
activations of a row take about ten kilobytes, which takes about as long to read from there as to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from greenlet import getcurrent
from torch import Tensor, nn

from methods.base.architecture import blocks
from methods.base.spec import MethodError
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.activation_cache import ActivationCache
from orchestrator.engine.frozen_depth import CallOrder
from orchestrator.engine.memory import available_bytes

FREE_MEMORY_FRACTION = 0.125
MAX_CACHE_BYTES = 2 * 2**30


class FrozenPrefix:
    """The lowest blocks of a backbone, and a cache of their activations.

    The cache key of a row is its tokens and their types, so that splits and padding do not matter.

    Args:
        backbone: backbone, which stays unchanged.
        limit_bytes: most bytes of cached activations; by default an eighth of the free memory, at most 2 GiB.
    """

    def __init__(self, backbone: SharedBackbone, limit_bytes: int | None = None) -> None:
        self._bare, self._model = backbone.model, backbone.view(0)
        self._head, self._device = backbone.context.head, backbone.device
        self._cache = ActivationCache(_default_limit_bytes(self._device) if limit_bytes is None else limit_bytes)
        self._passes: dict[Any, _Pass] = {}
        self._depths: set[int] = set()
        for depth, name in enumerate(self.block_names, 1):
            self._model.get_submodule(name).register_forward_hook(self._record_activations(depth))

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        """Names of the blocks, from the input up; none for encoder-decoders and architectures without blocks."""
        if getattr(self._model.config, "is_encoder_decoder", False):
            return ()
        with suppress(MethodError):
            return tuple(block.name for block in blocks(self._model))
        return ()

    @property
    def cached_bytes(self) -> int:
        """Bytes of the cached activations."""
        return self._cache.bytes

    def clear(self) -> None:
        """Drop the cached activations; rows are computed again when they are asked for."""
        self._cache.clear()

    def depth(self, view: nn.Module, active: Sequence[nn.Module]) -> int:
        """Return how many of the lowest blocks, with everything before them, a method leaves unchanged.

        Args:
            view: view of the same backbone with the method attached.
            active: modules that are in training mode while the trial trains.
        """
        return self._call_order.frozen_depth(view, active) if self.block_names else 0

    def activations(self, depth: int, input_ids: Tensor, mask: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Return the output of the lowest blocks, without gradients; cached rows are not computed again.

        Args:
            depth: number of blocks.
            input_ids: token ids of shape ``(rows, tokens)``, on any device.
            mask: tensor of that shape, 0 at padding, which may be on either side.
            token_types: type of each token, of that shape; the model's default types if left out.

        Returns:
            Tensor of shape ``(rows, tokens, width)`` on the backbone's device, 0 at padding.
        """
        self._depths.add(depth)
        # Batches come from the dataset, on the processor, or from a view on the backbone's device. Keys and positions
        # are read on the processor, and the states stay on the device.
        inputs, real = {"input_ids": input_ids.cpu()}, mask.cpu().bool()
        if token_types is not None:
            inputs["token_type_ids"] = token_types.cpu()
        keys = _row_keys(inputs, real)
        by_row = {key: self._cache.get((depth, key)) for key in keys}
        missing = [k for k, key in enumerate(keys) if by_row[key] is None]
        if missing:
            by_row |= self._compute(
                depth,
                {name: tensor[missing] for name, tensor in inputs.items()},
                real[missing],
                [keys[k] for k in missing],
            )
        states = torch.cat([state for key in keys if (state := by_row[key]) is not None])
        padded = states.new_zeros(*real.shape, states.shape[-1])
        padded[real.to(states.device)] = states
        return padded

    @cached_property
    def _call_order(self) -> CallOrder:
        return CallOrder.record(self._bare, self.block_names, self._head)

    def _compute(
        self, depth: int, inputs: dict[str, Tensor], real: Tensor, keys: Sequence[bytes]
    ) -> dict[bytes, Tensor]:
        """Run one pass up to a depth; activations at smaller depths that other trials use are cached as well."""
        columns = real.any(dim=0)
        real = real[:, columns]
        arguments = {name: tensor[:, columns].to(self._device) for name, tensor in inputs.items()}
        forward = self._passes[getcurrent()] = _Pass(depth)
        try:
            with torch.no_grad(), suppress(_DepthReachedError):
                self._model(**arguments, attention_mask=real.long().to(self._device))
        finally:
            del self._passes[getcurrent()]
        counts, real_on_device = real.sum(dim=1).tolist(), real.to(self._device)
        rows: dict[bytes, Tensor] = {}
        for reached, states in forward.states.items():
            rows = dict(zip(keys, (state.clone() for state in states[real_on_device].split(counts)), strict=True))
            for key, state in rows.items():
                self._cache.put((reached, key), state)
        return rows

    def _record_activations(self, depth: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            forward = self._passes.get(getcurrent())
            if forward and depth in self._depths:
                forward.states[depth] = output[0] if isinstance(output, tuple) else output
            if forward and depth == forward.depth:
                raise _DepthReachedError

        return hook


def _row_keys(inputs: dict[str, Tensor], real: Tensor) -> list[bytes]:
    """Return a key of each row's numbers without the padding; rows with types of tokens have longer ones."""
    arrays = [tensor.numpy() for tensor in inputs.values()]
    rows = enumerate(real.numpy())
    return [b"".join(array[row][tokens].tobytes() for array in arrays) for row, tokens in rows]


@dataclass
class _Pass:
    """A running pass that ends at ``depth``. A pack may have several at once, each in a greenlet of its own."""

    depth: int
    states: dict[int, Tensor] = field(default_factory=dict)


class _DepthReachedError(Exception):
    """Ends a pass: the rest of the model is not needed."""


def _default_limit_bytes(device: torch.device) -> int:
    return int(min(FREE_MEMORY_FRACTION * available_bytes(device), MAX_CACHE_BYTES))
