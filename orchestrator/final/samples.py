"""Examples of what the finalists of a task write: a few test rows with their prompt, reference and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

SAMPLES = 10
MOST_CHARACTERS = 2_000
"""Most characters of a text; what is longer is cut, and ends with an ellipsis."""


def samples(rows: pa.Table, prompts: str, predictions: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    """Return the samples of a task, evenly spread over the test rows; none where nothing was generated.

    Args:
        rows: Test split.
        prompts: Its column of prompts.
        predictions: What each method predicted for these rows.
    """
    written = {
        method: table["generated"].to_pylist()
        for method, table in predictions.items()
        if "generated" in table.column_names and not table["generated"].null_count
    }
    if not written:
        return []
    table = next(table for table in predictions.values() if "generated" in table.column_names)
    references = table["references" if "references" in table.column_names else "reference"].to_pylist()
    texts = rows[prompts].to_pylist()
    return [
        {
            "row": rows["row"][index].as_py(),
            "prompt": _cut(texts[index]),
            "reference": "\n".join(map(_cut, references[index])) if isinstance(references[index], list)
            else _cut(references[index]),
            "texts": {method: _cut(generated[index]) for method, generated in written.items()},
        }
        for index in np.unique(np.linspace(0, rows.num_rows - 1, SAMPLES).astype(int)).tolist()
    ]  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
