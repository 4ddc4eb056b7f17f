"""A trial that is saved and restored, with dropout; and what the optimizers of small trials leave behind."""

from __future__ import annotations

from bitsandbytes.functional import GlobalPageManager

from benchmarks.gpu_stages.lab import FEW_BLOCKS, ONE_BILLION, Lab, take_step
from benchmarks.gpu_stages.report import Report
from orchestrator.engine import TrialRun

METHODS, DROPOUT, HALFWAY, END = ("lora", "qlora", "dora"), 0.3, 3, 6
TRIALS, STEPS = 5, 2


def resume(lab: Lab, report: Report) -> None:
    """Save at step 3, restore into a new trial, and compare both at step 6."""
    backbone = lab.backbone(FEW_BLOCKS)
    dataset = lab.dataset(backbone, 32, 24)
    for name in METHODS:
        straight, paused, restored = (
            lab.trial(name, backbone, dataset, batch_size=4, dropout=DROPOUT, learning_rate=1e-2) for _ in range(3)
        )
        _train(straight, END)
        _train(paused, HALFWAY)
        folder = lab.folder / f"halfway-{name}"
        folder.mkdir()
        paused.save(folder, resumable=True)
        restored.restore(folder)
        _train(restored, END - HALFWAY)
        pairs = zip(straight.parameters, restored.parameters, strict=True)
        largest = max(float((first - second).abs().max()) for first, second in pairs)
        report.figure(f"largest_difference_{name}", largest)
        report.check(f"{name} is bit-equal at step {END}", largest == 0.0, largest)


def optimizer_pages(lab: Lab, report: Report) -> None:
    """Run small trials of qlora one after another, and count the pages that bitsandbytes keeps."""
    if not lab.require_gpu(report, "pages of the optimizer's state"):
        return
    backbone = lab.backbone(ONE_BILLION)
    dataset = lab.dataset(backbone, 16, 32)
    pages = GlobalPageManager.get_instance().paged_tensors
    before = len(pages)
    seconds = []
    for number in range(TRIALS):
        run = lab.trial("qlora", backbone, dataset, number=number, batch_size=4, rank=16)
        _train(run, STEPS)
        folder = lab.folder / f"qlora-{number}"
        folder.mkdir()
        run.save(folder, resumable=True)
        run.restore(folder)
        seconds.append(lab.seconds_per_round([run], report, steps=2))
        del run
        lab.collect()
    report.figure("seconds_per_step", min(seconds))
    report.figure("pages_left", len(pages) - before)
    report.figure("page_bytes_left", sum(page.nbytes for page in pages[before:]))
    report.check("no pages are left", len(pages) == before, f"{len(pages) - before} after {TRIALS} trials")


def _train(run: TrialRun, steps: int) -> None:
    for _ in range(steps):
        take_step([run])
