"""How far a lane is from what its processor can multiply.

One lane, one core, NF4 MiniLM: each method trains alone, then all of them in one pack, and each is scored as at a rung.
A line has the seconds of the fastest step (or pass over the rows that are scored) and its parts, as torch's profiler
sees them: ``products`` of the frozen layers, ``unpacking`` of their weights, ``casts`` between the stream's precision
and the products', and ``other``, which is everything else. ``products_rate`` is what those products reach, as a
fraction of the rate of a large square product in the same precision; ``limit`` is the fraction of the whole that they
would take at that rate. The last line has the means over methods.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import search_spaces
from benchmarks._common import MINILM, as_a_lane, attached_backbone, emit, scratch
from benchmarks.lane import TOKENS, random_rows
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

METHODS = ("lora", "ia3", "adapter", "prefix", "linear_probe")
FROZEN = ("FrozenMatmul", "FrozenMatmulBackward", "_SharedMatmul", "_SharedMatmulBackward")
PRODUCTS = ("aten::linear", "aten::matmul", "aten::mm")
UNPACKING = ("bitsandbytes::dequantize_blockwise", "bitsandbytes::dequantize_4bit", "aten::add_")
SQUARE = 2048


def main() -> None:
    """Measure every method, alone and packed, at every batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32], help=f"rows of {TOKENS} tokens")
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    as_a_lane()
    torch.set_num_threads(1)
    rate = product_rate(compute_dtype("auto", torch.device("cpu")))
    emit(benchmark="limit", gigaflops=rate / 1e9)
    with scratch() as folder:
        backbone, rows = attached_backbone(MINILM, "classification", folder), random_rows(folder)
        found = [one for batch in asked.batch for one in _at_batch(batch, backbone, rows, asked.repeats, rate)]
    emit(
        benchmark="limit",
        ratio=statistics.mean(one["limit"] for one in found),
        products=statistics.mean(one["products"] for one in found),
        products_rate=statistics.mean(one["products_rate"] for one in found),
    )


def product_rate(dtype: torch.dtype, repeats: int = 15) -> float:
    """Operations per second of this core in a large square product, the best of several."""
    left, right = (torch.randn(SQUARE, SQUARE).to(dtype) for _ in range(2))
    return 2 * SQUARE**3 / min(_seconds(lambda: left @ right) for _ in range(repeats))


def measured(work: Callable[[], Any], repeats: int, rate: float) -> dict[str, float]:
    """Seconds of a piece of work without the profiler, and its parts with it; the fastest of each.

    Args:
        work: can be done again and again.
        repeats: how often.
        rate: operations per second that products could reach.
    """
    work()
    seconds = min(_seconds(work) for _ in range(repeats))
    whole, parts = min((_profiled(work) for _ in range(repeats)), key=lambda found: found[0])
    shares = {name: spent / whole for name, spent in parts.items() if name != "operations"}
    products, flops = parts["products"], parts["operations"]
    return {
        "seconds": seconds,
        **shares,
        "other": 1 - sum(shares.values()),
        "products_rate": flops / products / rate,
        "limit": flops / rate / seconds,
    }


def parts_of(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of what happens in frozen layers, by kind, and the operations of their products."""
    found = {"products": 0.0, "unpacking": 0.0, "casts": 0.0, "operations": 0.0}
    for event in events:
        if event.name in FROZEN:
            for child in event.cpu_children:
                found[_kind(child.name)] += child.cpu_time_total / 1e6
                if child.name in PRODUCTS:
                    found["operations"] += operations_of(child.input_shapes)
    return found


def _at_batch(
    batch: int, backbone: SharedBackbone, rows: TaskDataset, repeats: int, rate: float
) -> Iterator[dict[str, float]]:
    """Of every method's step alone, and of all in one pack."""
    for methods in (*((name,) for name in METHODS), METHODS):
        runs = [_run(name, batch, backbone, rows) for name in methods]
        label = {"benchmark": "limit", "method": "+".join(methods), "rows": batch, "tokens": TOKENS}
        stepping = measured(partial(train_step, runs), repeats, rate)
        emit(**label, phase="step", **stepping)
        yield stepping
        if len(runs) == 1:
            scoring = measured(partial(_scored, runs[0], rows), max(2, repeats // 3), rate)
            emit(**label, phase="evaluation", **scoring)


def _run(method: str, batch: int, backbone: SharedBackbone, rows: TaskDataset) -> TrialRun:
    params = {**search_spaces.get(method).default, "batch_size": batch}
    many = 10_000  # steps, more than are taken
    job = Job(trial=TrialKey(f"task/{method}", 0), params=params, seed=0, start=0, stop=many, total=many)
    return TrialRun(job, backbone, rows, Training())


def _scored(run: TrialRun, rows: TaskDataset) -> None:
    """As at a rung; a trial itself would remember what it has scored."""
    run.attached.train(False)
    with torch.no_grad():
        rows.evaluate(run.attached.module, "validation")


def _profiled(work: Callable[[], Any]) -> tuple[float, Mapping[str, float]]:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        seconds = _seconds(work)
    return seconds, parts_of(profiler.events())


def _kind(name: str) -> str:
    if name in PRODUCTS:
        return "products"
    return "unpacking" if name in UNPACKING else "casts"


def operations_of(shapes: Sequence[Sequence[int]]) -> float:
    """Of ``x`` with a weight, in either orientation: a multiplication and an addition for each pair."""
    x, weight = shapes[:2]
    return 2.0 * math.prod(x) * math.prod(weight) / x[-1]


def _seconds(work: Callable[[], Any]) -> float:
    """Of the processor, on one thread: what else the machine does is not counted."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
