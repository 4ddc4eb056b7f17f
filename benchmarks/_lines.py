"""Results as JSON lines."""

from __future__ import annotations

import json
from typing import Any


def emit(**fields: Any) -> None:
    """Print one measurement."""
    print(json.dumps(fields), flush=True)
