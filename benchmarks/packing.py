"""Speed-up of packed training steps over the same steps one trial at a time, on one lane with one core.

    python -m benchmarks.packing
    python -m benchmarks.packing --calls

Eight trials (``pack``: all of LoRA, or of eight methods) train in batches of three shapes (rows x tokens), on NF4
MiniLM and on a small NF4 Llama with random weights. Every round takes a step of all eight, once for each pack size.
Times are CPU seconds of this thread. A line per model, pack and shape:

- ``milliseconds_per_step_unpacked``: CPU milliseconds of a trial's step alone, median over the rounds.
- ``speedup_N``: time of the unpacked steps over that in packs of N, median over the rounds; above 1 is faster.
- ``auto_size``: pack size that ``pack: auto`` would keep after the first rounds; ``auto_speedup``: its speed-up in the
  later rounds.

The last line has ``speedup``, that of packs of eight of the mixed methods on MiniLM with 4 x 16 tokens, and
``worst_auto_speedup``, the lowest ``auto_speedup`` of all lines.

``joint_speedup`` is that of all eight in joint passes, as a GPU takes them.

``--calls`` counts the operators that a step calls, with torch's profiler: a call within another is not counted, views
are. On a GPU a call takes about as long as a small kernel, whatever its rows are; the count is the same on any machine.
A line per model and pack (``lora``: ranks from 4 to 32 at all linear layers; ``mixed``: eight methods):
``calls_one_by_one``, ``calls_packed`` in a joint pass, and ``calls_ratio``, the second over the first. The last line
has ``ratio``: that of ``lora`` on Llama and that of ``mixed`` on MiniLM.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaModel

from benchmarks._common import (
    MINILM,
    argument_parser,
    emit,
    load_shared_backbone,
    restart_with_lane_heap,
    scratch_folder,
)
from benchmarks._random_trials import cpu_seconds, random_dataset, start_run, step_all
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.pack_sizes import GAIN, SAMPLES
from orchestrator.engine.task_dataset import TaskDataset

SIZES = (1, 2, 4, 8)
SHAPES = ((4, 16), (8, 32), (16, 32))
PACKS = {
    "lora": ("lora",) * 8,
    "mixed": ("lora", "ia3", "adapter", "prefix", "prompt", "linear_probe", "dora", "deep_prompt"),
}
CALL_PACKS: dict[str, tuple[str, ...]] = {
    "lora": ("lora",) * 8,
    "mixed": ("lora", "ia3", "adapter", "bitfit", "dora", "norm_tuning", "prefix", "prompt"),
}
RANKS = (4, 8, 16, 32)


def main() -> None:
    """Measure every model, pack and shape."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=6,
        help=f"rounds after the first {SAMPLES}, from which auto chooses its pack size (default: %(default)s)",
    )
    parser.add_argument("--calls", action="store_true", help="count operator calls instead of measuring time")
    options = parser.parse_args()
    if options.calls:
        torch.set_num_threads(1)
        count_all_calls()
        return
    rounds = options.rounds
    restart_with_lane_heap()
    torch.set_num_threads(1)
    results: dict[tuple[str, str, tuple[int, int]], dict[str, float]] = {}
    with scratch_folder() as folder:
        for model, reference in {"MiniLM": MINILM, "Llama": write_small_llama(folder)}.items():
            backbone = load_shared_backbone(reference, "classification", folder)
            for shape in SHAPES:
                dataset = random_dataset(shape[1], 256, folder)
                for pack, methods in PACKS.items():
                    result = measure_speedups(methods, shape[0], backbone, dataset, rounds)
                    emit(benchmark="packing", model=model, pack=pack, rows=shape[0], tokens=shape[1], **result)
                    results[model, pack, shape] = result
    emit(
        benchmark="packing",
        worst_auto_speedup=min(result["auto_speedup"] for result in results.values()),
        speedup=results["MiniLM", "mixed", SHAPES[0]]["speedup_8"],
    )


