"""Which trials of a pack run the bodies of their models as one, and their joint passes.

A trial joins if its method leaves the body's call as it is: tokens or embeddings and a mask in, hidden states out.
Prefixes change attention itself, models without a body of their own (encoder-decoders) have nothing to join at, and
a trial that starts above the frozen prefix skips most of the body; these run in lockstep with the joint pass.
"""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from orchestrator.engine.pack_view import PADDED, PackView, body_of, has_same_containers, shape_of
from orchestrator.engine.packing import Fork, bodies_join, run_body

if TYPE_CHECKING:
    from orchestrator.engine.trial_run import TrialRun

INPUTS = frozenset({"input_ids", "inputs_embeds"})
MAX_WASTE = 0.2
"""Largest part of the tokens of a joint pass that may be padding which the trials' own batches do not have."""
MIN_TOKENS = 1024
"""Tokens of a joint pass up to which padding does not matter: reading the weights takes longer than the products."""


def let_body_join(model: nn.Module, bare: nn.Module) -> bool:
    """Let the body of a trial's model wait for others in packed passes; return whether it can.

    Args:
        model: view with the trial's method.
        bare: the backbone's model without any method.
    """
    body, bare_body = body_of(model), body_of(bare)
    if body is None or bare_body is None or "forward" in body.__dict__ or not has_same_containers(bare_body, body):
        return False
    body.forward = _joining(body.forward)
    return True


def _joining(forward: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(forward)

    @functools.wraps(forward)  # peft looks at the signature
    def join(*args: Any, **kwargs: Any) -> Any:
        if not bodies_join():
            return forward(*args, **kwargs)
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        arguments |= arguments.pop("kwargs", {})
        given = {name: value for name, value in arguments.items() if value is not None}
        tensors = {name for name, value in given.items() if isinstance(value, Tensor)}
        if not tensors & INPUTS or not tensors <= PADDED or "past_key_values" in given:
            return forward(*args, **kwargs)
        return run_body(forward, given)

    return join


class JointPasses:
    """The joint passes of a packed pass.

    Args:
        runs: trials of the packed pass, by number.
    """

    def __init__(self, runs: Sequence[TrialRun]) -> None:
        self._runs = runs
        self._views: list[PackView] = []

    def groups(self, trials: Sequence[int], arguments: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Return the trials that run together: those with alike arguments, of lengths that waste little."""
        alike: dict[Any, list[tuple[int, int, int, bool]]] = defaultdict(list)
        for trial, given in zip(trials, arguments, strict=True):
            if not self._runs[trial].joins:
                continue
            rest = ((name, value) for name, value in given.items() if name not in INPUTS)
            key = tuple(sorted((name, None if isinstance(value, Tensor) else value) for name, value in rest))
            rows, width = shape_of(given)
            alike[key].append((width, trial, rows, self._runs[trial].draws_random_numbers))
        return [sorted(group) for same in alike.values() for group in _by_width(sorted(same)) if len(group) > 1]

    def run(self, trials: Sequence[int], arguments: Sequence[Mapping[str, Any]], fork: Fork) -> list[Any]:
        """Return the output of each trial's body."""
        runs = [self._runs[trial] for trial in trials]
        view = runs[0].pack_view(runs)
        self._views.append(view)
        return view.run(trials, arguments, fork)

    def write_gradients(self) -> None:
        """Add the gradients of stacked parameters to the trials' own; called after the backward pass."""
        for view in self._views:
            view.write_gradients()


def _by_width(trials: Sequence[tuple[int, int, int, bool]]) -> list[list[int]]:
    """Divide trials from narrow to wide into groups that waste little.

    A trial that draws random numbers is padded by none: it would draw others for other shapes.

    Args:
        trials: width, number and rows of each, and whether it draws.
    """
    groups: list[list[int]] = []
    rows = tokens = 0
    drawn_width: int | None = None
    for width, trial, count, draws in trials:
        rows, tokens = rows + count, tokens + count * width
        wasted = rows * width - tokens
        too_wide = rows * width > MIN_TOKENS and wasted > MAX_WASTE * rows * width
        if not groups or too_wide or drawn_width not in (None, width):
            groups.append([])
            rows, tokens, drawn_width = count, count * width, None
        groups[-1].append(trial)
        drawn_width = width if draws else drawn_width
    return groups
