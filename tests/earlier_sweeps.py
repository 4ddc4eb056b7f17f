"""The events of a sweep that ended some time ago."""

from collections.abc import Mapping, Sequence
from typing import Any

Trials = Mapping[str, Sequence[tuple[dict[str, Any], str, float | None]]]
"""By method: parameters, how the trial ended, and its last score."""


def sweep_events(name: str, trials: Trials, **changes: Any) -> list[dict[str, Any]]:
    """The events of a sweep over one task, ``mail``. Changes are to what is known of the task and its backbone."""
    known: dict[str, Any] = {"model": "tiny", "digest": "b" * 32, "architecture": "bert", "parameters": 22_000_000}
    known |= {"type": "classification", "metric": "macro_f1", "labels": 3, "rows": 6000, "characters": 80.0}
    known |= changes
    better = known["metric"] != "perplexity"
    task = {"digest": "d" * 64, "rows": {"train": known["rows"]}, "labels": [str(n) for n in range(known["labels"])]}
    task |= {"metric": known["metric"], "higher_is_better": better, "characters": known["characters"], "majority": 0.5}
    config = {"tasks": {"mail": {"type": known["type"], "metric": known["metric"]}}}
    backbone = {name: known[name] for name in ("model", "architecture", "parameters")}
    backbone |= {"digest": {"mail": known["digest"]}, "quantization": "nf4", "bytes": 1}
    told: list[dict[str, Any]] = [
        {"event": "sweep", "sweep": name, "config": config, "tasks": {"mail": task}, "backbone": backbone}
    ]
    for method, own in trials.items():
        for number, (params, state, value) in enumerate(own):
            trial = f"mail/{method}/{number}"
            told += [{"event": "trial", "trial": trial, "params": params, "seed": 0}]
            told += [{"event": "rung", "trial": trial, "step": 40, "value": value}] if value is not None else []
            told += [{"event": "end", "trial": trial, "state": state, "reason": ""}]
    return [{"time": 1_795_000_000.0 + second, **event} for second, event in enumerate(told)]
