"""LoRA's step on an 8B shape: seconds, share of the time that the GPU computes, peak memory against the estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_stages.lab import EIGHT_BILLION, TASK, Lab, take_step
from benchmarks.gpu_stages.report import Report
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import InputError
from orchestrator.config import GpuSettings
from orchestrator.engine import TrialRun
from orchestrator.planning.estimates import Batch, StepModel
from orchestrator.tasks import TASK_TYPES

SHAPES = ((16, 64), (16, 128), (8, 512), (2, 2048))
"""Rows and tokens of a batch."""
SMALL_SHAPES, SETTINGS_SHAPE = ((2, 16), (1, 32)), (8, 512)
RANK, HIGH_RANK = 16, 256
ATTENTION = "attention"
SETTINGS: dict[str, tuple[str, ...]] = {
    "keep_unpacked": ("scales", "weights"),
    "trainable_products": ("tf32", "bfloat16"),
    ATTENTION: ("eager", "flash_attention_2"),
}
DEFAULTS = {"keep_unpacked": "nothing", "trainable_products": "float32", ATTENTION: "auto"}
SECONDS_PER_SETTING = 8.0
"""Seconds that loading the backbone and some steps take at most."""
ESTIMATE_TOLERANCE = 0.15


@dataclass(frozen=True)
class Kernels:
    """What one step does on the GPU.

    Args:
        count: kernels that are launched.
        seconds: seconds that they take together.
    """

    count: int
    seconds: float


def steps(lab: Lab, report: Report) -> None:
    """Time steps at every shape with today's defaults, then compare their memory with the plan's estimates."""
    backbone = lab.backbone(EIGHT_BILLION)
    peaks: dict[tuple[int, int], float] = {}
    for rows, tokens in SHAPES if not lab.small else SMALL_SHAPES:
        if report.seconds_left() < 0:
            report.skip(f"{rows}x{tokens}", "no time left")
            continue
        run = _measure(lab, report, backbone, rows, tokens)
        if run.measurements["micro_batches"] == 1:
            peaks[rows, tokens] = run.measurements["peak_memory_bytes"]
        del run
    rows, tokens = SETTINGS_SHAPE if not lab.small else SMALL_SHAPES[0]
    run = _trial(lab, backbone, rows, tokens, rank=HIGH_RANK if not lab.small else 8)
    report.figure(f"seconds_per_step_{rows}x{tokens}_high_rank", lab.seconds_per_round([run], report))
    del run, backbone
    _compare_settings(lab, report)
    _compare_with_estimates(lab, report, peaks)


def _compare_settings(lab: Lab, report: Report) -> None:
    """Time steps with each setting changed, relative to the defaults."""
    if not lab.require_gpu(report, "settings of gpu: and backbone.attention"):
        return
    shapes = (SETTINGS_SHAPE, SHAPES[0])
    default = {shape: _seconds(lab, report, shape) for shape in shapes}
    for setting, values in SETTINGS.items():
        ratios: dict[str, float] = {}
        for value in values:
            if report.seconds_left() < SECONDS_PER_SETTING:
                report.skip(f"{setting}: {value}", "no time left")
                continue
            try:
                options: dict[str, Any] = (
                    {"attention": value}
                    if setting == ATTENTION
                    else {"gpu": GpuSettings.model_validate({setting: value})}
                )
                relative = {shape: _seconds(lab, report, shape, **options) / default[shape] for shape in shapes}
            except InputError as error:
                report.skip(f"{setting}: {value}", error.lines()[0])
                continue
            for (rows, tokens), ratio in relative.items():
                report.figure(f"time_relative_to_default_{rows}x{tokens}_{setting}_{value}", ratio)
            ratios[value] = round(math.prod(relative.values()) ** (1 / len(relative)), 4)
        section = "backbone" if setting == ATTENTION else "gpu"
        report.recommend_fastest(f"{section}.{setting}", DEFAULTS[setting], ratios)
    torch.set_float32_matmul_precision("highest")


def _seconds(lab: Lab, report: Report, shape: tuple[int, int], **settings: Any) -> float:
    """Return the seconds of a step with a backbone that was loaded with some settings."""
    torch.set_float32_matmul_precision("highest")  # loading sets what the settings say
    backbone = lab.backbone(EIGHT_BILLION, **settings)
    return lab.seconds_per_round([_trial(lab, backbone, *shape)], report, steps=3)


def _measure(lab: Lab, report: Report, backbone: SharedBackbone, rows: int, tokens: int) -> TrialRun:
    shape = f"{rows}x{tokens}"
    run = _trial(lab, backbone, rows, tokens)
    seconds = lab.seconds_per_round([run], report)
    report.figure(f"seconds_per_step_{shape}", seconds)
    report.figure(f"micro_batches_{shape}", run.measurements["micro_batches"])
    report.figure(f"peak_bytes_{shape}", run.measurements["peak_memory_bytes"])
    if lab.require_gpu(report, "GPU busy share and kernels per step"):
        kernels = profile_kernels(lambda: take_step([run]))
        report.figure(f"kernels_per_step_{shape}", kernels.count)
        report.figure(f"gpu_busy_share_{shape}", kernels.seconds / seconds)
    return run


def _compare_with_estimates(lab: Lab, report: Report, peaks: dict[tuple[int, int], float]) -> None:
    """Check the estimates; each takes the processor some seconds."""
    config, kind = lab.config(EIGHT_BILLION), TASK_TYPES[TASK]
    options: dict[str, Any] = {"name": "random", "labels": 0, "quantization": "nf4", "dtype": lab.dtype}
    model = StepModel(config, kind, **options, cuda=lab.cuda)
    for (rows, tokens), peak in peaks.items():
        shape = f"{rows}x{tokens}"
        if report.seconds_left() < 0:
            report.skip(f"estimate of {shape}", "no time left")
            continue
        cost = model.cost("lora", _params(lab, rows), Batch(rows=rows, tokens=tokens, targets=tokens // 2))
        report.check(f"there is an estimate at {shape}", cost is not None)
        if cost is not None:
            report.figure(f"estimated_peak_bytes_{shape}", cost.peak_bytes)
            if lab.require_gpu(report, "peak within 15 % of the estimate"):
                ratio = cost.peak_bytes / peak
                report.check(f"the estimate is within 15 % at {shape}", abs(ratio - 1) < ESTIMATE_TOLERANCE, ratio)


def _trial(lab: Lab, backbone: SharedBackbone, rows: int, tokens: int, rank: int | None = None) -> TrialRun:
    lab.collect()
    return lab.trial("lora", backbone, lab.dataset(backbone, rows, tokens), **_params(lab, rows, rank))


def _params(lab: Lab, rows: int, rank: int | None = None) -> dict[str, Any]:
    return {"batch_size": rows, "rank": rank or (RANK if not lab.small else 4), "targets": "all_linear"}


def profile_kernels(call: Any) -> Kernels:
    """Return the kernels of one call."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or () if str(event.device_type) == "DeviceType.CUDA"]
    return Kernels(len(events), sum(event.self_device_time_total for event in events) / 1e6)
