"""Downloads from the Hugging Face hub: a checkpoint's description on any machine, its weights where they are needed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

# The README names the licence.
DESCRIPTION_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "README.md"]
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


class NoSafetensorsError(ValueError):
    """A repository without weights that can be loaded without pickle."""


@dataclass(frozen=True)
class Hub:
    """How to reach the hub.

    It travels to the node that prepares a backbone as an argument. Ray would log a runtime environment, and with it the
    token.

    Args:
        endpoint: address of the hub, if it is not Hugging Face's.
        cache: folder of downloaded files, if it is not in the home folder.
        token: token of the user, for gated models; it is not shown when the object is printed.
    """

    endpoint: str | None = None
    cache: str | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Hub:
        """Return the hub as ``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HOME`` and ``HF_TOKEN`` or a login say."""
        from huggingface_hub import get_token

        home = os.environ.get("HF_HOME")
        cache = os.environ.get("HF_HUB_CACHE") or (home and str(Path(home).expanduser() / "hub"))
        return cls(os.environ.get("HF_ENDPOINT") or None, cache or None, os.environ.get("HF_TOKEN") or get_token())

    def download_description(self, model: str, revision: str | None) -> Path:
        """Download architecture, tokenizer and README, and return their folder, which is named by the commit.

        Raises:
            NoSafetensorsError: if the repository has no weights in that format.
        """
        folder = self._download(model, revision, DESCRIPTION_FILES)
        if not (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file() and not self._has_weights(model, folder):
            raise NoSafetensorsError("has no *.safetensors; convert the checkpoint with save_pretrained()")
        return folder

    def download_weights(self, model: str, commit: str, folder: Path) -> None:
        """Download the weights that transformers loads, beside the description.

        Some repositories hold the same weights a second time, as ``consolidated*.safetensors``.
        """
        files = [WEIGHTS]
        if (folder / INDEX).is_file():
            files = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        self._download(model, commit, files)

    def _has_weights(self, model: str, folder: Path) -> bool:
        from huggingface_hub import HfApi

        return HfApi(self.endpoint, token=self.token).file_exists(model, WEIGHTS, revision=folder.name)

    def _download(self, model: str, revision: str | None, files: list[str]) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            model,
            revision=revision,
            allow_patterns=files,
            endpoint=self.endpoint,
            cache_dir=self.cache,
            token=self.token,
        )
        return Path(folder)
