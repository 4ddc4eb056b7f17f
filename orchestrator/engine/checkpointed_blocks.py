"""Transformer blocks that keep their inputs alone for the backward pass, which computes everything else again.

A step then needs the memory of one block, and an input per block, and its forward pass runs twice (Chen et al., 2016,
arXiv:1604.06174). transformers' own switch does this for blocks of its own base class, in training mode, in which
frozen layers never are here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from methods.base.architecture import blocks
from methods.base.spec import MethodError
from orchestrator.engine.random_stream import RandomStream, restored_generators


def block_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's blocks, from the input up; none where it has no blocks."""
    try:
        return tuple(block.name for block in blocks(model))
    except MethodError:
        return ()


def checkpoint_blocks(view: nn.Module, names: Iterable[str], device: torch.device) -> None:
    """Let blocks of a view run twice in a training step, with the same random numbers; without gradients, once.

    The second run is in the backward pass, where no neighbour waits for its products: the trial has to train alone.

    Args:
        view: view with the method attached.
        names: names of the blocks.
        device: device of the backbone.
    """
    for name in names:
        block = view.get_submodule(name)
        block.forward = partial(_run_checkpointed, block.forward, device)


def _run_checkpointed(forward: Callable[..., Any], device: torch.device, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # torch would keep the random state of every GPU of the arguments, and none of a keyword argument's.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return checkpoint(partial(_run, forward), *args, context_fn=partial(_random_contexts, device), **options, **kwargs)


def _run(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a block on key-value pairs of its own: a block adds to them, and the second run would do so again."""
    return forward(*map(_copy_cache, args), **{name: _copy_cache(value) for name, value in kwargs.items()})


def _random_contexts(device: torch.device) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _random_numbers_of(RandomStream.capture(device))


@contextmanager
def _random_numbers_of(stream: RandomStream) -> Iterator[None]:
    with restored_generators(stream.device):
        stream.restore()
        yield


def _copy_cache(value: Any) -> Any:
    """Return a copy of a cache that shares its tensors; anything else as it is."""
    if not isinstance(value, Cache):
        return value
    duplicate = copy.copy(value)
    for name, part in vars(value).items():
        if isinstance(part, list):
            setattr(duplicate, name, [copy.copy(layer) for layer in part])
        else:
            setattr(duplicate, name, dict(part) if isinstance(part, dict) else _copy_cache(part))
    return duplicate
