"""The engine's laboratory, for lanes."""

from ..engine.conftest import here, lab, make_lab, one_thread

__all__ = ["here", "lab", "make_lab", "one_thread"]
