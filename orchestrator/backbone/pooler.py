"""Models without a head: some have a pooler, whose output nothing reads."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

HEADLESS = "AutoModel"
"""The transformers class of models without a head."""


def remove_pooler(model: nn.Module, auto_class: str) -> None:
    """Remove the pooler of a model without a head, so that no method trains it; other models stay as they are.

    Args:
        model: Model of transformers.
        auto_class: Name of the transformers class that it was built by.
    """
    build: Any = type(model).__init__
    if auto_class == HEADLESS and "add_pooling_layer" in inspect.signature(build).parameters:
        # As the constructor does with add_pooling_layer=False.
        model.pooler = None  # type: ignore[assignment]  # torch takes it for a module, which cannot be None
