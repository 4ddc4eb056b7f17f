"""Find the earlier sweeps that a sweep begins with, and what to take from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.trial_types import TrialKey
from orchestrator.common.uris import mask_secrets
from orchestrator.search.plans import StudyPlan
from orchestrator.tracking.sweeps import find_sweep
from orchestrator.warm_start.choose import Source, choose
from orchestrator.warm_start.earlier import Earlier
from orchestrator.warm_start.journals import of_folder
from orchestrator.warm_start.prior import Origin, Prior
from orchestrator.warm_start.runs import RecordedSweeps
from orchestrator.warm_start.task_metadata import TaskMetadata

SIMILAR = 0.5
"""What ``auto`` asks of an earlier sweep, at least."""
MOST_SWEEPS = 5
"""So many earlier sweeps ``auto`` takes for a task."""
KEY = "search.warm_start"

Wanted = Sequence[str] | Literal["auto"]
Similar = tuple[float, Earlier]


def prior_of(
    wanted: Wanted,
    studies: Sequence[StudyPlan],
    task_metadata: Mapping[str, TaskMetadata],
    *,
    tracking_uri: str,
    storage: str,
) -> Prior:
    """The configurations of earlier sweeps that studies try early.

    Args:
        wanted: the earlier sweeps, or ``auto`` for the most similar ones of the tracking server.
        studies: what will be searched.
        task_metadata: what is known of each task and its backbone.
        tracking_uri: where runs are recorded.
        storage: where journals are.

    Raises:
        InputError: if a sweep is not there; it says which are.
        SweepError: if the server cannot be reached and is needed to find a sweep by its name.
    """
    recorded = RecordedSweeps(tracking_uri)
    try:
        earlier = recorded.recent() if wanted == "auto" else _named(wanted, recorded, tracking_uri, storage)
        similar = {task: _similar(task_metadata, earlier, wanted) for task, task_metadata in task_metadata.items()}
        return _prior(studies, similar, _nothing(task_metadata, earlier, similar))
    except SweepError as error:
        if wanted != "auto":
            raise
        return Prior(notes=(f"no earlier sweeps were looked for: {error}",))


def _named(names: Sequence[str], recorded: RecordedSweeps, tracking_uri: str, storage: str) -> list[Earlier]:
    found: list[Earlier] = []
    problems = []
    for place, name in enumerate(names):
        try:
            found += of_folder(find_sweep(name, storage))
        except InputError as missing:
            if own := recorded.named(name):
                found += own
            else:
                message = f"{missing.problems[0].message}; {_elsewhere(name, recorded, tracking_uri)}"
                problems.append(Problem(f"{KEY}[{place}]", f"{name}: {message}"))
    if problems:
        raise InputError("", problems)
    return found


def _elsewhere(name: str, recorded: RecordedSweeps, tracking_uri: str) -> str:
    """What there is on the server instead of a sweep that nobody knows."""
    known = list(dict.fromkeys(one.sweep for one in recorded.recent()))
    hint = did_you_mean(name, known[:5], "there is")
    return f"nor at {mask_secrets(tracking_uri)}; {hint}"


def _similar(task_metadata: TaskMetadata, earlier: Sequence[Earlier], wanted: Wanted) -> list[Similar]:
    """The earlier sweeps to use for a task, the most similar first; those that were named are used as they are."""
    found = [(task_metadata.similarity(one.task_metadata), one) for one in earlier]
    found.sort(key=lambda pair: (-pair[0], pair[1].name))
    if wanted != "auto":
        return found
    fit = [(s, one) for s, one in found if s >= SIMILAR and task_metadata.comparable(one.task_metadata)]
    return fit[:MOST_SWEEPS]


def _nothing(
    task_metadata: Mapping[str, TaskMetadata], earlier: Sequence[Earlier], similar: Mapping[str, Sequence[Similar]]
) -> tuple[str, ...]:
    """For each task without an earlier sweep: why."""
    without = [task for task, found in similar.items() if not found]
    return tuple(f"no earlier sweep is used for {task}: {_nearest(task_metadata[task], earlier)}" for task in without)


def _nearest(task_metadata: TaskMetadata, earlier: Sequence[Earlier]) -> str:
    able = [one for one in earlier if task_metadata.comparable(one.task_metadata)]
    if not able:
        return "none has this backbone or this type of task" if earlier else "there is none"
    nearest = max(able, key=lambda one: (task_metadata.similarity(one.task_metadata), one.name))
    return f"{nearest.name} is {task_metadata.similarity(nearest.task_metadata):.2f} similar, less than {SIMILAR}"


def _prior(studies: Sequence[StudyPlan], similar: Mapping[str, Sequence[Similar]], notes: tuple[str, ...]) -> Prior:
    sources = {task: [Source(one, s, one.read()) for s, one in found] for task, found in similar.items()}
    chosen = {
        plan.study: choose(plan.space, key.method, sources.get(key.task, ()))
        for plan in studies
        for key in [TrialKey(plan.study, 0)]
    }
    return Prior(
        origins=tuple(
            Origin(task=task, sweep=one.sweep, earlier_task=one.task, similarity=s)
            for task, found in similar.items()
            for s, one in found
        ),
        configurations={study: found for study, found in chosen.items() if found},
        notes=notes,
    )
