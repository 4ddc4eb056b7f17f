"""What all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """One mapping of the file: no unknown keys, no conversion between types, never changed after it was read.

    The string under a field is its description in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def refusal(problems: Iterable[tuple[tuple[str | int, ...], str]]) -> PydanticCustomError:
    """The error of a check that covers several keys.

    Args:
        problems: pairs of a key path inside the section that is checked, and what is wrong there.
    """
    return PydanticCustomError("refused", "several keys do not go together", {"problems": list(problems)})
