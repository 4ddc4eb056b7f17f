"""Put a backbone into the storage: quantized and, where a method trains its weights, unquantized too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.backbone.hub import Hub
from orchestrator.backbone.shared import assemble
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import Published, fetch, publish
from orchestrator.backbone.stored import read_stored
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig


@dataclass(frozen=True)
class PreparedBackbone:
    """The backbone of a task type, in the storage.

    Args:
        quantized: backbone that lanes map.
        original: unquantized backbone, where a method needs it.
        checksum: checksum of the frozen tensors as lanes map them.
    """

    quantized: Published
    original: Published | None
    checksum: str

    @property
    def original_digest(self) -> str | None:
        """Digest of the unquantized backbone, if it was published."""
        return self.original.digest if self.original else None


def publish_backbone(
    config: BackboneConfig,
    base: Path,
    auto_class: str,
    task: str,
    labels: int,
    with_original: bool,
    storage: Storage,
    hub: Hub | None = None,
) -> PreparedBackbone:
    """Quantize a backbone into the storage, unless it is there already.

    Args:
        config: backbone as in the configuration.
        base: folder that relative paths start from.
        auto_class: transformers class that builds the model.
        task: type of the task.
        labels: size of the classification head; 0 for a language model.
        with_original: whether to publish the unquantized backbone too.
        storage: the sweep's storage.
        hub: the hub, if not as this process's environment says.
    """
    source = resolve(config, base, hub)
    quantized = publish(source, auto_class, config.quantization, config.double_quantization, storage)
    original = publish(source, auto_class, "none", False, storage) if with_original else None
    stored = read_stored(fetch(quantized.digest, storage), torch.float32)
    shared = assemble(stored, task, name=config.model, labels=labels)
    return PreparedBackbone(quantized, original, shared.checksum(after_each=stored.release))
