"""Texts from a row's columns: ``Review: {text} Rating:``."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator

from orchestrator.tasks.columns import Column


def template_columns(template: str) -> list[str]:
    """Return the columns that a template names: those in its braces, or the template itself where it has none.

    Raises:
        ValueError: If the braces hold anything but column names.
    """
    if "{" not in template and "}" not in template:
        return [template]
    columns = []
    for _, field, spec, conversion in Formatter().parse(template):
        if field is not None:
            if not field or spec or conversion:
                raise ValueError(f"{template!r} must have column names alone in its braces, as in {{text}}")
            columns.append(field)
    if not columns:
        raise ValueError(f"{template!r} names no column; write {{column}} where its value goes")
    return columns


def render(template: str, columns: Mapping[str, Column]) -> pa.Array:
    """Return one text per row: the template with the row's values in its braces, or a column's values unchanged."""
    if template_columns(template) == [template]:
        return columns[template].texts
    parts: list[pa.Array | pa.Scalar] = []
    for literal, field, _, _ in Formatter().parse(template):
        parts += [pa.scalar(literal)] if literal else []
        parts += [columns[field].texts] if field else []
    return pc.binary_join_element_wise(*parts, "")


def _require_columns(template: str) -> str:
    template_columns(template)
    return template


Template = Annotated[str, AfterValidator(_require_columns)]
"""A column's name, or a text with columns in braces."""
