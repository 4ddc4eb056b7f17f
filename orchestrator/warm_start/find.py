"""Find the earlier sweeps that a sweep starts from, and the configurations to take from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.trial_types import TrialKey
from orchestrator.common.uris import mask_secrets
from orchestrator.journal.folders import find_sweep
from orchestrator.search.plans import StudyPlan
from orchestrator.warm_start.earlier import EarlierTask
from orchestrator.warm_start.journals import tasks_of_folder
from orchestrator.warm_start.prior import Origin, Prior
from orchestrator.warm_start.runs import RecordedSweeps
from orchestrator.warm_start.task_metadata import TaskMetadata
from orchestrator.warm_start.transfer import Source, transfer_configurations

MIN_SIMILARITY = 0.5
"""Least similarity of an earlier sweep that ``auto`` uses, in 0..1."""
MAX_SWEEPS = 5
"""Largest number of earlier sweeps that ``auto`` uses for a task."""
KEY = "search.warm_start"

SweepNames = Sequence[str] | Literal["auto"]
SimilarTask = tuple[float, EarlierTask]


def prior_of(
    names: SweepNames,
    studies: Sequence[StudyPlan],
    task_metadata: Mapping[str, TaskMetadata],
    *,
    tracking_uri: str,
    storage: str,
) -> Prior:
    """Return the configurations of earlier sweeps that studies try early.

    Args:
        names: The earlier sweeps, or ``auto`` for the most similar ones of the tracking server.
        studies: The studies of the present sweep.
        task_metadata: Metadata of each task and its backbone.
        tracking_uri: The tracking server.
        storage: The folder or URI of the sweeps' journals.

    Raises:
        InputError: If there is no sweep of a name; the message lists sweeps that there are.
        SweepError: If the server cannot be reached and is needed to find a sweep by its name.
    """
    recorded = RecordedSweeps(tracking_uri)
    try:
        earlier = recorded.recent() if names == "auto" else _tasks_by_name(names, recorded, tracking_uri, storage)
        similar = {task: _most_similar(metadata, earlier, names) for task, metadata in task_metadata.items()}
        return _prior(studies, similar, _notes(task_metadata, earlier, similar))
    except SweepError as error:
        if names != "auto":
            raise
        return Prior(notes=(f"no earlier sweeps were looked for: {error}",))


def _tasks_by_name(
    names: Sequence[str], recorded: RecordedSweeps, tracking_uri: str, storage: str
) -> list[EarlierTask]:
    tasks: list[EarlierTask] = []
    problems = []
    for index, name in enumerate(names):
        try:
            tasks += tasks_of_folder(find_sweep(name, storage))
        except InputError as error:
            if recorded_tasks := recorded.named(name):
                tasks += recorded_tasks
            else:
                message = f"{error.problems[0].message}; {_server_hint(name, recorded, tracking_uri)}"
                problems.append(Problem(f"{KEY}[{index}]", f"{name}: {message}"))
    if problems:
        raise InputError("", problems)
    return tasks


def _server_hint(name: str, recorded: RecordedSweeps, tracking_uri: str) -> str:
    """Return the sweeps that the server has instead of an unknown one."""
    sweeps = list(dict.fromkeys(task.sweep for task in recorded.recent()))
    hint = did_you_mean(name, sweeps[:5], "there is")
    return f"nor at {mask_secrets(tracking_uri)}; {hint}"


def _most_similar(metadata: TaskMetadata, earlier: Sequence[EarlierTask], names: SweepNames) -> list[SimilarTask]:
    """Return the earlier tasks to use for a task, the most similar first; sweeps that were named are used anyway."""
    similar = [(metadata.similarity(task.task_metadata), task) for task in earlier]
    similar.sort(key=lambda pair: (-pair[0], pair[1].name))
    if names != "auto":
        return similar
    usable = [
        (similarity, task)
        for similarity, task in similar
        if similarity >= MIN_SIMILARITY and metadata.comparable(task.task_metadata)
    ]
    return usable[:MAX_SWEEPS]


def _notes(
    task_metadata: Mapping[str, TaskMetadata],
    earlier: Sequence[EarlierTask],
    similar: Mapping[str, Sequence[SimilarTask]],
) -> tuple[str, ...]:
    """Return a note for each task without an earlier sweep, with the reason."""
    without = [task for task, tasks in similar.items() if not tasks]
    return tuple(f"no earlier sweep is used for {task}: {_reason(task_metadata[task], earlier)}" for task in without)


def _reason(metadata: TaskMetadata, earlier: Sequence[EarlierTask]) -> str:
    comparable = [task for task in earlier if metadata.comparable(task.task_metadata)]
    if not comparable:
        return "none has this backbone or this type of task" if earlier else "there is none"
    nearest = max(comparable, key=lambda task: (metadata.similarity(task.task_metadata), task.name))
    similarity = metadata.similarity(nearest.task_metadata)
    return f"the most similar is {nearest.name} with similarity {similarity:.2f}, less than {MIN_SIMILARITY} (of 1)"


def _prior(studies: Sequence[StudyPlan], similar: Mapping[str, Sequence[SimilarTask]], notes: tuple[str, ...]) -> Prior:
    sources = {
        name: [Source(task, similarity, task.read()) for similarity, task in tasks] for name, tasks in similar.items()
    }
    configurations = {
        plan.study: transfer_configurations(plan.space, TrialKey(plan.study, 0).method, sources.get(plan.task, ()))
        for plan in studies
    }
    return Prior(
        origins=tuple(
            Origin(task=name, sweep=task.sweep, earlier_task=task.task, similarity=similarity)
            for name, tasks in similar.items()
            for similarity, task in tasks
        ),
        configurations={study: transferred for study, transferred in configurations.items() if transferred},
        notes=notes,
    )
