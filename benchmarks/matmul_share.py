"""Share of a lane's time in the frozen layers' matmuls, and the share that they would need at the core's peak rate.

    python -m benchmarks.matmul_share

One lane with one core, NF4 MiniLM: each method trains alone, then all methods train in one pack, and each is scored on
the validation rows. The first line has ``peak_gigaflops``, 10^9 operations per second of a large square matmul in the
precision of the frozen layers, the fastest of several. A line per method, batch size and phase has ``seconds``, CPU
seconds of the fastest step (or scoring), and fractions of it, as torch's profiler measures them:

- ``matmuls``: matmuls of the frozen layers; ``dequantizing``: of their weights; ``casts``: between the activations'
  precision and the matmuls'; ``other``: everything else. They add up to 1.
- ``matmul_efficiency``: operations per second of these matmuls, as a fraction of the peak.
- ``matmul_share_at_peak``: fraction of ``seconds`` that these matmuls would take at the peak.

The last line has the means over the training lines.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import search_spaces
from benchmarks._common import (
    MINILM,
    argument_parser,
    emit,
    load_shared_backbone,
    restart_with_lane_heap,
    scratch_folder,
)
from benchmarks.trial_start import TOKENS, random_dataset
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

METHODS = ("lora", "ia3", "adapter", "prefix", "linear_probe")
FROZEN_LAYERS = ("FrozenMatmul", "FrozenMatmulBackward", "_SharedMatmul", "_SharedMatmulBackward")
MATMULS = ("aten::linear", "aten::matmul", "aten::mm")
DEQUANTIZING = ("bitsandbytes::dequantize_blockwise", "bitsandbytes::dequantize_4bit", "aten::add_")
SQUARE_SIZE = 2048
MAX_STEPS = 10_000  # more than are taken


def main() -> None:
    """Measure every method, alone and packed, at every batch size."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[8, 32],
        help=f"batch sizes, in rows of {TOKENS} tokens (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=7, help="measurements per line (default: %(default)s)")
    arguments = parser.parse_args()
    restart_with_lane_heap()
    torch.set_num_threads(1)
    peak = measure_peak_flops(compute_dtype("auto", torch.device("cpu")))
    emit(benchmark="matmul_share", peak_gigaflops=peak / 1e9)
    with scratch_folder() as folder:
        backbone, dataset = load_shared_backbone(MINILM, "classification", folder), random_dataset(folder)
        results = [
            result
            for batch in arguments.batch
            for result in _measure_methods(batch, backbone, dataset, arguments.repeats, peak)
        ]
    emit(
        benchmark="matmul_share",
        matmul_share_at_peak=statistics.mean(result["matmul_share_at_peak"] for result in results),
        matmuls=statistics.mean(result["matmuls"] for result in results),
        matmul_efficiency=statistics.mean(result["matmul_efficiency"] for result in results),
    )


def measure_peak_flops(dtype: torch.dtype, repeats: int = 15) -> float:
    """Return the operations per second of this core in a large square matmul, the fastest of several."""
    x, weight = (torch.randn(SQUARE_SIZE, SQUARE_SIZE).to(dtype) for _ in range(2))
    return 2 * SQUARE_SIZE**3 / min(_cpu_seconds(lambda: x @ weight) for _ in range(repeats))


def measure_call(call: Callable[[], Any], repeats: int, peak: float) -> dict[str, float]:
    """Return the seconds of a call without the profiler, and its parts with it; the fastest of each.

    Args:
        call: work that can be repeated.
        repeats: number of repeats.
        peak: operations per second of a large matmul.
    """
    call()
    seconds = min(_cpu_seconds(call) for _ in range(repeats))
    profiled_seconds, parts = min((_profile(call) for _ in range(repeats)), key=lambda measurement: measurement[0])
    shares = {name: spent / profiled_seconds for name, spent in parts.items() if name != "operations"}
    operations = parts["operations"]
    return {
        "seconds": seconds,
        **shares,
        "other": 1 - sum(shares.values()),
        "matmul_efficiency": operations / parts["matmuls"] / peak,
        "matmul_share_at_peak": operations / peak / seconds,
    }


def sum_parts(events: Iterable[Any]) -> dict[str, float]:
    """Return the seconds in frozen layers, by kind of work, and the operations of their matmuls.

    Args:
        events: events of torch's profiler, with input shapes.
    """
    parts = {"matmuls": 0.0, "dequantizing": 0.0, "casts": 0.0, "operations": 0.0}
    for event in events:
        if event.name in FROZEN_LAYERS:
            for child in event.cpu_children:
                parts[_kind(child.name)] += child.cpu_time_total / 1e6
                if child.name in MATMULS:
                    parts["operations"] += count_operations(child.input_shapes)
    return parts


def _measure_methods(
    batch: int, backbone: SharedBackbone, dataset: TaskDataset, repeats: int, peak: float
) -> Iterator[dict[str, float]]:
    """Print the lines of a batch size, and yield those of the training steps."""
    for methods in (*((name,) for name in METHODS), METHODS):
        runs = [_start_run(name, batch, backbone, dataset) for name in methods]
        label = {"benchmark": "matmul_share", "method": "+".join(methods), "rows": batch, "tokens": TOKENS}
        step = measure_call(partial(train_step, runs), repeats, peak)
        emit(**label, phase="step", **step)
        yield step
        if len(runs) == 1:
            scoring = measure_call(partial(_score, runs[0], dataset), max(2, repeats // 3), peak)
            emit(**label, phase="scoring", **scoring)


def _start_run(method: str, batch: int, backbone: SharedBackbone, dataset: TaskDataset) -> TrialRun:
    params = {**search_spaces.get(method).default, "batch_size": batch}
    job = Job(trial=TrialKey(f"task/{method}", 0), params=params, seed=0, start=0, stop=MAX_STEPS, total=MAX_STEPS)
    return TrialRun(job, backbone, dataset, Training())


def _score(run: TrialRun, dataset: TaskDataset) -> None:
    """Score the validation rows as at a rung; ``run.evaluate`` would return its result of an earlier call."""
    run.attached.train(False)
    with torch.no_grad():
        dataset.evaluate(run.attached.module, "validation")


def _profile(call: Callable[[], Any]) -> tuple[float, Mapping[str, float]]:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        seconds = _cpu_seconds(call)
    return seconds, sum_parts(profiler.events())


def _kind(name: str) -> str:
    if name in MATMULS:
        return "matmuls"
    return "dequantizing" if name in DEQUANTIZING else "casts"


def count_operations(shapes: Sequence[Sequence[int]]) -> float:
    """Return the multiplications and additions of a matmul.

    Args:
        shapes: shape of the input, ``(..., features)``, and of the weight, in either orientation.
    """
    x, weight = shapes[:2]
    return 2.0 * math.prod(x) * math.prod(weight) / x[-1]


def _cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of this process in a call, which other load on the machine hardly changes."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
