"""A trial's view without its lower blocks, while the trunk knows what they make of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from orchestrator.engine.frozen_prefix import FrozenPrefix

READ = ("input_ids", "attention_mask", "labels", "return_dict")


class SkipPrefix:
    """Between :meth:`active` and its end, calls with nothing but rows begin above the untouched blocks.

    Calls with anything else (key-value pairs, embeddings in the place of tokens, and so on) are whole, and so are all
    calls outside.

    Args:
        view: with the method attached.
        prefix: of the same backbone.
        level: how many blocks to leave out, at least one.
    """

    @classmethod
    def above(cls, prefix: FrozenPrefix, view: nn.Module, active: Sequence[nn.Module]) -> Self | None:
        """Above all blocks that a method has left alone; ``None`` where those are none.

        Args:
            prefix: of the backbone.
            view: with the method attached.
            active: the modules that are in training mode while the trial trains.
        """
        level = prefix.level(view, active)
        return cls(view, prefix, level) if level else None

    def __init__(self, view: nn.Module, prefix: FrozenPrefix, level: int) -> None:
        self._prefix, self._level = prefix, level
        self._on = False
        self._state: Tensor | None = None
        view.register_forward_pre_hook(self._begin, with_kwargs=True)
        view.register_forward_hook(self._end, always_call=True)
        for number, name in enumerate(prefix.names[:level], 1):
            block = view.get_submodule(name)
            block.forward = partial(self._block, number, block.forward)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Calls inside may begin above."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def prepare(self, batch: Mapping[str, Tensor]) -> None:
        """Let the trunk know rows that will be asked for soon."""
        self._prefix.states(self._level, batch["input_ids"], batch["attention_mask"])

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        given = {name for name, value in kwargs.items() if value is not None}
        if self._on and not args and ids is not None and mask is not None and given <= set(READ):
            self._state = self._prefix.states(self._level, ids, mask)

    def _end(self, *_: Any) -> None:
        self._state = None

    def _block(self, number: int, whole: Any, *args: Any, **kwargs: Any) -> Any:
        if self._state is None:
            return whole(*args, **kwargs)
        if number == self._level:
            return self._state
        return kwargs.get("hidden_states", args[0] if args else None)
