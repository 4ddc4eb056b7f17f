"""The key ``metric`` of a task: one name, or several of which the first is optimized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from orchestrator.common.metric import Metric
from orchestrator.common.suggest import did_you_mean
from orchestrator.tasks.user_metric import REFERENCE, is_reference, reference_problem

MetricNames = str | list[str]
"""What a configuration says: a name or ``FILE.py:FUNCTION``, or a list of them.
:attr:`TaskSection.metrics` is always a tuple of names."""


@dataclass(frozen=True)
class MetricsOf:
    """Annotation of a type's field ``metric``, whose default is the first of the type's metrics.

    ``metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name``
    """

    metrics: Sequence[Metric]

    @property
    def names(self) -> list[str]:
        """The names that can be written."""
        return [metric.name for metric in self.metrics]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a schema whose messages name the metric, also in a list."""
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a JSON schema by which editors complete the names."""
        name = {"anyOf": [{"enum": self.names}, {"type": "string", "pattern": REFERENCE}]}
        return {"anyOf": [*name["anyOf"], {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}]}

    def _validate(self, value: Any, info: ValidationInfo) -> MetricNames:
        if value == []:
            raise ValueError(f"is empty; choose from {', '.join(self.names)}")
        names = value if isinstance(value, list) else [value]
        for index, name in enumerate(names):
            self._require(name, (info.context or {}).get("base"))
            if name in names[:index]:
                raise ValueError(f"{name!r} is given twice")
        return list(names) if isinstance(value, list) else str(value)

    def _require(self, name: Any, base: Path | None) -> None:
        if name is None:
            raise ValueError(f"is missing; choose from {', '.join(self.names)}")
        if is_reference(name):
            if base is not None and (problem := reference_problem(name, base)):
                raise ValueError(problem)
        elif name not in self.names:
            hint = did_you_mean(str(name), self.names, "choose from")
            raise ValueError(f"{name!r} is not possible; {hint}")
