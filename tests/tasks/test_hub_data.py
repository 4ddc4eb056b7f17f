"""Data sets of the hub: what a reference means, and one line where they cannot be had."""

from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

from orchestrator.common.errors import InputError
from orchestrator.tasks.columns import Column
from orchestrator.tasks.files import read_parts
from orchestrator.tasks.reading.hub import HubDataset

PACKAGE = """
    import pyarrow as pa

    def disable_progress_bars(): pass

    class Dataset:
        def __init__(self, rows): self.rows = rows
        def with_format(self, name): return self if name == "arrow" else None
        def __getitem__(self, rows): return pa.table(self.rows)

    def load_dataset(name, config, split):
        if (name, config, split) != ("me", "rows", "train"):
            raise RuntimeError(f"there is no {name}\\nat all")
        return Dataset({"text": ["a", "b"], "label": [0, 1]})
"""


@pytest.mark.parametrize(
    ("reference", "candidates", "split"),
    [
        ("hf:me/rows/config:test", [("me/rows", "config")], "test"),
        ("hf:me/rows", [("me/rows", None), ("me", "rows")], "train"),
        ("hf:rows:validation", [("rows", None)], "validation"),
    ],
)
def test_hub_reference_names_data_set_configuration_and_split(reference, candidates, split):
    dataset = HubDataset(reference)
    assert (dataset.candidates, dataset.split) == (candidates, split)


def read(reference: str) -> list[str]:
    rows = next(read_parts(reference, Path(), {"t.text": ["text"]}))
    texts: list[str] = Column("text", rows.columns["text"]).texts.to_pylist()
    return texts


@pytest.mark.skipif(find_spec("datasets") is not None, reason="the extra is installed")
def test_hub_data_needs_the_extra():
    with pytest.raises(InputError) as raised:
        read("hf:me/rows")
    (line,) = raised.value.lines()
    assert line.startswith("hf:me/rows: needs the package datasets, ")


def test_hub_data_is_read_by_the_package(monkeypatch, tmp_path):
    (tmp_path / "datasets.py").write_text(dedent(PACKAGE))
    monkeypatch.syspath_prepend(tmp_path)
    assert read("hf:me/rows") == ["a", "b"]
    with pytest.raises(InputError) as raised:
        read("hf:you/rows")
    assert raised.value.lines() == ["hf:you/rows: cannot be loaded: there is no you/rows"]
