"""The base of every section of a configuration, and the error of a check that covers several keys."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from orchestrator.common.errors import KeyPath

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """One mapping of the file: no unknown keys, no conversion between types, immutable once read.

    The string under a field is its description in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def refusal(problems: Iterable[tuple[KeyPath, str]]) -> PydanticCustomError:
    """Return the error of a check that covers several keys.

    Args:
        problems: Pairs of a key path inside the section that is checked, and a message.
    """
    return PydanticCustomError("refused", "several keys do not go together", {"problems": list(problems)})
