"""The content-addressed store of quantized backbones, and each node's local copies.

A backbone is quantized once: every later sweep with the same checkpoint and settings finds it under its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from methods.base.spec import Quantization
from orchestrator.backbone.checkpoint import FORMAT, Header, write
from orchestrator.backbone.examine import is_classifier, own_head
from orchestrator.backbone.source import Source
from orchestrator.common.storage import Storage
from orchestrator.common.uris import expand_home


@dataclass(frozen=True)
class Published:
    """A quantized backbone in the sweep's storage.

    Args:
        digest: digest of the checkpoint, the settings and the file format.
        parameters: number of parameters in the checkpoint.
        size: size of the file, in bytes.
        fresh: whether the storage did not have it.
    """

    digest: str
    parameters: int
    size: int
    fresh: bool

    @property
    def path(self) -> str:
        """The path of the file, relative to the storage."""
        return backbone_path(self.digest)


def backbone_path(digest: str) -> str:
    """Return the path of a backbone's file, relative to the storage."""
    return f"backbones/{digest}.safetensors"


def backbone_digest(source: Source, auto_class: str, quantization: Quantization, double: bool) -> str:
    """Return the digest of a checkpoint quantized with these settings."""
    double = double and quantization in ("nf4", "fp4")
    identity = [FORMAT, source.digest, auto_class, quantization, double]
    if is_classifier(auto_class) and own_head(source.path):
        identity.append("without its head")  # files of earlier releases have it
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def publish(source: Source, auto_class: str, quantization: Quantization, double: bool, storage: Storage) -> Published:
    """Quantize a checkpoint into this node's cache and the storage, unless it is there already.

    Raises:
        InputError: if the hub does not give its weights, or transformers cannot load the checkpoint as ``auto_class``.
    """
    digest = backbone_digest(source, auto_class, quantization, double)
    path, local = backbone_path(digest), cached_path(digest)
    fresh = not storage.exists(path)
    with _lock(local):
        if fresh and not local.exists():
            source.download_weights()
            with tempfile.TemporaryDirectory(dir=local.parent, prefix=".incoming-") as folder:
                write(source, auto_class, quantization, double, incoming := Path(folder) / local.name)
                os.replace(incoming, local)
    if fresh and not (storage.is_local and storage.local(path) == local):
        storage.upload(local, path)
    local = fetch(digest, storage)
    return Published(digest, Header.read(local).parameters, local.stat().st_size, fresh)


def cache_folder() -> Path:
    """Return this node's cache: ``PEFT_SWEEP_CACHE``, or ``peft-sweep`` in the user's cache folder."""
    if folder := os.environ.get("PEFT_SWEEP_CACHE"):
        return Path(folder)
    return expand_home(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "peft-sweep"


def cached_path(digest: str) -> Path:
    """Return the path of a backbone's file in this node's cache."""
    return cache_folder() / backbone_path(digest)


def fetch(digest: str, storage: Storage) -> Path:
    """Return this node's copy of a published backbone; the first lane that needs it downloads it, the others wait."""
    file = cached_path(digest)
    with _lock(file):
        if not file.exists():
            storage.download(backbone_path(digest), file)
    return file


def _lock(file: Path) -> FileLock:
    """Return the lock that a process of this node holds while it makes a file of the cache."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_suffix(".lock"))
