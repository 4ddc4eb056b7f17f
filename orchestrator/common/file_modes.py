"""Permissions of files that were written elsewhere first: temporary files can be read by their owner alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def give_default_modes(path: Path) -> None:
    """Give a file, or a folder with all that is in it, the permissions that a new one has by the process's umask."""
    umask = os.umask(0)
    os.umask(umask)
    inner: Iterable[Path] = path.rglob("*") if path.is_dir() else ()
    for each in (path, *inner):
        each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
