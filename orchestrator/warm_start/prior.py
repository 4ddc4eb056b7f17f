"""What a sweep takes from earlier ones: a few configurations per method, and where each is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from orchestrator.common.trial_types import TrialKey

EVENT = "warm_start"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An earlier sweep that is used for a task.

    Args:
        task: of this sweep.
        sweep: the earlier one.
        earlier_task: of that sweep.
        similarity: how alike the two tasks and their backbones are, in 0..1.
    """

    task: str
    sweep: str
    earlier_task: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """A configuration of an earlier sweep.

    Args:
        params: fitted to this sweep's space.
        sweep: where it is from.
        trial: which trial it was there.
        similarity: of the two tasks and their backbones, in 0..1.
        rank: the share of its method's configurations that it was expected to beat there, in 0..1.
    """

    params: Mapping[str, Any]
    sweep: str
    trial: str
    similarity: float
    rank: float

    @property
    def task(self) -> str:
        """Of the earlier sweep."""
        return TrialKey.parse(self.trial).task

    @property
    def worth(self) -> float:
        """What configurations are sorted by."""
        return self.similarity * self.rank


@dataclass(frozen=True, kw_only=True)
class Prior:
    """The configurations that studies try early.

    Args:
        origins: the earlier sweeps that were used, the most similar first.
        configurations: by study, the best first.
        notes: what could not be used and why, one line each.
    """

    origins: tuple[Origin, ...] = ()
    configurations: Mapping[str, tuple[Transferred, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """There is something to write down."""
        return bool(self.origins or self.notes)

    def of(self, study: str) -> tuple[Mapping[str, Any], ...]:
        """What a study tries after its default, in this order."""
        return tuple(one.params for one in self.configurations.get(study, ()))

    def taken(self, origin: Origin) -> dict[str, int]:
        """How many configurations each method takes from an earlier sweep."""
        keys = {study: TrialKey(study, 0) for study in self.configurations}
        counts = {
            keys[study].method: sum(one.sweep == origin.sweep and one.task == origin.earlier_task for one in found)
            for study, found in self.configurations.items()
            if keys[study].task == origin.task
        }
        return {method: count for method, count in counts.items() if count}

    def fields(self) -> dict[str, Any]:
        """The journal's ``warm_start`` event, JSON values."""
        return {
            "origins": [asdict(one) for one in self.origins],
            "configurations": {study: [asdict(b) for b in found] for study, found in self.configurations.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def of_events(cls, events: Iterable[Mapping[str, Any]]) -> Self | None:
        """What an interrupted sweep had found: a resumed one tries the same, whatever was recorded since.

        Returns:
            ``None`` if it had not looked yet.
        """
        written = [event for event in events if event["event"] == EVENT]
        return cls._read(written[-1]) if written else None

    @classmethod
    def _read(cls, event: Mapping[str, Any]) -> Self:
        return cls(
            origins=tuple(Origin(**one) for one in event["origins"]),
            configurations={
                study: tuple(Transferred(**one) for one in found) for study, found in event["configurations"].items()
            },
            notes=tuple(event["notes"]),
        )
