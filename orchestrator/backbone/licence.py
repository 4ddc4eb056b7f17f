"""The licence of a backbone, as far as its files tell it."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from orchestrator.backbone.source import Source
from orchestrator.common.uris import PACKAGE

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license:\s*(\S.*?)\s*$", re.MULTILINE)


def licence_of(source: Source) -> str:
    """Return the licence that a checkpoint's README or its package declares; empty where neither does.

    Args:
        source: the checkpoint. Nothing is downloaded: of one on the hub, only a README that is there is read.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    readme = folder / "README.md"
    if readme.is_file():
        matter = _FRONT_MATTER.match(readme.read_text(encoding="utf-8", errors="replace"))
        if matter and (line := _LICENCE.search(matter[1])):
            return line[1].strip("\"'")
    if not source.name.startswith(PACKAGE):
        return ""
    package = source.name.removeprefix(PACKAGE).partition("/")[0]
    names = metadata.packages_distributions().get(package, [])
    if not names:
        return ""
    about: Any = metadata.metadata(names[0])  # a message, whose type has no get
    return str(about.get("License-Expression") or about.get("License") or "").partition("\n")[0]
