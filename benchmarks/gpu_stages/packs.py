"""Packs against trials one by one: samples per second, and kernels per step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.gpu_stages.lab import ONE_BILLION, Lab, take_step
from benchmarks.gpu_stages.report import GAIN, Report
from benchmarks.gpu_stages.steps import profile_kernels
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine import TaskDataset, TrialRun
from orchestrator.engine.memory import available_bytes

SIZES = (1, 2, 4, 8, 16)
CASES = (("lora", 4, 64), ("mixed", 4, 64), ("lora", 1, 512), ("lora", 16, 128))
MIXED = ("lora", "ia3", "adapter", "prompt", "dora", "prefix", "qlora", "norm_tuning")
TIMED_ROUNDS, MEMORY_MARGIN = 2, 1.2


def packs(lab: Lab, report: Report) -> None:
    """Time packs of all sizes, of LoRA only and of mixed methods."""
    backbone = lab.backbone(ONE_BILLION)
    ratios: dict[str, dict[int, float]] = {}
    for kind, rows, tokens in CASES if not lab.small else (("lora", 2, 16), ("mixed", 2, 16)):
        case = f"{kind}_{rows}x{tokens}"
        dataset = lab.dataset(backbone, 64, tokens)
        runs: list[TrialRun] = []
        for size in SIZES if not lab.small else SIZES[:3]:
            if report.seconds_left() < 0:
                report.skip(f"{case}, packs of {size} and more", "no time left")
                break
            needed = MEMORY_MARGIN * size * max((run.alone_bytes for run in runs), default=0)
            if lab.cuda and needed > available_bytes(lab.device):
                report.skip(f"{case}, packs of {size} and more", f"needs {needed / 1e9:.0f} GB")
                break
            runs += [_trial(kind, lab, backbone, dataset, rows, k) for k in range(len(runs), size)]
            for run in runs:
                if not run.tokens:
                    take_step([run])
            one_by_one = lab.median_seconds(partial(_each_alone, runs), TIMED_ROUNDS, report)
            take_step(runs)
            packed = lab.median_seconds(partial(take_step, runs), TIMED_ROUNDS, report)
            report.figure(f"samples_per_second_{case}_pack_{size}", size * rows / packed)
            report.figure(f"samples_per_second_{case}_one_by_one_{size}", size * rows / one_by_one)
            ratios.setdefault(case, {})[size] = round(packed / one_by_one, 4)
            if lab.require_gpu(report, "kernels per step"):
                kernels = profile_kernels(partial(take_step, runs))
                report.figure(f"kernels_per_step_{case}_pack_{size}", kernels.count)
        del runs[:]
        lab.collect()
    report.recommend("lanes.pack", ", ".join(f"{case}: {_best(sizes)}" for case, sizes in ratios.items()), ratios)


def _trial(kind: str, lab: Lab, backbone: SharedBackbone, dataset: TaskDataset, rows: int, number: int) -> TrialRun:
    method = MIXED[number % len(MIXED)] if kind == "mixed" else "lora"
    return lab.trial(method, backbone, dataset, number=number, batch_size=rows)


def _best(ratios: dict[int, float]) -> int:
    """Return the size of the fastest packs, 1 where none gains enough."""
    size = min(ratios, key=lambda size: ratios[size])
    return size if ratios[size] <= 1 - GAIN else 1


def _each_alone(runs: Sequence[TrialRun]) -> None:
    for run in runs:
        take_step([run])
