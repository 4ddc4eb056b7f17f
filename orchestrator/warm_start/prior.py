"""What a sweep takes from earlier ones: a few configurations per method, and the origin of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from orchestrator.common.trial_types import TrialKey

EVENT = "warm_start"
"""The journal's event; its fields are those of the classes below."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An earlier sweep that is used for a task.

    Args:
        task: The task of the present sweep.
        sweep: The earlier sweep.
        earlier_task: The task of the earlier sweep.
        similarity: The similarity of the two tasks and their backbones, in 0..1.
    """

    task: str
    sweep: str
    earlier_task: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """A configuration of an earlier sweep.

    Args:
        params: The configuration, moved into the present search space.
        sweep: The earlier sweep.
        trial: The earlier sweep's trial.
        similarity: The similarity of the two tasks and their backbones, in 0..1.
        rank: The expected share of its method's configurations that it beat there, in 0..1.
    """

    params: Mapping[str, Any]
    sweep: str
    trial: str
    similarity: float
    rank: float

    @property
    def task(self) -> str:
        """The task of the earlier sweep."""
        return TrialKey.parse(self.trial).task

    @property
    def priority(self) -> float:
        """The number that configurations are sorted by."""
        return self.similarity * self.rank


@dataclass(frozen=True, kw_only=True)
class Prior:
    """The configurations that studies try early.

    Args:
        origins: The earlier sweeps that are used, the most similar first.
        configurations: Configurations by study, the best first.
        notes: What could not be used and why, one line each.
    """

    origins: tuple[Origin, ...] = ()
    configurations: Mapping[str, tuple[Transferred, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is something to write to the journal."""
        return bool(self.origins or self.notes)

    def of(self, study: str) -> tuple[Mapping[str, Any], ...]:
        """Return the configurations that a study tries after its default, in this order."""
        return tuple(transferred.params for transferred in self.configurations.get(study, ()))

    def counts(self, origin: Origin) -> dict[str, int]:
        """Return how many configurations each method takes from an earlier sweep; only methods that take any."""
        keys = {study: TrialKey(study, 0) for study in self.configurations}
        counts = {
            keys[study].method: sum(
                entry.sweep == origin.sweep and entry.task == origin.earlier_task for entry in transferred
            )
            for study, transferred in self.configurations.items()
            if keys[study].task == origin.task
        }
        return {method: count for method, count in counts.items() if count}

    def fields(self) -> dict[str, Any]:
        """Return the fields of the journal's ``warm_start`` event, JSON values."""
        return {
            "origins": [asdict(origin) for origin in self.origins],
            "configurations": {
                study: [asdict(entry) for entry in transferred] for study, transferred in self.configurations.items()
            },
            "notes": list(self.notes),
        }

    @classmethod
    def of_events(cls, events: Iterable[Mapping[str, Any]]) -> Self | None:
        """Return the prior of an interrupted sweep: resumed, it tries the same, whatever was recorded since.

        Returns:
            ``None`` if the sweep had not looked for earlier ones yet.
        """
        written = [event for event in events if event["event"] == EVENT]
        return cls._of_event(written[-1]) if written else None

    @classmethod
    def _of_event(cls, event: Mapping[str, Any]) -> Self:
        return cls(
            origins=tuple(Origin(**fields) for fields in event["origins"]),
            configurations={
                study: tuple(Transferred(**fields) for fields in transferred)
                for study, transferred in event["configurations"].items()
            },
            notes=tuple(event["notes"]),
        )
