"""Export of a trained adapter: as a folder that other programs load, or merged into a plain checkpoint."""

from orchestrator.export.folder import Exported, export

__all__ = ["Exported", "export"]
