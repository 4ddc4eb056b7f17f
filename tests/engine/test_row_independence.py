"""Which products give a row the same bits in any matrix: what is said of a kind of product, tried with others."""

import pytest
import torch
from torch.nn import functional as F

from orchestrator.engine import row_independence
from orchestrator.engine.row_independence import stackable_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("outputs", "terms"), [(48, 32), (576, 1536), (1536, 576)])
@pytest.mark.parametrize("transposed", [False, True])
def test_stackable_rows_have_their_bits_in_any_stack(
    dtype: torch.dtype, outputs: int, terms: int, transposed: bool
) -> None:
    least, most = stackable_rows(torch.empty(outputs, terms, dtype=dtype), transposed)
    if not least:
        pytest.skip("this processor splits sums by the number of rows")
    weight = torch.randn(outputs, terms).to(dtype)
    stack = torch.randn(min(most, 300), outputs if transposed else terms).to(dtype)
    product = stack @ weight if transposed else F.linear(stack, weight)
    for count in {least, least + 2, 9, 70}:
        rows = stack[13:][:count].clone()
        assert torch.equal(rows @ weight if transposed else F.linear(rows, weight), product[13:][:count])


def test_products_that_split_sums_by_rows_stack_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_rows(rows: torch.Tensor, weight: torch.Tensor, _: bool) -> torch.Tensor:
        """Split sums in two where there are more rows than 20, as AMX does with long sums."""
        middle = weight.shape[1] // 2 if len(rows) > 20 else 0
        return rows[:, :middle] @ weight[:, :middle].T + rows[:, middle:] @ weight[:, middle:].T

    monkeypatch.setattr(row_independence, "_product", by_rows)
    row_independence._stackable_rows.cache_clear()
    try:
        assert stackable_rows(torch.empty(40, 96)) == (33, 1024)
        monkeypatch.setattr(row_independence, "_product", lambda rows, weight, _: rows @ weight.T + len(rows))
        row_independence._stackable_rows.cache_clear()
        assert stackable_rows(torch.empty(40, 96)) == (0, 0)
    finally:
        row_independence._stackable_rows.cache_clear()
