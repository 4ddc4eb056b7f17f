from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pyarrow import parquet

from orchestrator.common.errors import InputError
from orchestrator.simulation.curves import Curve
from orchestrator.simulation.spaces import space_of
from orchestrator.simulation.table import Table

from .conftest import rows_of

SCORES = {"lora": [[0.1, 0.2, 0.3, 0.9], [0.1, 0.2, 0.3, 0.4]], "ia3": [[0.5, 0.5, 0.5, 0.5]]}


def test_table_reads_parquet_and_json_lines_alike(tmp_path: Path) -> None:
    rows = rows_of(SCORES)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "mail.parquet")
    (tmp_path / "mail.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"task": "ma')
    (table,) = Table.read([tmp_path / "mail.parquet"])
    assert [table] == Table.read([tmp_path / "mail.jsonl"])
    assert table.rungs == (20, 40, 80)
    assert table.cost == 3 * 80
    assert {method: table.best(method) for method in table.methods} == {"ia3": 0.5, "lora": 0.9}
    assert table.methods["lora"][1].params == {"learning_rate": 0.01, "rank": 2}
    assert table.step_seconds("lora") == 1.0
    assert table.standard_error(0.5) == pytest.approx(0.5 / math.sqrt(768))
    assert table.standard_error(17.0) is None


def test_table_reads_number_of_rows_from_column() -> None:
    table = Table.of("mail", [{**row, "rows": 100} for row in rows_of(SCORES)])
    assert table.standard_error(0.5) == pytest.approx(0.05)
    assert table.methods["ia3"][0].standard_errors[80] == pytest.approx(0.05)


def test_table_takes_doubling_steps_as_rungs() -> None:
    rows = [
        {"task": "a", "method": "m", "config_id": c, "params": "{}", "step": s, "seconds": 2.0 * s, "score": s / 100}
        for c, last in ((0, 50), (1, 30))
        for s in range(1, last + 1)
    ]
    table = Table.of("a", rows)
    assert table.rungs == (12, 25, 50)
    full, short = table.methods["m"]
    assert full.scores == {12: 0.12, 25: 0.25, 50: 0.5}
    assert math.isnan(short.scores[50])  # it ended early
    assert short.seconds[50] == 60.0
    assert table.best("m") == 0.5


def test_table_interpolates_time_and_keeps_last_score() -> None:
    rows = [
        {"task": "a", "method": m, "config_id": 0, "params": "{}", "step": s, "seconds": 1.0 * s, "score": s / 100}
        for m, steps in (("even", (20, 40)), ("odd", (10, 30, 40)))
        for s in steps
    ]
    odd = Table.of("a", rows).methods["odd"][0]
    assert (odd.seconds[20], odd.scores[20]) == (20.0, 0.1)
    assert odd.between(20, 40) == 20.0
    assert odd.between(0, 20) == 20.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"task": "mail", "method": "lora"}\n', "config_id: is missing; write a column of that name"),
        ("a.parquet", "no parquet", "cannot be read as a table of curves"),
        ("missing.parquet", None, "cannot be read as a table of curves"),
    ],
)
def test_table_refuses_files_that_are_no_tables(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        Table.read([tmp_path / name])
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_search_space_is_read_off_a_table() -> None:
    def curve(number: int, params: dict[str, Any]) -> Curve:
        return Curve(method="m", config_id=number, params=params, seconds={}, scores={})

    many = [
        {"rate": 10.0**-n, "size": n + 1, "width": 4**n, "batch": 8 * (1 + n % 2), "bias": n > 2, "like": [n % 2, 1]}
        for n in range(1, 7)
    ]
    space = space_of([curve(n, params) for n, params in enumerate(many)])
    assert space.distributions == {
        "rate": FloatDistribution(1e-6, 1e-1, log=True),
        "size": IntDistribution(2, 7),
        "width": IntDistribution(4, 4096, log=True),
        "batch": CategoricalDistribution([16, 8]),
        "bias": CategoricalDistribution([False, True]),
        "like": CategoricalDistribution(["[1, 1]", "[0, 1]"]),
    }
    assert space.default == {"rate": 0.1, "size": 2, "width": 4, "batch": 16, "bias": False, "like": "[1, 1]"}
