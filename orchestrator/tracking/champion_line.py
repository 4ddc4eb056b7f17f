"""The first line of a registered model's page: what its champion is, how good, how large, on what, and what it beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.common.units import size
from orchestrator.selection.looks import level_text
from orchestrator.tracking.versions import in_todays_tags, version_link

if TYPE_CHECKING:
    from mlflow import MlflowClient


def describe_champion(client: MlflowClient, name: str, version: int | None) -> bool:
    """Write a model's description, unless it is there already; return whether it was written.

    Args:
        client: client of the registry.
        name: name of the model.
        version: its champion; ``None`` if it has none.
    """
    line = "No version is champion: none was shown to be better than a trivial predictor."
    if version is not None:
        line = champion_line(name, version, client.get_model_version(name, str(version)).tags)
    description = f"{line}\n\nAdapters for {name}; each version's page has its card."
    if client.get_registered_model(name).description == description:
        return False
    client.update_registered_model(name, description)
    return True


def champion_line(name: str, version: int, tags: Mapping[str, str]) -> str:
    """Return the line, in Markdown with a link to the version's page.

    Args:
        name: name of the model.
        version: number of the champion.
        tags: tags of that version, of this release or an earlier one.
    """
    tags = in_todays_tags(tags)
    score, low, high = (float(tags[key]) for key in ("mean_score", "interval_low", "interval_high"))
    rows = f" on {int(tags['test_rows']):,} test rows" if tags.get("test_rows") else ""
    interval = f"[{low:.3f}, {high:.3f}] ({level_text(int(tags.get('look', '1')))} interval)"
    link = version_link(name, version, f"version {version}")
    parts = [
        f"Champion: {link}, `{tags.get('method', '')}`",
        f"**{tags['metric']} {score:.3f}** {interval}{rows}",
        *([size(float(tags["adapter_bytes"]))] if "adapter_bytes" in tags else []),
        f"on `{tags.get('backbone', '')}` ({tags.get('quantization', '')})",
        f"licence of the backbone {tags.get('licence') or 'unknown'}",
    ]
    return f"{', '.join(parts)}.{_beaten(tags)}"


def _beaten(tags: Mapping[str, str]) -> str:
    """Return what the version is better than, as far as its tags tell."""
    sentences = []
    if tags.get("baseline") and tags.get("state") == "recommended":
        score, low, high = (float(tags[f"baseline_{end}"]) for end in ("score", "low", "high"))
        sentences.append(f"Better than {tags['baseline']} ({score:.3f} [{low:.3f}, {high:.3f}]).")
    if tags.get("runner_up"):
        reason = tags.get("runner_up_reason", "").removesuffix(".")
        sentences.append(f"Runner-up of its sweep: `{tags['runner_up']}`, {reason}.")
    return "".join(f" {sentence}" for sentence in sentences)
