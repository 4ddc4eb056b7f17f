"""The score of the untuned backbone on the test rows of a configuration: what a tuned one has to beat.

    python -m benchmarks.untuned examples/retrieval.yaml

Prints one JSON line for each task whose models have no head that is drawn at random, such as embedding and language
models: ``task``, ``rows``, and by metric the ``score`` with its 95 % ``interval`` over the rows.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from benchmarks._command_line import argument_parser, emit
from orchestrator.backbone.pretrained import pretrained
from orchestrator.backbone.source import resolve
from orchestrator.config import SweepConfig, load_config
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.selection.intervals import bootstrap_interval
from orchestrator.tasks import read_task, task_type


def main() -> None:
    """Read the configuration, and print a line per task."""
    parser = argument_parser(__doc__)
    parser.add_argument("config", type=Path)
    torch.set_num_threads(1)
    config = load_config(parser.parse_args().config)
    for name in config.tasks:
        score_untuned(config, name)


def score_untuned(config: SweepConfig, name: str) -> None:
    """Score the backbone of a task without any method, unless its head is new."""
    section, settings = config.tasks[name], config.backbone
    data = read_task(name, section, config.base, config.seed)
    kind, rows = task_type(section), data.splits["test"]
    if kind.head_size(len(data.labels)):
        return
    tokenizer = resolve(settings, config.base).tokenizer()
    backbone = pretrained(
        settings.model,
        section.type,
        quantization=settings.quantization,
        double_quantization=settings.double_quantization,
        revision=settings.revision,
    )
    tables = {"test": kind.tokenize(rows, tokenizer, config.training.max_length)}
    pad = int(tokenizer.pad_token_id or 0)
    dataset = TaskDataset(section, tables, pad, backbone.decoder, config.training, config.seed, tokenizer)
    evaluation = dataset.evaluate(backbone.view(0), "test")
    metrics = {}
    for metric, score in evaluation.metrics.items():
        statistic = partial(kind.score_many, metric, evaluation.predictions)
        interval = bootstrap_interval(statistic, rows.num_rows, seed=config.seed)
        metrics[metric] = {"score": score, "interval": interval}
    emit(benchmark="untuned", task=name, rows=rows.num_rows, metrics=metrics)


if __name__ == "__main__":
    main()
