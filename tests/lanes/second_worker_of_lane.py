"""Rank 1 of the tests of a lane of two workers, and the functions that both ranks run."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from orchestrator.config import Training
from orchestrator.engine.ranks import Ranks
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes import worker as worker_module
from orchestrator.lanes import worker_memory as memory_module
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.tasks import Evaluation

from ..engine.conftest import Lab, build_lab
from ..engine.two_workers import process_group

STEPS = 20
SCENES: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "adapter": {"method": "adapter"},
    "prefix": {"method": "prefix"},
    "full": {"method": "full", "learning_rate": 1e-3},
    "adalora": {"method": "adalora", "batch_size": 5},
    "additive_prompt": {"method": "additive_prompt"},
    "one row": {"method": "ia3", "batch_size": 1},
    "micro-batches": {"method": "lora", "batch_size": 7, "micro_batches": 3},
}
PACK = ("lora", "prefix", "adapter")


class Recorded(TrialRun):
    """A trial that records the loss of every step."""

    losses: list[float]

    def finish_step(self, loss: Tensor, norm: Tensor | None = None) -> None:
        self.losses.append(loss.item())
        super().finish_step(loss, norm)


def small_batches(lab: Lab) -> Training:
    """Return limits with which an evaluation has more batches than ranks, and not as many for each rank."""
    return lab.training.model_copy(update={"evaluation_batch": 9})


def dataset_of(lab: Lab, ranks: Ranks) -> TaskDataset:
    dataset = copy.copy(lab.dataset)
    dataset.ranks, dataset.training = ranks, small_batches(lab)
    return dataset


def start_scene(lab: Lab, ranks: Ranks, number: int, method: str, micro_batches: int = 1, **changes: Any) -> Recorded:
    """Start a trial without dropout: of the method and, where the backbone itself trains, of the backbone."""
    job = lab.job(method, number, stop=STEPS, total=STEPS, **changes)
    run = Recorded(job, lab.backbone, dataset_of(lab, ranks), lab.training)
    for module in run.attached.module.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    run.losses, run._size = [], StepSize(micro_batches)
    return run


def train_scenes(lab: Lab, ranks: Ranks) -> dict[str, tuple[list[float], TrialRun]]:
    """Train every scene alone, and the pack together."""
    runs = {name: start_scene(lab, ranks, number, **scene) for number, (name, scene) in enumerate(SCENES.items())}
    packed = {f"packed {name}": start_scene(lab, ranks, k, **SCENES[name]) for k, name in enumerate(PACK)}
    for group in ([[run] for run in runs.values()], [list(packed.values())]):
        for together in group:
            for _ in range(STEPS):
                assert train_step(together, ranks) == []
    return {name: (run.losses, run) for name, run in {**runs, **packed}.items()}


def parameters(runs_by_name: dict[str, tuple[list[float], TrialRun]]) -> dict[str, Tensor]:
    return {
        f"{name}/{parameter_name}": parameter.detach().clone().contiguous()
        for name, (_, run) in runs_by_name.items()
        for parameter_name, parameter in run.attached.trainable().items()
    }


def score_scenes(runs_by_name: dict[str, tuple[list[float], TrialRun]]) -> dict[str, Evaluation]:
    return {name: run.evaluate("validation") for name, (_, run) in runs_by_name.items() if name in ("lora", "prefix")}


def lane_setup(lab: Lab, folder: Path, pack: int) -> LaneSetup:
    task = TaskSetup(lab.dataset._config, lab.dataset._tables, 3, "tiny", "original", 0)
    return LaneSetup(
        storage=str(folder),
        sweep="sweep",
        model="tiny",
        dtype="float32",
        tasks={"mail": task},
        training=small_batches(lab),
        seed=0,
        pack=pack,
    )


@contextmanager
def without_ray(lab: Lab) -> Iterator[None]:
    """Replace calls of the broker's actor by plain calls, and take backbones from the lab."""
    context = SimpleNamespace(get_node_id=lambda: "node")
    plain = SimpleNamespace(get=lambda x: x, get_runtime_context=lambda: context)
    fetch = lambda digest, storage: lab.folder / f"{digest}.safetensors"  # noqa: E731
    with (
        mock.patch.object(worker_module, "ray", plain),
        mock.patch.object(memory_module, "ray", plain),
        mock.patch.object(memory_module, "fetch", fetch),
        mock.patch.object(worker_module, "HEARTBEAT_INTERVAL_S", 0.01),
    ):
        yield


class Setup:
    """The part of a broker that workers other than rank 0 call."""

    def __init__(self, setup: LaneSetup) -> None:
        self.setup = SimpleNamespace(remote=lambda lane: setup)


@contextmanager
def failing_forward(number: int, at: int) -> Iterator[None]:
    """Let one trial raise in this process alone."""
    forward = TrialRun.forward

    def fail_once(run: TrialRun, *, keep_random: bool = True) -> Tensor:
        if run.job.trial.number == number and run.step == at:
            raise RuntimeError("out of luck")
        return forward(run, keep_random=keep_random)

    with mock.patch.object(TrialRun, "forward", fail_once):
        yield


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    (folder / "second").mkdir()
    lab = build_lab(folder / "second", "encoder")
    with process_group(1, folder) as ranks:
        runs_by_name = train_scenes(lab, ranks)
        score_scenes(runs_by_name)
        save_file(parameters(runs_by_name), folder / "second.safetensors")
        ranks.all_gather_object("saved")
        with without_ray(lab), failing_forward(number=1, at=4):
            worker_module.Worker(0, Setup(lane_setup(lab, folder, pack=3)), ranks).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
