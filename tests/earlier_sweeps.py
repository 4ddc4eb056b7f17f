"""Events of a sweep that ended earlier."""

from collections.abc import Mapping, Sequence
from typing import Any

Trials = Mapping[str, Sequence[tuple[dict[str, Any], str, float | None]]]
"""By method: hyperparameters of a trial, the state in which it ended, and its last score."""


def sweep_events(name: str, trials: Trials, **changes: Any) -> list[dict[str, Any]]:
    """Return the events of a sweep over one task, ``mail``; changes apply to the metadata of task and backbone."""
    metadata: dict[str, Any] = {"model": "tiny", "digest": "b" * 32, "architecture": "bert", "parameters": 22_000_000}
    metadata |= {"type": "classification", "metric": "macro_f1", "labels": 3, "rows": 6000, "characters": 80.0}
    metadata |= changes
    better = metadata["metric"] != "perplexity"
    task: dict[str, Any] = {
        "digest": "d" * 64,
        "rows": {"train": metadata["rows"]},
        "labels": [str(n) for n in range(metadata["labels"])],
    }
    task |= {
        "metric": metadata["metric"],
        "higher_is_better": better,
        "characters": metadata["characters"],
        "majority": 0.5,
    }
    config = {"tasks": {"mail": {"type": metadata["type"], "metric": metadata["metric"]}}}
    backbone = {name: metadata[name] for name in ("model", "architecture", "parameters")}
    backbone |= {"digest": {"mail": metadata["digest"]}, "quantization": "nf4", "bytes": 1}
    events: list[dict[str, Any]] = [
        {"event": "sweep", "sweep": name, "config": config, "tasks": {"mail": task}, "backbone": backbone}
    ]
    for method, method_trials in trials.items():
        for number, (params, state, value) in enumerate(method_trials):
            trial = f"mail/{method}/{number}"
            events += [{"event": "trial", "trial": trial, "params": params, "seed": 0}]
            events += [{"event": "rung", "trial": trial, "step": 40, "value": value}] if value is not None else []
            events += [{"event": "end", "trial": trial, "state": state, "reason": ""}]
    return [{"time": 1_795_000_000.0 + second, **event} for second, event in enumerate(events)]
