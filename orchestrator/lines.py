"""Files that grow by whole lines: what a writer that died leaves behind."""

from __future__ import annotations

from pathlib import Path


def cut_torn_line(path: Path) -> None:
    """Cut a file at its last newline: what follows was being written when the writer died.

    A file that does not exist is left alone.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
