"""Data sets of the Hugging Face Hub, as ``hf:NAME/CONFIG:SPLIT``, by the package datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from orchestrator.common.errors import first_line
from orchestrator.common.output_capture import no_library_noise
from orchestrator.tasks.reading.arrow_file import arrow_batches
from orchestrator.tasks.reading.source import ROWS, Batch

PREFIX = "hf:"
EXTRA = "needs the package datasets, for data sets of the hub; pip install 'peft-sweep[data]'"
"""What is told where the optional package is missing."""


@dataclass(frozen=True)
class HubDataset:
    """A split of a data set of the hub.

    Args:
        name: The reference, as messages give it.
    """

    name: str

    format = "hub"

    @property
    def split(self) -> str:
        """The split: ``train`` where none is named."""
        return self.name.removeprefix(PREFIX).partition(":")[2] or "train"

    @property
    def candidates(self) -> list[tuple[str, str | None]]:
        """What the reference can mean, the likeliest first: names of data sets and of their configurations."""
        parts = self.name.removeprefix(PREFIX).partition(":")[0].strip("/").split("/")
        if len(parts) > 2:
            return [("/".join(parts[:2]), "/".join(parts[2:]))]
        return [("/".join(parts), None), *([(parts[0], parts[1])] if len(parts) == 2 else [])]


class HubSource:
    """The rows of a data set, from the package's cache.

    Raises:
        ValueError: If the package is missing, or the data set cannot be downloaded and is not in its cache.
    """

    def __init__(self, dataset: HubDataset) -> None:
        if find_spec("datasets") is None:
            raise ValueError(EXTRA)
        self._table = _load(dataset)
        self.names = self._table.column_names

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows."""
        known = [name for name in columns if self.names.count(name) == 1]
        yield from arrow_batches(iter(self._table.to_batches(max_chunksize=rows)), known)


def _load(dataset: HubDataset) -> pa.Table:
    import datasets

    datasets.disable_progress_bars()
    problems = []
    for name, config in dataset.candidates:
        try:
            with no_library_noise():
                loaded: Any = datasets.load_dataset(name, config, split=dataset.split)
        except Exception as error:  # of any of the packages that it downloads and reads with
            problems.append(first_line(error))
        else:
            return loaded.with_format("arrow")[:]
    raise ValueError(f"cannot be loaded: {problems[0]}")
