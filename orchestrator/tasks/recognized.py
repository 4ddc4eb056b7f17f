"""A task's section without its columns, or without its type: filled in from what the rows look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo

from orchestrator.common.errors import InputError
from orchestrator.common.section import refusal
from orchestrator.common.uris import is_uri

COLUMN_KEYS = frozenset(
    {"text", "text_pair", "label", "labels", "target", "tokens", "tags", "spans", "messages", "conversations"}
    | {"instruction", "input", "output", "prompt", "completion", "choices", "source", "anchor", "positive"}
    | {"negative", "score"}
)
"""The keys of all task types that name columns."""


def fill_in(values: Any, info: ValidationInfo) -> Any:
    """Return a section with the type and columns that its rows look to have, where it names no column.

    Files behind a URI are not read: a configuration is checked without the network.

    Raises:
        PydanticCustomError: If no type is named and the rows look like nothing known, or like two things.
    """
    if not isinstance(values, dict) or info.context is None or COLUMN_KEYS & values.keys():
        return values
    data, type_ = values.get("data"), values.get("type", "")
    reference = data.get("train") if isinstance(data, Mapping) else data
    if not isinstance(reference, str) or not isinstance(type_, str) or is_uri(reference) or reference.startswith("hf:"):
        return values
    from orchestrator.tasks.layouts import recognize, unknown
    from orchestrator.tasks.reading.peek import peek

    try:
        looks = peek(reference, info.context["base"], str(values.get("encoding", "utf-8"))).looks
    except (InputError, LookupError):
        return values  # told by the check of the files
    layout = recognize(looks, type_)
    if layout is None and not type_:
        raise refusal([(("type",), f"is missing; {unknown(list(looks))}")])
    if layout is None:
        return values
    if layout.instead:
        written = ", ".join(f"{key}: {name}" for key, name in {"type": layout.type, **layout.keys}.items())
        message = f"{layout.reason}; write {written} for that, or {layout.instead.removeprefix('write ')}"
        raise refusal([((), message)])
    return {**values, "type": layout.type, **layout.keys}
