"""The earlier sweeps that a sweep starts from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema


def _require_sweeps(value: Any) -> list[str] | str:
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not possible; write auto, or a list of sweeps, as in [{value}]")
    if isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value):
        if repeated := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} given more than once")
        return value
    raise ValueError(f"{value!r} is not possible; write auto, or a list of the names of sweeps")


EarlierSweeps = Annotated[
    list[str] | Literal["auto"],
    PlainValidator(_require_sweeps),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}}]}),
]
