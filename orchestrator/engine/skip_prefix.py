"""A trial's view that starts above the frozen prefix, with the prefix's cached activations as its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from orchestrator.engine.frozen_prefix import FrozenPrefix

SKIPPABLE_ARGUMENTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "labels", "return_dict"})


class SkipPrefix:
    """Lets a view skip its lowest blocks inside :meth:`enabled`.

    Only calls with token ids, mask, token types and labels skip them. Calls with anything else (key-value pairs,
    embeddings instead of tokens) run the whole model, and so do all calls outside of :meth:`enabled`.

    Args:
        view: view with the method attached.
        prefix: frozen prefix of the same backbone.
        depth: number of blocks to skip, at least one.
    """

    @classmethod
    def attach(cls, prefix: FrozenPrefix, view: nn.Module, active: Sequence[nn.Module]) -> Self | None:
        """Skip all blocks that a method leaves unchanged; ``None`` if it changes the lowest.

        Args:
            prefix: frozen prefix of the backbone.
            view: view with the method attached.
            active: modules that are in training mode while the trial trains.
        """
        depth = prefix.depth(view, active)
        return cls(view, prefix, depth) if depth else None

    def __init__(self, view: nn.Module, prefix: FrozenPrefix, depth: int) -> None:
        self._prefix, self.depth = prefix, depth
        self._enabled = False
        self._state: Tensor | None = None
        view.register_forward_pre_hook(self._begin, with_kwargs=True)
        view.register_forward_hook(self._end, always_call=True)
        for number, name in enumerate(prefix.block_names[:depth], 1):
            block = view.get_submodule(name)
            block.forward = partial(self._run_block, number, block.forward)

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """Let calls inside skip the prefix."""
        self._enabled = True
        try:
            yield
        finally:
            self._enabled = False

    def cache_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Compute the prefix's activations for a batch before the trials of a pack ask for them at once."""
        self._prefix.activations(self.depth, batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        arguments = {name for name, value in kwargs.items() if value is not None}
        if self._enabled and not args and ids is not None and mask is not None and arguments <= SKIPPABLE_ARGUMENTS:
            self._state = self._prefix.activations(self.depth, ids, mask, kwargs.get("token_type_ids"))

    def _end(self, *_: Any) -> None:
        self._state = None

    def _run_block(self, number: int, forward: Any, *args: Any, **kwargs: Any) -> Any:
        if self._state is None:
            return forward(*args, **kwargs)
        if number == self.depth:
            return self._state
        return kwargs.get("hidden_states", args[0] if args else None)
