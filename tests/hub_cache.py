"""The hub's cache on this machine, as huggingface_hub fills it, for processes that must not reach a network."""

from __future__ import annotations

from pathlib import Path

from orchestrator.backbone.hub import Hub
from orchestrator.backbone.source import Source, resolve
from orchestrator.config import BackboneConfig

from .hub_server import hub_server

MODEL = "team/model"


def download(folder: Path, home: Path) -> Source:
    """Download a folder as the repository ``team/model``, all that a sweep needs of it, and return the checkpoint.

    Args:
        folder: files of the repository.
        home: folder for ``HF_HOME``.
    """
    with hub_server(folder) as server:
        source = resolve(BackboneConfig(model=MODEL), Path("/"), Hub(server.url, str(home / "hub")))
        source.download_weights()
    return source


def offline(home: Path) -> dict[str, str]:
    """Return the environment of a process that has this cache and no network."""
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
