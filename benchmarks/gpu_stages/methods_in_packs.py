"""Every method with the frozen prefix, as a lane uses it: alone, and in packs of six."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

import methods
from benchmarks.gpu_stages.lab import CLASSIFICATION, FEW_BLOCKS, TASK, Lab, take_step
from benchmarks.gpu_stages.report import Report
from methods.base.spec import MethodError
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine import FrozenPrefix, TaskDataset, TrialRun

PACK, STEPS, TOLERANCE = 6, 3, 2e-2
ROWS, TOKENS, BATCH = 32, 24, 4
WITH_A_HEAD = ("linear_probe", "last_layers", "lora", "adapter", "ia3", "prompt")
"""Methods that train a classifier too; the first two above a frozen prefix of most blocks."""


def methods_in_packs(lab: Lab, report: Report) -> None:
    """Take three steps with every method alone and in a pack, and compare the losses."""
    for task, candidates in {TASK: methods.names(), CLASSIFICATION: WITH_A_HEAD}.items():
        _compare(task, candidates, lab, report)


def _compare(task: str, candidates: Sequence[str], lab: Lab, report: Report) -> None:
    backbone = lab.backbone(FEW_BLOCKS, original=True, task=task)
    dataset = lab.dataset(backbone, ROWS, TOKENS)
    before = backbone.fingerprint()
    names = [name for name in candidates if _attaches(name, lab, backbone, dataset, report)]
    differences: dict[str, float] = {}
    with _messages() as messages:
        for first in range(0, len(names), PACK):
            pack = names[first : first + PACK]
            alone = [losses for name in pack for losses in _losses([name], lab, backbone, dataset)]
            together = _losses(pack, lab, backbone, dataset)
            for name, solo, packed in zip(pack, alone, together, strict=True):
                differences[name] = max(abs(a - b) / abs(a) for a, b in zip(solo, packed, strict=True))
                claim = f"{name} has the same losses in a pack ({task})"
                report.check(claim, differences[name] < TOLERANCE, f"{solo} {packed}")
            if report.seconds_left() < 0:
                report.skip(f"further methods ({task})", "no time left")
                break
    report.figure(f"{task}_methods", len(differences))
    worst = max(differences, key=lambda name: differences[name])
    report.figure(f"{task}_largest_relative_difference_of_losses", differences[worst])
    report.figure(f"{task}_method_with_the_largest_difference", worst)
    report.check(f"no packed step failed ({task})", not messages, messages[:1])
    report.check(f"no method wrote to the backbone ({task})", backbone.fingerprint() == before)


def _attaches(name: str, lab: Lab, backbone: SharedBackbone, dataset: TaskDataset, report: Report) -> bool:
    if not methods.get(name).trains:
        report.skip(name, "trains nothing")
        return False
    try:
        lab.trial(name, backbone, dataset, batch_size=BATCH)
    except MethodError as error:
        report.skip(name, str(error))
        return False
    return True


def _losses(names: Sequence[str], lab: Lab, backbone: SharedBackbone, dataset: TaskDataset) -> list[list[float]]:
    """Return the losses of three steps of each method, all of them in one pack."""
    prefix = FrozenPrefix(backbone)
    runs = [lab.trial(name, backbone, dataset, prefix=prefix, batch_size=BATCH) for name in names]
    losses = [_recorded_losses(run) for run in runs]
    for _ in range(STEPS):
        take_step(runs)
    return losses


def _recorded_losses(run: TrialRun) -> list[float]:
    """Return a list that every further step of a trial adds its loss to."""
    losses: list[float] = []
    finish_step = run.finish_step

    def record(loss: torch.Tensor, norm: torch.Tensor | None = None) -> None:
        losses.append(loss.item())
        finish_step(loss, norm)

    run.finish_step = record  # type: ignore[method-assign]
    return losses


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collect the engine's warnings about packed steps."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("orchestrator.engine.step")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
