"""Out of the sweep: a trained adapter as a folder that others load, or merged into a plain checkpoint."""

from orchestrator.export.folder import Exported, export

__all__ = ["Exported", "export"]
