"""The key ``metric`` of a task: one name, or several of which the first is optimized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from orchestrator.common.metric import Metric
from orchestrator.common.suggest import did_you_mean

MetricNames = str | list[str]
"""What a configuration says: a name, or a list of names. :attr:`TaskSection.metrics` is always a tuple of names."""


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
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a JSON schema by which editors complete the names."""
        name = {"enum": self.names}
        return {"anyOf": [name, {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}]}

    def _validate(self, value: Any) -> MetricNames:
        if value == []:
            raise ValueError(f"is empty; choose from {', '.join(self.names)}")
        names = value if isinstance(value, list) else [value]
        for index, name in enumerate(names):
            self._require(name)
            if name in names[:index]:
                raise ValueError(f"{name!r} is given twice")
        return list(names) if isinstance(value, list) else str(value)

    def _require(self, name: Any) -> None:
        if name is None:
            raise ValueError(f"is missing; choose from {', '.join(self.names)}")
        if name not in self.names:
            hint = did_you_mean(str(name), self.names, "choose from")
            raise ValueError(f"{name!r} is not possible; {hint}")
