"""The scores on public data sets: methods and trivial predictors are scored by the same metric on the same rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from seqeval.metrics import f1_score

from benchmarks._common import MINILM
from benchmarks._task_scores import measure

NAMES = ["Ada", "Grace", "Alan", "Kurt", "Emmy", "Rosalind"]
SECTION = {"type": "token-classification", "tokens": "tokens", "tags": "tags", "metric": ["entity_f1"]}


def write_splits(folder: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        tokens = [[name, NAMES[k - 1], "met", f"word{number}"] for k, name in enumerate(NAMES)]
        tags = [["B-person", "B-person", "O", "B-thing" if k % 2 else "O"] for k in range(len(NAMES))]
        pq.write_table(pa.table({"tokens": tokens, "tags": tags}), folder / f"names-{split}.parquet")


def test_trivial_predictors_of_entities_have_seqevals_f1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_splits(tmp_path)
    probe = {"learning_rate": 1e-2, "batch_size": 4}
    measure("names", SECTION, tmp_path, MINILM, {"linear_probe": probe, "linear_probe of 1": probe}, steps=1)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    true = pq.read_table(tmp_path / "names-test.parquet")["tags"].to_pylist()
    expected = f1_score(true, [["B-person"] * len(row) for row in true])
    assert first["trivial"]["always answering B-person"]["score"] == pytest.approx(expected)
    low, high = first["trivial"]["drawing tags in the training rows' proportions"]["interval"]
    assert 0 < low < high < 1
    assert (first["rows"], second["gap"]) == (len(NAMES), 0.0), "equal methods score the same"
