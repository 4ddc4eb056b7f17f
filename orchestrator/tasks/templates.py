"""Texts from a row's columns: ``Review: {text} Rating:``."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated

import numpy as np
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
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        message = f"{template!r} has a brace without its other half; write {{text}} for a column, {{{{ for a brace"
        raise ValueError(message) from None
    for _, field, spec, conversion in parts:
        if field is not None:
            if not field or spec or conversion:
                raise ValueError(f"{template!r} must have column names alone in its braces, as in {{text}}")
            columns.append(field)
    if not columns:
        raise ValueError(f"{template!r} names no column; write {{column}} where its value goes")
    return columns


def render(template: str, columns: Mapping[str, Column]) -> pa.Array:
    """Return one text per row: the template with the row's values in its braces, or a column's values unchanged."""
    return _joined(template, {name: columns[name].texts for name in template_columns(template)})


def render_alternatives(template: str, columns: Mapping[str, Column]) -> tuple[pa.Array, pa.Array | None]:
    """Return one text per row; and, where a column holds lists of texts, the list of all, of which it is the first."""
    names = template_columns(template)
    several = next((name for name in names if columns[name].alternatives is not None), None)
    if several is None:
        return render(template, columns), None
    lists = columns[several].alternatives
    assert lists is not None
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    row_of_text = pa.array(np.repeat(np.arange(len(lists)), sizes))
    texts = {name: columns[name].texts.take(row_of_text) for name in names if name != several}
    joined = _joined(template, {**texts, several: lists.flatten()})
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    first = pa.array(offsets[:-1], mask=sizes == 0)
    return joined.take(first), pa.ListArray.from_arrays(pa.array(offsets), joined, mask=lists.is_null())


def _joined(template: str, texts: Mapping[str, pa.Array]) -> pa.Array:
    if template_columns(template) == [template]:
        return texts[template]
    parts: list[pa.Array | pa.Scalar] = []
    for literal, field, _, _ in Formatter().parse(template):
        parts += [pa.scalar(literal)] if literal else []
        parts += [texts[field]] if field else []
    return pc.binary_join_element_wise(*parts, "")


def _require_columns(template: str) -> str:
    template_columns(template)
    return template


Template = Annotated[str, AfterValidator(_require_columns)]
"""A column's name, or a text with columns in braces."""
