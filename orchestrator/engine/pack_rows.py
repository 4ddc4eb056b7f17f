"""How the rows of a joint pass belong to its trials, and their division into parts and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor
from transformers.utils.generic import ModelOutput

from orchestrator.engine.packing import Fork
from orchestrator.engine.row_parts import join_tensors, split_tensor

OwnerT = TypeVar("OwnerT")


@dataclass
class PassRows:
    """How the rows of the present joint pass belong to its trials; shared by all sites.

    Args:
        counts: rows of each trial, one below the other.
        trials: number of each trial.
        fork: runs calls in lockstep.
    """

    counts: Sequence[int] = ()
    trials: Sequence[int] = ()
    fork: Fork = field(default=lambda calls: [call.call() for call in calls])
    _masks: dict[Hashable, Tensor] = field(default_factory=dict)

    def begin(self, counts: Sequence[int], trials: Sequence[int], fork: Fork) -> None:
        """Begin another pass."""
        if counts != self.counts:
            self._masks.clear()
        self.counts, self.trials, self.fork = counts, trials, fork

    def mask(self, values: Sequence[bool], lengths: Sequence[int], like: Tensor) -> Tensor:
        """Return a column with 1 in the rows of some parts of a batch, to multiply tensors like another one with.

        Args:
            values: whether each part has ones.
            lengths: rows of each part.
            like: tensor of shape ``(sum(lengths), ...)``.
        """
        key = tuple(values), tuple(lengths), like.dim(), like.dtype
        if key not in self._masks:
            ones = [float(value) for value, length in zip(values, lengths, strict=True) for _ in range(length)]
            self._masks[key] = like.new_tensor(ones).view(-1, *[1] * (like.dim() - 1))
        return self._masks[key]


class Segments(Generic[OwnerT]):
    """The batch of a joint pass as the fewest parts whose rows have one owner each.

    Args:
        owners: owner of each trial's rows.
        counts: rows of each trial.

    Attributes:
        owners: owner of each part.
        counts: rows of each part.
    """

    def __init__(self, owners: Sequence[OwnerT], counts: Sequence[int]) -> None:
        self.owners: list[OwnerT] = []
        self.counts: list[int] = []
        for owner, count in zip(owners, counts, strict=True):
            if self.owners and self.owners[-1] is owner:
                self.counts[-1] += count
            else:
                self.owners.append(owner)
                self.counts.append(count)
        self._split: dict[int, Sequence[Tensor]] = {}

    def arguments(
        self, owner: OwnerT, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call with an owner's rows alone."""
        return [self._part(value, owner) for value in args], {
            name: self._part(value, owner) for name, value in kwargs.items()
        }

    def _part(self, value: Any, owner: OwnerT) -> Any:
        if isinstance(value, tuple):
            return tuple(self._part(item, owner) for item in value)
        # Tensors of one dimension are positions; one row is meant for all.
        if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] == 1:
            return value
        if id(value) not in self._split:
            self._split[id(value)] = split_tensor(value, lengths(value, self.counts))
        return self.join(self._split[id(value)], owner)

    def join(self, parts: Sequence[Tensor], owner: OwnerT) -> Tensor:
        """Return the rows of an owner, one below the other."""
        own = [part for part, other in zip(parts, self.owners, strict=True) if other is owner]
        return own[0] if len(own) == 1 else join_tensors(own)

    def put(self, parts: list[Any], owner: OwnerT, output: Any) -> None:
        """Put the output of an owner's call into its places among all parts."""
        places = [place for place, other in enumerate(self.owners) if other is owner]
        outputs = split_rows(output, [self.counts[place] for place in places])
        for place, part in zip(places, outputs, strict=True):
            parts[place] = part


def lengths(value: Tensor, counts: Sequence[int]) -> list[int]:
    """Return how much of the first dimension belongs to each part: its rows, or all tokens or heads of its rows.

    Raises:
        ValueError: if that cannot be told.
    """
    each, rest = divmod(value.shape[0], sum(counts))
    if rest or not each:
        raise ValueError(f"a tensor of shape {tuple(value.shape)} has no rows of a batch of {sum(counts)}")
    return [each * count for count in counts]


def split_rows(output: Any, counts: Sequence[int]) -> Sequence[Any]:
    """Return each trial's rows of an output, a tensor or whatever holds tensors; one row is meant for all.

    Args:
        output: output of a module.
        counts: rows of each trial.
    """
    if len(counts) == 1:
        return [output]
    if isinstance(output, ModelOutput):
        parts = {name: split_rows(value, counts) for name, value in output.items()}
        return [type(output)(**{name: values[k] for name, values in parts.items()}) for k in range(len(counts))]
    if isinstance(output, tuple):
        return list(zip(*(split_rows(item, counts) for item in output), strict=True))
    if not isinstance(output, Tensor) or output.shape[0] == 1 < sum(counts):
        return [output] * len(counts)
    return split_tensor(output, lengths(output, counts))


def join_rows(outputs: Sequence[Any], counts: Sequence[int]) -> Any:
    """Put the outputs of all trials below one another; one row that is meant for all of a trial is repeated.

    Raises:
        ValueError: if an output has none.
    """
    first = outputs[0]
    if isinstance(first, ModelOutput):
        return type(first)(**{name: join_rows([output[name] for output in outputs], counts) for name in first})
    if isinstance(first, tuple):
        return tuple(join_rows(items, counts) for items in zip(*outputs, strict=True))
    if not isinstance(first, Tensor):
        if any(output is not first for output in outputs):
            raise ValueError(f"a {type(first).__name__} has no rows")
        return first
    if all(output.shape[0] == 1 for output in outputs):
        outputs = [output.expand(count, *output.shape[1:]) for output, count in zip(outputs, counts, strict=True)]
    return join_tensors(outputs)
