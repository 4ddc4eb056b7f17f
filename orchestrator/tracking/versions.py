"""What the registry holds: names, versions and aliases as they are, and a version's tags as the gate reads them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.promotion_policy import Candidate, Promotion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
LONGEST = 1000
_PROMOTION = re.compile(r"title_(\d+)")
_TOLD = re.compile(r"(promoted|returned) after version (\d+)")


def identity(bundle: Bundle) -> dict[str, str]:
    """By which a version is found again."""
    return {"sweep": bundle.sweep, "trial_key": bundle.trial}


def tags_of(bundle: Bundle) -> dict[str, str]:
    """Everything that is filtered by, shown in lists, or weighed by the gate."""
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
        "metric": bundle.metric,
        "higher_is_better": "true" if bundle.higher_is_better else "false",
        "score": repr(bundle.estimate),
        "interval_low": repr(bundle.interval[0]),
        "interval_high": repr(bundle.interval[1]),
        "checkpoint_score": repr(bundle.score),
        "test_rows": str(bundle.rows.get("test", "")),
        "data_digest": bundle.data_digest,
        **_comparison(bundle),
        **{name: f"{value:.6g}" for name, value in bundle.measurements.items() if math.isfinite(value)},
    }


def _comparison(bundle: Bundle) -> dict[str, str]:
    """What the sweep says of it beside others; nothing for a bundle that stands alone."""
    if (found := bundle.comparison) is None:
        return {}
    tags = {
        "role": "recommended" if bundle.method == found.recommended else "tied",
        "seeds": str(len(found.scores)),
        "scores": json.dumps(found.scores),
        "recommended": found.recommended,
        "reason": found.reason,
        "tied": ", ".join(found.tied),
        "runner_up": found.runner_up,
        "runner_up_lost": found.runner_up_lost,
    }
    return {name: value[:LONGEST] for name, value in tags.items() if value}


def candidate(version: int, tags: Mapping[str, str]) -> Candidate:
    """A version as the gate sees it."""
    return Candidate(
        version=version,
        score=float(tags["score"]),
        interval=(float(tags["interval_low"]), float(tags["interval_high"])),
        metric=tags["metric"],
        higher_is_better=tags["higher_is_better"] == "true",
        data_digest=tags["data_digest"],
        sweep=tags["sweep"],
        recommended=tags.get("role", "recommended") == "recommended",
        promotions=tuple(_promotions(tags)),
    )


def promotion_tag(promotion: Promotion) -> tuple[str, str]:
    """Name and value of the tag that records a promotion."""
    word = "returned" if promotion.back else "promoted"
    return f"title_{promotion.number:04d}", f"{word} after version {promotion.after}"


def _promotions(tags: Mapping[str, str]) -> Iterator[Promotion]:
    for name, value in tags.items():
        number, told = _PROMOTION.fullmatch(name), _TOLD.fullmatch(value)
        if number and told:
            yield Promotion(int(number[1]), int(told[2]), told[1] == "returned")


def candidates(client: MlflowClient, name: str) -> list[Candidate]:
    """All versions that sweeps have registered under a name."""
    return [candidate(int(version.version), version.tags) for version in versions(client, name)]


def versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """The same as MLflow gives them; those of other programs are left out."""
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from (version for version in page if "trial_key" in version.tags)
        if not (token := page.token):
            return


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """A model's aliases, and the versions that they point to."""
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def names(client: MlflowClient) -> list[str]:
    """All models that sweeps have registered."""
    found, token = set(), None
    while True:
        page = client.search_registered_models(page_token=token)
        found |= {model.name for model in page}
        if not (token := page.token):
            return sorted(name for name in found if any(versions(client, name)))