def measure_speedups(
    methods: Sequence[str], batch: int, backbone: SharedBackbone, dataset: TaskDataset, rounds: int
) -> dict[str, float]:
    """Return the speed-up of every pack size, and of the size that a lane would choose."""
    runs = [start_run(method, number, batch, backbone, dataset) for number, method in enumerate(methods)]
    step_all(runs, 1)
    step_all(runs, len(runs))
    step_all(runs, len(runs), joint=True)
    seconds, joint_seconds = [], []
    for _ in range(SAMPLES + rounds):
        seconds.append({size: cpu_seconds(partial(step_all, runs, size)) for size in SIZES})
        joint_seconds.append(cpu_seconds(partial(step_all, runs, len(runs), joint=True)))
    joint_speedups = (times[1] / joint for times, joint in zip(seconds, joint_seconds, strict=True))
    auto_size = _auto_size(seconds[:SAMPLES])
    return {
        "milliseconds_per_step_unpacked": 1e3 * statistics.median(times[1] for times in seconds) / len(runs),
        **{f"speedup_{size}": _speedup(seconds, size) for size in SIZES[1:]},
        "joint_speedup": statistics.median(joint_speedups),
        "auto_size": auto_size,
        "auto_speedup": _speedup(seconds[SAMPLES:], auto_size),
    }


def count_all_calls() -> None:
    """Count the calls of every model and pack."""
    ratios: dict[tuple[str, str], float] = {}
    with scratch_folder() as folder:
        for model, reference in {"MiniLM": MINILM, "Llama": write_small_llama(folder)}.items():
            backbone = load_shared_backbone(reference, "classification", folder)
            dataset = random_dataset(SHAPES[0][1], 256, folder)
            for pack, methods in CALL_PACKS.items():
                if model == "Llama":  # it has no biases
                    methods = tuple("ia3" if method == "bitfit" else method for method in methods)
                counts = count_calls(methods, SHAPES[0][0], backbone, dataset)
                ratios[model, pack] = counts["calls_ratio"]
                emit(benchmark="packing", model=model, pack=pack, **counts)
    emit(benchmark="packing", ratio={"lora": ratios["Llama", "lora"], "mixed": ratios["MiniLM", "mixed"]})


def count_calls(methods: Sequence[str], batch: int, backbone: SharedBackbone, dataset: TaskDataset) -> dict[str, float]:
    """Return the operator calls of one step of all trials, one by one and in a joint pass."""
    runs = [
        start_run(method, k, batch, backbone, dataset, {"rank": RANKS[k % 4]} if method in ("lora", "dora") else None)
        for k, method in enumerate(methods)
    ]
    counts = []
    for pack_size in (1, len(runs)):
        step = partial(step_all, runs, pack_size, joint=True)
        for _ in range(2):  # the first makes optimizers' states and shows who draws random numbers, the second the view
            step()
        counts.append(_operator_calls(step))
    alone, packed = counts
    return {"calls_one_by_one": alone, "calls_packed": packed, "calls_ratio": round(packed / alone, 3)}


def _operator_calls(step: Callable[[], None]) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    events = [event for event in profiler.events() or () if event.name.startswith("aten::")]
    return sum(event.cpu_parent is None or not event.cpu_parent.name.startswith("aten::") for event in events)


def write_small_llama(folder: Path) -> str:
    """Write a checkpoint of Llama's architecture, with 17 million random weights in its blocks; return its folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 6}
    LlamaModel(LlamaConfig(**sizes, vocab_size=4096, pad_token_id=0)).save_pretrained(folder / "llama")  # type: ignore[arg-type]
    return str(folder / "llama")


def _speedup(seconds: Sequence[Mapping[int, float]], size: int) -> float:
    return statistics.median(times[1] / times[size] for times in seconds)


def _auto_size(seconds: Sequence[Mapping[int, float]]) -> int:
    """Return the pack size that a lane chooses: no pack, half of the trials, or all."""
    costs = {size: statistics.median(times[size] for times in seconds) for size in (1, 4, 8)}
    best = min(costs, key=lambda size: costs[size])
    return best if costs[best] < GAIN * costs[1] else 1


if __name__ == "__main__":
    main()
