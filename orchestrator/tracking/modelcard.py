"""The model card of a registered method, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orchestrator.backbone.plain_code import plain_imports, plain_model
from orchestrator.selection.looks import level_text, look_text
from orchestrator.selection.recommend import measured_text
from orchestrator.selection.results import MethodResult, outcome
from orchestrator.selection.selection import Preference, probability_text
from orchestrator.tasks.batches import EVALUATION_TOKENS
from orchestrator.tracking.bundle import ADAPTER, Bundle, BundleBackbone, PeftAgreement
from orchestrator.tracking.error_tables import NO_ERRORS, ErrorTables
from orchestrator.tracking.selection_note import sentence

VERSION = "VERSION"
"""What stands for the version's number in a card until it is registered."""
COSTS: tuple[Preference, ...] = ("size", "memory", "latency")


def model_card(
    bundle: Bundle,
    results: Sequence[MethodResult] = (),
    *,
    trials: Mapping[str, int] = MappingProxyType({}),
    untuned: MethodResult | None = None,
    peft: bool = False,
    errors: ErrorTables = NO_ERRORS,
) -> str:
    """Return the card.

    Args:
        bundle: bundle of the model.
        results: results of all scored methods, in the order to show.
        trials: number of trials of each method.
        untuned: result of the recommended method with its default parameters.
        peft: whether `peft` loads the adapter.
        errors: scores per class, and the rows that the model is most wrong about.
    """
    parts = [
        _head(bundle),
        _score(bundle),
        errors.markdown(),
        _selection(bundle),
        _comparison(bundle, results, trials, untuned),
        _use(bundle, peft),
        _origin(bundle),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(bundle: Bundle) -> str:
    purpose = bundle.task_type.purpose(bundle.labels)
    return (
        f"# {bundle.task}\n\n{purpose}: a `{bundle.method}` adapter on the frozen backbone `{bundle.backbone.model}`"
        f" ({_precision(bundle)}). Licence of the backbone: {bundle.backbone.licence or 'unknown'}."
    )


def _precision(bundle: Bundle) -> str:
    backbone = bundle.backbone
    double = " with double quantization" if backbone.double_quantization and "4" in backbone.quantization else ""
    quantization = "not quantized" if backbone.quantization == "none" else f"{backbone.quantization}{double}"
    return f"{quantization}, computed in {backbone.compute_dtype}"


def _score(bundle: Bundle) -> str:
    rows = f"{bundle.rows['test']:,} test rows" if "test" in bundle.rows else "the test split"
    seeds = len(bundle.seed_scores)
    score = f"**{bundle.metric} {bundle.mean_score:.3f}** {_interval(bundle.interval)}"
    if seeds > 1:
        lines = [
            f"{score}: mean over {seeds} seeds on {rows}, with the {_level(bundle)} interval over rows and seeds.",
            f"This checkpoint is that of the seed with the best validation score; its own test score is"
            f" {bundle.checkpoint_score:.3f}.",
        ]
    else:
        lines = [f"{score}: one seed on {rows}, with the {_level(bundle)} interval over rows; other seeds may differ."]
    again = look_text(bundle.selection.look) if bundle.selection else ""
    scored = sentence(again, capital=False) if again else "The test rows were scored once, after the search."
    lines.append(f"{scored} The interval does not cover other data.")
    others = [f"{name} {value:.3f}" for name, value in bundle.metrics.items() if name != bundle.metric]
    for name, (mean, *interval) in bundle.other_scores.items():
        lines.append(f"{name} {mean:.3f} {_interval((interval[0], interval[1]))}, which did not decide.")
    if others:
        lines.append(f"Other metrics of this checkpoint: {', '.join(others)}.")
    if bundle.majority is not None:
        lines.append(f"Predicting the most frequent label for every row has an accuracy of {bundle.majority:.3f}.")
    elif bundle.baseline is not None:
        type_ = bundle.task_type
        label = type_.metric(type_.baseline_metric).label
        lines.append(f"Predicting the {type_.baseline_name} for every row has an {label} of {bundle.baseline:.3f}.")
    lines += _baseline(bundle)
    return "## Score\n\n" + "\n".join(lines)


def _level(bundle: Bundle) -> str:
    return level_text(bundle.selection.look if bundle.selection else 1)


def _baseline(bundle: Bundle) -> Iterator[str]:
    """Yield how the method compares with the best trivial predictor, and which seeds have collapsed."""
    if (trivial := bundle.trivial) is not None:
        verdict = (
            "This method is better"
            if trivial.is_beaten
            else "**This method was not shown to be better**, and has no alias"
        )
        yield (
            f"The best trivial predictor, {trivial.name}, has {bundle.metric} {trivial.score:.3f}"
            f" {_interval(trivial.interval)} on the same rows. {verdict}: the difference is {trivial.lead:+.3f}, its"
            f" lower bound {trivial.lead_low:+.3f} ({_level(bundle)} level)."
        )
    if bundle.collapsed_seeds:
        count = f"{bundle.collapsed_seeds} of {len(bundle.seed_scores)} seeds"
        yield f"**{count} gave every test row the same answer.**"


def _selection(bundle: Bundle) -> str:
    if (selection := bundle.selection) is None:
        return ""
    is_unbeaten = bundle.trivial is not None and not bundle.trivial.is_beaten
    named = "No method is recommended; the closest is" if is_unbeaten else "Recommended method:"
    lines = [f"{named} `{selection.recommended}`. Reason: {sentence(selection.reason, capital=False)}"]
    if bundle.method != selection.recommended:
        lines.append(
            f"`{bundle.method}` is tied with it: the difference is not significant at the {_level(bundle)} level."
        )
    if selection.probability:
        lines.append(f"Probability: {probability_text(selection.probability)}.")
    if bundle.method == selection.recommended and selection.runner_up:
        lines.append(f"Runner-up: `{selection.runner_up}`, {sentence(selection.runner_up_reason, capital=False)}")
    return "## Selection\n\n" + "\n".join(lines)


def _comparison(
    bundle: Bundle, results: Sequence[MethodResult], trials: Mapping[str, int], untuned: MethodResult | None
) -> str:
    if not results:
        return ""
    recommended = bundle.selection.recommended if bundle.selection else ""
    rows = [
        (result.method, result, str(trials.get(result.method, "")), outcome(result.to_dict(), recommended))
        for result in results
    ]
    if untuned:
        rows.append((f"{untuned.method} (default parameters)", untuned, "1", ""))
    backbone = bundle.measurements.get("backbone_bytes", 0.0)
    included = "with the backbone" if backbone else "above the backbone"
    scores = _table(
        ("method", f"mean score on test [{_level(bundle)} interval]", "seeds", "result"),
        [
            (name, f"{result.mean_score:.3f} {_interval(result.interval)}", str(len(result.seed_scores)), text)
            for name, result, _, text in rows
        ],
    )
    costs = _table(
        ("method", "trials", "best validation score", *COSTS),
        [(name, count, f"{result.validation:.3f}", *_costs(result, backbone)) for name, result, count, _ in rows],
    )
    return (
        f"## Comparison ({bundle.metric})\n\n{scores}\n\nTrials of the search and measurements (adapter size on disk,"
        f" memory of training {included}, latency that it adds unmerged, as `predict` and MLflow run it):\n\n{costs}"
    )


def _costs(result: MethodResult, backbone: float) -> tuple[str, ...]:
    return tuple(measured_text(name, result.measurements, backbone=backbone) for name in COSTS)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _use(bundle: Bundle, peft: bool) -> str:
    example, reference = bundle.input_schema.example, f"{bundle.task}/{VERSION}"
    frame = ", ".join(f"{_json(name)}: [{_json(value)}]" for name, value in example.items())
    lines = [
        "## Use\n",
        "With MLflow, whose tracking URI is set (`MLFLOW_TRACKING_URI`):\n",
        "```python",
        "import mlflow",
        "import pandas as pd",
        "",
        f'model = mlflow.pyfunc.load_model("models:/{reference}")',
        f"print(model.predict(pd.DataFrame({{{frame}}})))",
        "```",
        "",
        f"On the command line, with rows like `{_json(example)}`, one a line:\n",
        "```sh",
        f"peft-sweep predict {reference} < rows.jsonl",
        f"peft-sweep models verify {reference}",
        "```",
        "",
        f"As a server: `mlflow models serve -m models:/{reference} --env-manager local`.",
    ]
    if peft:
        lines += ["", *_peft(bundle, reference)]
    return "\n".join(lines)


def _peft(bundle: Bundle, reference: str) -> Iterator[str]:
    """Yield how peft loads the adapter, and how far that is from what was scored."""
    model, type_ = bundle.backbone.model, bundle.task_type
    labels = type_.head_size(len(bundle.labels))
    expression = plain_model(model, type_.auto_class, revision=bundle.backbone.revision, labels=labels)
    *resources, transformers = plain_imports(model, type_.auto_class)
    yield "With peft and transformers alone, over the unquantized backbone:\n"
    yield from ("```python", *resources, "import mlflow", "from peft import PeftModel", transformers, "")
    yield f'folder = mlflow.artifacts.download_artifacts("models:/{reference}/artifacts/bundle/{ADAPTER}")'
    yield from (f"model = {expression}", "model = PeftModel.from_pretrained(model, folder)", "```", "")
    score = "" if bundle.backbone.quantization == "none" else " The score above is not that of this combination."
    yield agreement_text(bundle.backbone, bundle.peft_agreement) + score


def agreement_text(backbone: BundleBackbone, agreement: PeftAgreement | None) -> str:
    """Return how far an adapter over the unquantized backbone predicts what was recorded, a sentence.

    Args:
        backbone: backbone that the adapter was trained on.
        agreement: what was measured; ``None`` if nothing was.
    """
    if backbone.quantization == "none":
        return "The backbone was not quantized in training either."
    trained = f"The adapter was trained and scored over `{backbone.model}` in {backbone.quantization}, not over that"
    if agreement is None:
        return f"{trained}, and how far the predictions of this combination differ was not measured."
    rows = f"{agreement.rows:,} test rows"
    other = "" if agreement.differing is None else f"{agreement.differing:,} of {rows} get another answer, and "
    where = f"the largest difference of a {agreement.numbers} is {agreement.largest_difference:.3g}"
    compared = f" (first {rows})" if agreement.differing is None else " (the first ones)"
    return f"{trained}: {other}{where}{compared}."


def with_version(card: str, number: int) -> str:
    """Return a card with the number of the version that it belongs to.

    Args:
        card: a card that :func:`model_card` made before there was a version.
        number: number of the version.
    """
    return card.replace(f"/{VERSION}", f"/{number}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _origin(bundle: Bundle) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in bundle.rows.items())
    settings = "\n".join(_settings(bundle))
    environment, backbone = bundle.environment, bundle.backbone
    return f"""## Origin

- sweep `{bundle.sweep}`, trial `{bundle.trial}`
- data: {rows or "unknown"} rows, digest `{bundle.data_digest}`
- backbone: digest `{backbone.digest}`, checksum `{backbone.checksum}`, revision {backbone.revision or "none"}
- evaluation: batches of up to {bundle.evaluation_batch} rows and {EVALUATION_TOKENS:,} tokens, rows of up to
  {bundle.max_length} tokens
- environment: {environment.threads} threads, torch {environment.torch}, {environment.device} ({environment.cpu})

| parameter or measurement | value |
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
