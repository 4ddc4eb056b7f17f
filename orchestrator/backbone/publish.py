"""Put a backbone into the storage, quantized and, where a method trains its weights, as it came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.backbone.shared import load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import Published, fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig


@dataclass(frozen=True)
class PreparedBackbone:
    """A task type's backbone in the storage.

    Args:
        quantized: what lanes attach.
        original: the same without quantization, where a method needs it.
        checksum: of the frozen tensors as a lane sees them.
    """

    quantized: Published
    original: Published | None
    checksum: str

    @property
    def original_digest(self) -> str | None:
        """Where the unquantized checkpoint is, if it was published."""
        return self.original.digest if self.original else None


def publish_backbone(
    config: BackboneConfig, base: Path, auto_class: str, task: str, labels: int, with_original: bool, storage: Storage
) -> PreparedBackbone:
    """Quantize into the storage what is not there yet."""
    import torch

    source = resolve(config, base)
    quantized = publish(source, auto_class, config.quantization, config.double_quantization, storage)
    original = publish(source, auto_class, "none", False, storage) if with_original else None
    shared = load(fetch(quantized.digest, storage), task, name=config.model, dtype=torch.float32, labels=labels)  # type: ignore[arg-type]
    return PreparedBackbone(quantized, original, shared.checksum())
