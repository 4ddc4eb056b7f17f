"""The tasks of a sweep: one section per task, of the task type that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from orchestrator.common.errors import KeyPath
from orchestrator.common.suggest import did_you_mean
from orchestrator.tasks import TASK_TYPES, TaskSection
from orchestrator.tasks.recognized import fill_in


class RegisteredSection:
    """Validate a section as that of the task type that its ``type`` names.

    The union is made from the registry when a schema is built, so that the registry's line is all that a new task type
    needs here. Everything else sees a :class:`TaskSection`, whose members do not depend on the type.
    """

    @property
    def union(self) -> Any:
        """The sections of all task types."""
        return Union[tuple(type_.section for type_ in TASK_TYPES.values())]  # noqa: UP007  # of a tuple

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the union."""
        return handler.generate_schema(Annotated[self.union, Field(discriminator="type"), BeforeValidator(fill_in)])


Task = Annotated[TaskSection, RegisteredSection()]


def source_problems(tasks: Mapping[str, TaskSection]) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with source tasks: unknown ones, the task itself, tasks of another type.

    Returns:
        Pairs of a key path and a message.
    """
    return [
        ((name, "source_tasks", index), problem)
        for name, task in tasks.items()
        for index, source in enumerate(task.source_tasks)
        if (problem := _source_problem(name, index, source, tasks))
    ]


def _source_problem(name: str, index: int, source: str, tasks: Mapping[str, TaskSection]) -> str:
    candidates = [candidate for candidate in tasks if candidate != name]
    if source == name:
        return f"{source!r} is the task itself; name another task of this sweep"
    if source not in tasks:
        hint = did_you_mean(source, candidates) if candidates else "this sweep has no other task"
        return f"{source!r} is not a task of this sweep; {hint}"
    if source in tasks[name].source_tasks[:index]:
        return f"{source!r} is given twice"
    if tasks[source].type != tasks[name].type:
        return f"{source!r} is a {tasks[source].type} task; name a {tasks[name].type} task"
    return ""
