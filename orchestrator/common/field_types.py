"""Types of a configuration's fields that YAML has no type for: durations, counts, names from a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from orchestrator.common.units import exact_size, parse_bytes

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_UNITS = (3600.0, 60.0, 1.0)


def parse_duration(value: Any) -> float:
    """Return the seconds of a duration such as ``2h``, ``90m``, ``1h30m`` or ``45s``.

    Raises:
        ValueError: If the value is not a duration, or is 0.
    """
    match = _DURATION.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    seconds = sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNITS, strict=True)) if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{value!r} is not a duration; write it with its unit, as in 45s, 90m, 2h or 1h30m")
    return seconds


def _bytes(value: Any) -> float:
    """Return the bytes of a size such as ``80GB``.

    Raises:
        ValueError: If the value is not a size, or is 0.
    """
    count = parse_bytes(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else 0.0
    if count <= 0:
        raise ValueError(f"{value!r} is not a size above 0; write it as in 80GB or 23.5GB")
    return count


def _count(value: Any) -> int | str:
    if value == "auto" or (type(value) is int and value >= 1):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"{value!r} is not possible; write auto or a whole number from 1 on")


def _number(value: Any) -> int | float:
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"{value!r} is not a number")


def _scalar(value: Any) -> str | int | float | bool:
    if type(value) in (str, int, float, bool):
        return value  # type: ignore[no-any-return]
    given = "is empty" if value is None else f"{value!r} is not possible"
    raise ValueError(f"{given}; write a text, a number, true or false")


@dataclass(frozen=True)
class OneOf:
    """Annotation of a ``str`` field whose value is one of these names. They are also the ``enum`` of its JSON schema.

    A ``Literal`` would do the same, but cannot be written from a list that is kept elsewhere.
    """

    names: Sequence[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema that pydantic makes of a ``Literal`` of the names."""
        return core_schema.literal_schema(list(self.names))


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda seconds: f"{seconds:.15g}s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d[\d.hms ]*$", "examples": ["2h", "90m", "1h30m", "45s"]}),
]
Bytes = Annotated[
    float,
    BeforeValidator(_bytes),
    PlainSerializer(exact_size, return_type=str, when_used="unless-none"),
    WithJsonSchema({"type": "string", "pattern": r"^\d[\d.]* ?[A-Za-z]*$", "examples": ["80GB", "23.5GB"]}),
]
AutoCount = Annotated[
    int | Literal["auto"],
    PlainValidator(_count),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
Scalar = Annotated[
    str | int | float | bool,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(gt=0, le=1)]
