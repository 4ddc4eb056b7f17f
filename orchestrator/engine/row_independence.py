"""Whether a processor gives a row of a product the same bits whatever other rows are in the matrix.

Processors split sums in different ways: those with AMX split long ones by the number of rows, others hardly ever, and
float32 products of very few rows take kernels of their own. So each kind of product is tried once in a process, with
random numbers, before rows of several trials are stacked in it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

PROBED_ROWS = 1024
"""Rows of the largest product that is tried."""
PROBED_WEIGHTS = 2**22
"""Entries of a weight above which 1,024 rows take too long to try."""
LARGE_WEIGHT_ROWS = 128
"""Rows that are tried with such a weight, as that of output embeddings."""
COUNTS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 33, 64, 100, 250, 512)
"""Numbers of rows that are compared with the same rows of the largest product."""
START = 19
"""Place in the largest product where those rows begin."""


def stackable_rows(weight: Tensor, transposed: bool = False) -> tuple[int, int]:
    """Return between how many rows a product with a weight has bits that do not depend on their number.

    A matrix may be part of a larger one if it has at least the first number of rows, and the larger one has at most the
    second. Both are 0 if no rows may be stacked.

    Args:
        weight: Matrix of shape ``(out, in)`` on a processor.
        transposed: Whether rows of ``out`` entries are multiplied by it, as in a backward pass, in place of rows of
            ``in`` entries by its transpose.
    """
    outputs, terms = weight.shape
    return _stackable_rows(weight.dtype, outputs, terms, transposed, torch.get_num_threads())


@cache
def _stackable_rows(dtype: torch.dtype, outputs: int, terms: int, transposed: bool, _: int) -> tuple[int, int]:
    """Try a kind of product. The number of threads is an argument since sums may be divided among them."""
    generator = torch.Generator().manual_seed(0)
    most = PROBED_ROWS if outputs * terms <= PROBED_WEIGHTS else LARGE_WEIGHT_ROWS
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        weight = torch.empty(outputs, terms).uniform_(-1, 1, generator=generator).to(dtype)
        rows = torch.randn(most, outputs if transposed else terms, generator=generator).to(dtype)
        sizes = sorted({min(LARGE_WEIGHT_ROWS, most), most})
        products = [_product(rows[:size], weight, transposed) for size in sizes]
        if not torch.equal(products[0], products[-1][: sizes[0]]):
            return 0, 0
        counts = [count for count in COUNTS if count + START <= most]
        unequal = [
            count
            for count in counts
            if not torch.equal(_product(rows[START:][:count], weight, transposed), products[-1][START:][:count])
        ]
    least = min((count for count in counts if count > max(unequal, default=0)), default=0)
    return (least, most) if least else (0, 0)


def _product(rows: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    return rows.clone() @ weight if transposed else F.linear(rows.clone(), weight)
