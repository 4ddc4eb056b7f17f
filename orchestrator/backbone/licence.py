"""The licence of a backbone, as far as its files tell it."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from orchestrator.backbone.source import Source
from orchestrator.common.uris import PACKAGE

_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def licence_of(source: Source) -> str:
    """Return the licence that a checkpoint's README or its package declares; empty where neither does.

    Args:
        source: the checkpoint, whose README came with its description if it is on the hub.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    readme = folder / "README.md"
    if readme.is_file() and (licence := _declared(readme.read_text(encoding="utf-8", errors="replace"))):
        return licence
    if not source.name.startswith(PACKAGE):
        return ""
    package = source.name.removeprefix(PACKAGE).partition("/")[0]
    names = metadata.packages_distributions().get(package, [])
    if not names:
        return ""
    about: Any = metadata.metadata(names[0])  # a message, whose type has no get
    return str(about.get("License-Expression") or about.get("License") or "").partition("\n")[0]


def _declared(readme: str) -> str:
    """Return the licence in a README's front matter; where the hub has no id for it, the name that stands beside it."""
    import yaml

    if not (matter := _FRONT_MATTER.match(readme)):
        return ""
    try:
        fields = yaml.safe_load(matter[1])
    except yaml.YAMLError:
        return ""
    if not isinstance(fields, dict):
        return ""
    licence = fields.get("license") or ""
    if licence == "other":
        licence = fields.get("license_name") or licence
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
