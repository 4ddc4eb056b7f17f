"""The names and values that every MLflow store accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MAX_VALUE_LENGTH, MAX_KEY_LENGTH = 6000, 250


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, without those that are not set."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            settings[f"{prefix}{key}"] = value
    return settings


def clean(key: str) -> str:
    """Return a name that every MLflow store accepts."""
    return re.sub(r"[^\w.\- ]", "_", key)[:MAX_KEY_LENGTH]


def as_text(value: Any) -> str:
    """Return the value of a param or tag as text, cut at the length that MLflow accepts."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."
