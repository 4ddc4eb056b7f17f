"""The model card: what a person who finds a model in the registry wants to know, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.tracking.bundle import ADAPTER, Bundle

COSTS = ("size", "memory", "latency")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One line of the comparison: a method at its best.

    Args:
        method: its name.
        trials: how many it had.
        validation: its best score there.
        test: its score on the test split, over its seeds; ``None`` where it was not looked at.
        interval: of the test score, 95 %.
        seeds: how many there were.
        verdict: recommended, tied, or how far behind.
        costs: size, memory and latency as people read them, by :data:`COSTS`.
    """

    method: str
    trials: int
    validation: float
    test: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 1
    verdict: str = ""
    costs: tuple[str, str, str] = ("", "", "")


def model_card(bundle: Bundle, compared: Sequence[Compared] = (), *, peft: bool = False) -> str:
    """Write the card.

    Args:
        bundle: the model.
        compared: the methods that it was compared with, in the order to show.
        peft: whether `peft` loads the adapter.
    """
    parts = [
        _head(bundle),
        _score(bundle),
        _why(bundle),
        _comparison(bundle, compared),
        _use(bundle, peft),
        _origin(bundle),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(bundle: Bundle) -> str:
    what = f"assigns one of {len(bundle.labels)} labels ({', '.join(bundle.labels)}) to a text"
    if bundle.type == "causal-lm":
        what = "completes a prompt"
    return (
        f"# {bundle.task}\n\nIt {what}: a `{bundle.method}` adapter on the frozen backbone `{bundle.backbone.model}`"
        f" ({_precision(bundle)})."
    )


def _precision(bundle: Bundle) -> str:
    backbone = bundle.backbone
    double = " with double quantization" if backbone.double_quantization and "4" in backbone.quantization else ""
    kept = "not quantized" if backbone.quantization == "none" else f"{backbone.quantization}{double}"
    return f"{kept}, computed in {backbone.compute_dtype}"


def _score(bundle: Bundle) -> str:
    rows = f" on {bundle.rows['test']:,} test rows" if "test" in bundle.rows else " on the test split"
    seeds = len(bundle.comparison.scores) if bundle.comparison else 1
    mean = f", the mean over {seeds} seeds" if seeds > 1 else ""
    score = f"**{bundle.metric} {bundle.estimate:.3f}** {_interval(bundle.interval)}"
    lines = [f"## Score\n\n{score}{rows}{mean}, looked at once."]
    if seeds > 1:
        lines.append(
            f"This adapter is the one with the best validation score; its own test score is {bundle.score:.3f}."
        )
    others = [f"{name} {value:.3f}" for name, value in bundle.metrics.items() if name != bundle.metric]
    if others:
        lines.append(f"Also: {', '.join(others)}.")
    if bundle.majority is not None:
        lines.append(f"Always naming the most frequent label would have an accuracy of {bundle.majority:.3f}.")
    lines.append(
        "The interval is at 95 % and covers other test rows and other seeds; it knows nothing of other data."
        if seeds > 1
        else "The interval is a 95 % bootstrap over test rows; it knows nothing of other seeds or other data."
    )
    return "\n".join(lines)


def _why(bundle: Bundle) -> str:
    if (found := bundle.comparison) is None:
        return ""
    lines = ["## Why this one\n", found.reason]
    if bundle.method != found.recommended:
        lines.append(
            f"So the sweep recommends `{found.recommended}`; `{bundle.method}` is as good as far as it can tell."
        )
    elif found.runner_up:
        lines.append(f"The runner-up is `{found.runner_up}`: {found.runner_up_lost}")
    return "\n".join(lines)


def _comparison(bundle: Bundle, compared: Sequence[Compared]) -> str:
    if not compared:
        return ""
    scores = _table(
        ("method", "test", "seeds", ""),
        [(one.method, _test(one), str(one.seeds), one.verdict) for one in compared],
    )
    costs = _table(
        ("method", "trials", "best on validation", *COSTS),
        [(one.method, str(one.trials), f"{one.validation:.3f}", *one.costs) for one in compared],
    )
    return f"## Compared with ({bundle.metric})\n\n{scores}\n\nWhat each of them took:\n\n{costs}"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _test(one: Compared) -> str:
    if one.test is None:
        return ""
    return f"{one.test:.3f} {_interval(one.interval)}" if one.interval else f"{one.test:.3f}"


def _use(bundle: Bundle, peft: bool) -> str:
    text = "Thank you!" if bundle.type == "classification" else "Once upon a time"
    lines = [
        "## Use\n",
        "```python",
        "import mlflow, pandas as pd",
        "",
        f'model = mlflow.pyfunc.load_model("models:/{bundle.task}@champion")',
        f'model.predict(pd.DataFrame({{"{bundle.column}": ["{text}"]}}))',
        "```",
        "",
        f"On the command line: `peft-sweep predict {bundle.task}@champion < rows.jsonl`, with rows like"
        f' `{{"{bundle.column}": "{text}"}}`; as a server: `mlflow models serve -m models:/{bundle.task}@champion`'
        f" `--env-manager local`. Check it with `peft-sweep models verify {bundle.task}@champion`.",
    ]
    if peft:
        lines += [
            f"The folder `artifacts/bundle/{ADAPTER}` also loads with `peft.PeftModel.from_pretrained(model, folder)`.",
        ]
    return "\n".join(lines)


def _origin(bundle: Bundle) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in bundle.rows.items())
    settings = "\n".join(_settings(bundle))
    environment, backbone = bundle.environment, bundle.backbone
    return f"""## Origin

- sweep `{bundle.sweep}`, trial `{bundle.trial}`
- data: {rows or "rows"}, digest `{bundle.data_digest}`
- backbone: digest `{backbone.digest}`, checksum `{backbone.checksum}`, revision {backbone.revision or "none"}
- scored in batches of {bundle.evaluation_batch} rows of up to {bundle.max_length} tokens
- by {environment.threads} threads, torch {environment.torch}, {environment.device} ({environment.cpu})

| parameter | value |
| --- | --- |
{settings}"""


def _settings(bundle: Bundle) -> Iterator[str]:
    for name, value in bundle.params.items():
        yield f"| {name} | {value:g} |" if isinstance(value, float) else f"| {name} | {value} |"
    for name, number in bundle.measurements.items():
        shown = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
        yield f"| {name.replace('_', ' ')} | {shown} |"


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"
