"""Packed steps against the same steps one by one, on one lane of one core.

Eight trials, LoRA alone or eight methods, in batches of three shapes, on NF4 MiniLM and on a small NF4 Llama with
random weights. Every round steps all of them in groups of each size in turn; ``ratio`` is the seconds of one by one
over those of a size, both in this thread's processor time, as the median over the rounds. ``auto`` is the size that a
lane would stay with after the first rounds, and ``auto_ratio`` what that came to in the rounds after them.

The last line has the ratio of eight mixed trials of 4 x 16 tokens on MiniLM, and the worst that ``auto`` came to.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaModel

from benchmarks._common import MINILM, as_a_lane, attached_backbone, emit, scratch
from benchmarks._pack_trials import begin, rows_of, seconds_of, stepped
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.pack_sizes import GAIN, SAMPLES
from orchestrator.engine.task_dataset import TaskDataset

SIZES = (1, 2, 4, 8)
SHAPES = ((4, 16), (8, 32), (16, 32))
PACKS = {
    "lora": ("lora",) * 8,
    "mixed": ("lora", "ia3", "adapter", "prefix", "prompt", "linear_probe", "dora", "deep_prompt"),
}


def main() -> None:
    """Measure every model, pack and shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="after the first ones, which auto decides by")
    rounds = parser.parse_args().rounds
    as_a_lane()
    torch.set_num_threads(1)
    found: dict[tuple[str, str, tuple[int, int]], dict[str, float]] = {}
    with scratch() as folder:
        for model, reference in {"MiniLM": MINILM, "Llama": small_llama(folder)}.items():
            backbone = attached_backbone(reference, "classification", folder)
            for shape in SHAPES:
                rows = rows_of(shape[1], 256, folder)
                for pack, methods in PACKS.items():
                    line = compare(methods, shape[0], backbone, rows, rounds)
                    emit(benchmark="packing", model=model, pack=pack, batch=shape[0], tokens=shape[1], **line)
                    found[model, pack, shape] = line
    emit(
        benchmark="packing",
        worst_auto_ratio=min(line["auto_ratio"] for line in found.values()),
        ratio=found["MiniLM", "mixed", SHAPES[0]]["ratio_8"],
    )


def compare(
    methods: Sequence[str], batch: int, backbone: SharedBackbone, rows: TaskDataset, rounds: int
) -> dict[str, float]:
    """The ratio of every size, and of the one that a lane would choose."""
    runs = [begin(method, number, batch, backbone, rows) for number, method in enumerate(methods)]
    stepped(runs, 1)
    stepped(runs, len(runs))
    seconds = [{size: seconds_of(partial(stepped, runs, size)) for size in SIZES} for _ in range(SAMPLES + rounds)]
    chosen = _chosen(seconds[:SAMPLES])
    return {
        "milliseconds_alone": 1e3 * statistics.median(one[1] for one in seconds) / len(runs),
        **{f"ratio_{size}": _ratio(seconds, size) for size in SIZES[1:]},
        "auto": chosen,
        "auto_ratio": _ratio(seconds[SAMPLES:], chosen),
    }


def small_llama(folder: Path) -> str:
    """A checkpoint of Llama's architecture with random weights, 17 million of them in its blocks."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 6}
    LlamaModel(LlamaConfig(**sizes, vocab_size=4096, pad_token_id=0)).save_pretrained(folder / "llama")  # type: ignore[arg-type]
    return str(folder / "llama")


def _ratio(seconds: Sequence[Mapping[int, float]], size: int) -> float:
    return statistics.median(one[1] / one[size] for one in seconds)


def _chosen(seconds: Sequence[Mapping[int, float]]) -> int:
    """As a lane chooses among one by one, half and all."""
    costs = {size: statistics.median(one[size] for one in seconds) for size in (1, 4, 8)}
    best = min(costs, key=lambda size: costs[size])
    return best if costs[best] < GAIN * costs[1] else 1


if __name__ == "__main__":
    main()
