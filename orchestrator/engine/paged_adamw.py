"""AdamW with a state in 8 bits: on the GPU where there is room, else in pages that are used again.

bitsandbytes never frees a page: they are managed memory of CUDA, and a list of the process refers to all of them. Every
trial, and every restored trial, would leave its pages behind.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from bitsandbytes.functional import GlobalPageManager
from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
from torch import Tensor

FREE_MEMORY_FRACTION = 0.1
"""Share of the free memory above which an optimizer's state goes into pages."""
MIN_PAGED_NUMEL = 100_000
"""Elements of the smallest state that bitsandbytes puts into pages."""


class PagePool:
    """Pages of optimizers that are gone, for those to come."""

    def __init__(self) -> None:
        self._pages: dict[tuple[torch.dtype, int, int | None], list[Tensor]] = defaultdict(list)

    def take(self, parameter: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return pages full of zeros for the state of a parameter, if there are any of that size."""
        pages = self._pages[dtype, parameter.numel(), parameter.device.index]
        if not pages:
            return None
        page = pages.pop()
        taken: Any = page.view(parameter.shape).zero_()
        taken.is_paged, taken.page_deviceid = True, parameter.device.index
        GlobalPageManager.get_instance().paged_tensors.append(taken)
        return taken  # type: ignore[no-any-return]

    def give_back(self, pages: Iterable[Any]) -> None:
        """Keep pages that nothing uses any more."""
        manager = GlobalPageManager.get_instance()
        released = {id(page) for page in pages}
        manager.paged_tensors[:] = [page for page in manager.paged_tensors if id(page) not in released]
        for page in pages:
            self._pages[page.dtype, page.numel(), page.page_deviceid].append(page)


POOL = PagePool()


def adamw_8bit(groups: list[dict[str, Any]], weight_decay: float, free_bytes: float) -> torch.optim.Optimizer:
    """Return AdamW with a state in 8 bits; it computes the same with and without pages.

    Args:
        groups: parameter groups.
        weight_decay: decoupled weight decay.
        free_bytes: free memory of the device.
    """
    state_bytes = 2 * sum(parameter.numel() for group in groups for parameter in group["params"])
    is_short = state_bytes > FREE_MEMORY_FRACTION * free_bytes
    if is_short:
        return paged_adamw_8bit(groups, weight_decay)
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, weight_decay=weight_decay)
    return optimizer


def paged_adamw_8bit(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Return bitsandbytes' paged optimizer, which takes its pages from the pool and gives them back when it is gone.

    Args:
        groups: parameter groups.
        weight_decay: decoupled weight decay.
    """
    optimizer = PagedAdamW8bit(groups, weight_decay=weight_decay)
    # A strong reference would be a cycle, and the pages would come back only when the cycle is collected.
    reference, pages = weakref.ref(optimizer), list[Tensor]()

    def get_state_buffer(p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        is_small = p.device.type == "cpu" or p.numel() < MIN_PAGED_NUMEL
        buffer: Tensor | None = None if is_small else POOL.take(p, dtype)
        if buffer is None:
            buffer = PagedAdamW8bit.get_state_buffer(reference(), p, dtype=dtype)
        if not is_small:
            pages.append(buffer)
        return buffer

    optimizer.get_state_buffer = get_state_buffer
    weakref.finalize(optimizer, POOL.give_back, pages)
    paged: torch.optim.Optimizer = optimizer
    return paged
