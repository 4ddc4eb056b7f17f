"""Conversations that are trained turn by turn count as one row each in intervals, comparisons and standard errors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.common.storage import Storage
from orchestrator.engine.measurements import standard_error_measurement
from orchestrator.final.results import TEST_FILE, AnswerReader
from orchestrator.selection.evidence import MethodSample, gather
from orchestrator.selection.intervals import bootstrap_interval
from orchestrator.tasks import Evaluation
from orchestrator.tasks.causal_lm import CausalLM

from ..small_plan import CAUSAL, small_plan

CONVERSATIONS, TURNS = 60, 4


@pytest.fixture
def predictions() -> pa.Table:
    """The turns of a conversation follow each other, and are equally likely."""
    nll = np.random.default_rng(0).uniform(2, 9, CONVERSATIONS)
    rows = np.repeat(np.arange(1, CONVERSATIONS + 1), TURNS)
    count = len(rows)
    return pa.table({"row": rows, "nll": nll[rows - 1], "tokens": [3] * count, "bytes": [12] * count})


def test_turns_of_a_conversation_are_one_row_of_the_evidence(tmp_path: Path, predictions: pa.Table) -> None:
    (tmp_path / "trial").mkdir()
    parquet.write_table(predictions, tmp_path / "trial" / TEST_FILE)
    plan = small_plan(["lora"], {"talk": {**CAUSAL, "metric": "bits_per_byte"}})
    reader = AnswerReader(plan.tasks["talk"], Storage.at(str(tmp_path)), seed=0)
    assert reader.rows("trial") == CONVERSATIONS
    bits = predictions["nll"].to_numpy()[::TURNS] / np.log(2) / 12
    expected = bits.std(ddof=1) / np.sqrt(CONVERSATIONS)
    low, high = bootstrap_interval(reader.statistic("trial"), reader.rows("trial"), seed=0)
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.1), "four times the turns say no more"
    sample = MethodSample((float(bits.mean()),), (reader.statistic("trial"),))
    evidence = gather([sample], reader.rows("trial"), seed=0)
    assert np.sqrt(evidence.row_covariance[0, 0]) == pytest.approx(expected, rel=0.1)
    dataset: Any = SimpleNamespace(type=CausalLM(), metric="bits_per_byte")
    measured = standard_error_measurement(dataset, Evaluation({}, predictions))["validation_standard_error"]
    assert measured == pytest.approx(expected, rel=0.15)
