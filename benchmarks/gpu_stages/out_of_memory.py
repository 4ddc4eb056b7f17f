"""Running out of memory: alone, in a pack, and beside trials that are kept; what is left allocated afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from benchmarks.gpu_stages.lab import ONE_BILLION, Lab, take_step
from benchmarks.gpu_stages.report import Report
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine import TrialRun

ROWS, TOKENS = 16, 256
CAP_SHARE = 0.6
"""Share of the bytes that a whole batch needs, which the device is capped at."""
LEFT_BYTES = 32 * 2**20
"""Bytes that may stay allocated: cuBLAS's workspace, for instance."""


def out_of_memory(lab: Lab, report: Report) -> None:
    """Cap the device so that a batch does not fit, step all the same, and look at what is left."""
    if not lab.require_gpu(report, "everything: the processor's memory cannot be capped"):
        return
    backbone = lab.backbone(ONE_BILLION)
    whole = _trial(lab, backbone, 0)
    take_step([whole])
    take_step([whole])
    needed = whole.measurements["peak_memory_bytes"]
    report.figure("peak_bytes_of_a_whole_batch", needed)
    del whole
    for name, trials, kept in (("alone", 1, 0), ("in_a_pack", 3, 0), ("beside_kept_trials", 1, 3)):
        lab.collect()
        baseline = torch.cuda.memory_allocated(lab.device)
        _step_capped(lab, report, backbone, name, trials, kept, needed)
        lab.collect()
        left = torch.cuda.memory_allocated(lab.device) - baseline
        report.figure(f"bytes_left_{name}", left)
        report.check(f"nothing stays allocated ({name})", left < LEFT_BYTES, f"{left} bytes")


def _step_capped(
    lab: Lab, report: Report, backbone: SharedBackbone, name: str, trials: int, kept: int, needed: float
) -> None:
    kept_runs = [_trial(lab, backbone, 10 + k) for k in range(kept)]
    for run in kept_runs:
        take_step([run])
    runs = [_trial(lab, backbone, k) for k in range(trials)]
    lab.collect()
    with _capped(lab, torch.cuda.memory_allocated(lab.device) + CAP_SHARE * needed):
        _check_steps(report, name, runs)
    report.figure(f"micro_batches_{name}", max(run.measurements["micro_batches"] for run in runs))
    report.check(f"the batch was split ({name})", any(run.measurements["micro_batches"] > 1 for run in runs))


def _check_steps(report: Report, name: str, runs: Sequence[TrialRun]) -> None:
    for _ in range(2):
        try:
            take_step(runs)
        except RuntimeError as error:
            report.check(f"trials step with less memory ({name})", ok=False, detail=error)
            return


@contextmanager
def _capped(lab: Lab, allowed_bytes: float) -> Iterator[None]:
    """Refuse this process more bytes of the device."""
    total = torch.cuda.get_device_properties(lab.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed_bytes / total), lab.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, lab.device)


def _trial(lab: Lab, backbone: SharedBackbone, number: int) -> TrialRun:
    dataset = lab.dataset(backbone, ROWS, TOKENS)
    return lab.trial("lora", backbone, dataset, number=number, batch_size=ROWS)
