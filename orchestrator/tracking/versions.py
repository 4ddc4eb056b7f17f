"""The content of the registry: names, versions, aliases, and the tags of a version."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.selection.baseline import NO_BETTER, state_of
from orchestrator.tasks import recorded_metric
from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.promotion_policy import Promotion, ScoredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
MAX_TAG_LENGTH = 1000
LISTED_MEASUREMENTS = (
    "trainable_parameters",
    "adapter_bytes",
    "peak_memory_bytes",
    "backbone_bytes",
    "latency_overhead_1",
    "latency_overhead_32",
    "mergeable",
)
"""Measurements that are tags of a version, for lists and filters; all of them are in its card."""
EARLIER_TAGS = {"score": "mean_score", "scores": "seed_scores", "runner_up_lost": "runner_up_reason"}
"""Today's tags by those of release 0.1."""
_PROMOTION_TAG = re.compile(r"title_(\d+)")
_PROMOTION_TEXT = re.compile(r"(promoted|returned) after version (\d+)")


def identity(bundle: Bundle) -> dict[str, str]:
    """Return the tags that identify a version."""
    return {"sweep": bundle.sweep, "trial_key": bundle.trial}


def tags_of(bundle: Bundle) -> dict[str, str]:
    """Return all tags of a version: for filters, lists, and the promotion policy."""
    backbone = bundle.backbone
    return {
        **identity(bundle),
        "task": bundle.task,
        "trial": str(bundle.trial_key.number),
        "method": bundle.method,
        "backbone": backbone.model,
        "backbone_digest": backbone.digest,
        "backbone_checksum": backbone.checksum,
        "quantization": backbone.quantization,
        **({"licence": backbone.licence} if backbone.licence else {}),
        "metric": bundle.metric,
        "higher_is_better": "true" if bundle.higher_is_better else "false",
        "mean_score": repr(bundle.mean_score),
        "interval_low": repr(bundle.interval[0]),
        "interval_high": repr(bundle.interval[1]),
        "checkpoint_score": repr(bundle.checkpoint_score),
        "test_rows": str(bundle.rows.get("test", "")),
        "data_digest": bundle.data_digest,
        **_selection_tags(bundle),
        **_baseline_tags(bundle),
        **{
            name: _digits(bundle.measurements[name])
            for name in LISTED_MEASUREMENTS
            if math.isfinite(bundle.measurements.get(name, math.nan))
        },
    }


def _digits(value: float) -> str:
    """Return a number with all its digits; a whole one without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _selection_tags(bundle: Bundle) -> dict[str, str]:
    """Return the tags of the sweep's selection; none for a bundle whose method was not compared."""
    if (selection := bundle.selection) is None:
        return {}
    tags = {
        "role": "recommended" if bundle.method == selection.recommended else "tied",
        "seeds": str(len(bundle.seed_scores)),
        "seed_scores": json.dumps(bundle.seed_scores),
        "recommended": selection.recommended,
        "reason": selection.reason,
        "tied": ", ".join(selection.tied),
        "probability": repr(share) if (share := selection.probability.get(bundle.method)) is not None else "",
        "look": str(selection.look) if selection.look > 1 else "",
        "runner_up": selection.runner_up,
        "runner_up_reason": selection.runner_up_reason,
    }
    return {name: value[:MAX_TAG_LENGTH] for name, value in tags.items() if value}


def _baseline_tags(bundle: Bundle) -> dict[str, str]:
    """Return the tags of the best trivial predictor; none where there is none."""
    tags = {"collapsed_seeds": str(bundle.collapsed_seeds)} if bundle.collapsed_seeds else {}
    if (trivial := bundle.trivial) is None:
        return tags
    return {
        **tags,
        "state": state_of(is_better=trivial.is_beaten),
        "baseline": trivial.name[:MAX_TAG_LENGTH],
        "baseline_score": repr(trivial.score),
        "baseline_low": repr(trivial.interval[0]),
        "baseline_high": repr(trivial.interval[1]),
        "lead_over_baseline": repr(trivial.lead),
        "lead_over_baseline_low": repr(trivial.lead_low),
    }


def version_link(name: str, number: int, text: str = "") -> str:
    """Return a Markdown link to a version's page, relative to MLflow's address; by default it names the model too."""
    return f"[{text or f'{name} version {number}'}](#/models/{quote(name, safe='')}/versions/{number})"


def in_todays_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a version of any release under today's names."""
    return {EARLIER_TAGS.get(name, name): value for name, value in tags.items()}


def scored_version(version: int, tags: Mapping[str, str]) -> ScoredVersion:
    """Return a version as the promotion policy reads it.

    Args:
        version: number of the version.
        tags: its tags, of this release or an earlier one.
    """
    tags = in_todays_tags(tags)
    return ScoredVersion(
        version=version,
        mean_score=float(tags["mean_score"]),
        interval=(float(tags["interval_low"]), float(tags["interval_high"])),
        metric=recorded_metric(tags["metric"], higher_is_better=tags["higher_is_better"] == "true"),
        data_digest=tags["data_digest"],
        sweep=tags["sweep"],
        look=int(tags.get("look", "1")),
        recommended=tags.get("role", "recommended") == "recommended",
        beats_baseline=tags.get("state") != NO_BETTER,
        promotions=tuple(_promotions(tags)),
    )


def promotion_tag(promotion: Promotion) -> tuple[str, str]:
    """Return name and value of the tag that records a promotion."""
    verb = "returned" if promotion.back else "promoted"
    return f"title_{promotion.number:04d}", f"{verb} after version {promotion.after}"


def _promotions(tags: Mapping[str, str]) -> Iterator[Promotion]:
    for name, value in tags.items():
        number, text = _PROMOTION_TAG.fullmatch(name), _PROMOTION_TEXT.fullmatch(value)
        if number and text:
            yield Promotion(int(number[1]), int(text[2]), text[1] == "returned")


def scored_versions(client: MlflowClient, name: str) -> list[ScoredVersion]:
    """Return all versions that sweeps have registered under a name, as the promotion policy reads them."""
    return [scored_version(int(version.version), version.tags) for version in versions(client, name)]


def versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Return all versions that sweeps have registered under a name, as MLflow's objects."""
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from (version for version in page if "trial_key" in version.tags)
        if not (token := page.token):
            return


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the aliases of a model with the versions that they point to."""
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def names(client: MlflowClient) -> list[str]:
    """Return the names of all models that sweeps have registered."""
    models, token = set(), None
    while True:
        page = client.search_registered_models(page_token=token)
        models |= {model.name for model in page}
        if not (token := page.token):
            return sorted(name for name in models if any(versions(client, name)))
