"""Memory of a language model's loss in chunks, against that with the logits of all counted tokens at once.

    python -m benchmarks.chunked_loss

A line ``scoring`` has the estimated memory of scoring 64 rows of 4,096 tokens above the backbone, for the architecture
of Llama-3-8B in NF4 on a GPU with LoRA, at default settings, and the same with all rows and logits at once. A line
``step`` has the measured peak of a training step of SmolLM2-135M on the processor, 4 rows of 512 tokens of which all
but the first count, in chunks and at once: ``peak_ratio``, and the relative ``loss_difference``. The measurement is
that of a lane: the largest amount of memory above its level before the trial, in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING

import search_spaces
from benchmarks._common import SMOLLM2, argument_parser, emit, load_shared_backbone, scratch_folder
from benchmarks.capability_matrix import LLAMA_3_8B
from benchmarks.memory_estimates import random_dataset
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.planning.estimates import Batch, StepModel
from orchestrator.tasks import TASK_TYPES, token_losses
from orchestrator.tasks.batches import evaluation_rows

TASK, WHOLE = "causal-lm", 2**60
CHUNKED = token_losses.CHUNK_LOGITS
SCORED_ROWS, SCORED_TOKENS = 64, 4096
STEP_ROWS, STEP_TOKENS = 4, 512


def main() -> None:
    """Estimate scoring, and measure steps."""
    parser = argument_parser(__doc__)
    parser.add_argument("--method", default="lora", help="method whose step is measured (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimate_scoring()
    with scratch_folder() as folder:
        measure_steps(arguments.method, folder)


def estimate_scoring() -> None:
    """Print the line of scoring."""
    values = json.loads(json.dumps(LLAMA_3_8B))
    config = CONFIG_MAPPING[values.pop("model_type")](**values)
    model = StepModel(
        config, TASK_TYPES[TASK], name="llama", labels=0, quantization="nf4", dtype=torch.bfloat16, cuda=True
    )
    rows = evaluation_rows(SCORED_TOKENS, Training().evaluation_batch)
    chunked, whole = (
        scoring_bytes(model, Batch(rows=count, tokens=SCORED_TOKENS, targets=SCORED_TOKENS - 1), logits)
        for count, logits in ((rows, CHUNKED), (SCORED_ROWS, WHOLE))
    )
    emit(
        benchmark="chunked_loss",
        case="scoring",
        rows=SCORED_ROWS,
        tokens=SCORED_TOKENS,
        rows_at_once=rows,
        estimated_bytes=chunked,
        estimated_bytes_at_once=whole,
    )


def scoring_bytes(model: StepModel, batch: Batch, chunk_logits: int) -> float:
    """Return the estimated memory of scoring a batch with LoRA's default configuration."""
    token_losses.CHUNK_LOGITS = chunk_logits
    estimate = model.scoring_bytes("lora", search_spaces.get("lora").default, batch)
    if estimate is None:
        raise RuntimeError("there is no estimate for lora")
    return estimate


def measure_steps(method: str, folder: Path) -> None:
    """Print the line of steps."""
    backbone = load_shared_backbone(SMOLLM2, TASK, folder)
    dataset = random_dataset(TASK, STEP_TOKENS, backbone, folder, targets=STEP_TOKENS - 1)
    chunked, whole = (measure_step(method, backbone, dataset, logits) for logits in (CHUNKED, WHOLE))
    emit(
        benchmark="chunked_loss",
        case="step",
        method=method,
        rows=STEP_ROWS,
        tokens=STEP_TOKENS,
        peak_bytes=chunked[0],
        peak_bytes_at_once=whole[0],
        peak_ratio=chunked[0] / whole[0],
        loss=chunked[1],
        loss_difference=abs(chunked[1] - whole[1]) / whole[1],
    )


def measure_step(method: str, backbone: SharedBackbone, dataset: TaskDataset, chunk_logits: int) -> tuple[float, float]:
    """Return the peak memory of one step above the backbone in bytes, and its loss, from a process of its own."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_step, args=(sender, method, backbone, dataset, chunk_logits))
    process.start()
    sender.close()
    peak, loss = receiver.recv()
    process.join()
    return peak, loss


def _step(sender: Connection, method: str, backbone: SharedBackbone, dataset: TaskDataset, chunk_logits: int) -> None:
    token_losses.CHUNK_LOGITS = chunk_logits
    params = {**search_spaces.get(method).default, "batch_size": STEP_ROWS}
    job = Job(trial=TrialKey(f"task/{method}", 0), params=params, seed=0, start=0, stop=2, total=2)
    run = TrialRun(job, backbone, dataset, Training())
    loss = run.forward()
    loss.backward()
    run.finish_step(loss.detach())
    sender.send((run.measurements["peak_memory_bytes"], loss.item()))


if __name__ == "__main__":
    main()
