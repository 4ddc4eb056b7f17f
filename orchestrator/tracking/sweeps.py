"""Where a sweep's folder is, by what people call it. Imports nothing heavy: commands that only read start at once."""

from __future__ import annotations

from pathlib import Path

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import is_uri

JOURNAL = "journal.jsonl"


def find_sweep(reference: str, storage: str = "sweeps") -> Path:
    """The folder of a sweep's journal on this machine.

    Args:
        reference: a sweep's name, the beginning of one that no other has, or a path to its folder.
        storage: where sweeps are, as in the configuration. Of sweeps in an object store the journal is in ``sweeps``.

    Raises:
        InputError: if there is no such sweep, or several have names that begin so.
    """
    root = Path("sweeps") if is_uri(storage) and not storage.startswith("file://") else _local(storage)
    for folder in (Path(reference).expanduser(), root / reference):
        if (folder / JOURNAL).is_file():
            return folder.resolve()
    known = sorted(file.parent.name for file in root.glob(f"*/{JOURNAL}"))
    if len(begun := [name for name in known if reference and name.startswith(reference)]) == 1:
        return (root / begun[0]).resolve()
    if begun:
        raise InputError(reference, [Problem("", f"several sweeps begin so: {', '.join(begun[-5:])}")])
    hint = did_you_mean(reference, known[-5:] if len(known) > 5 else known, "there is")
    raise InputError(reference, [Problem("", f"there is no sweep of that name in {root}; {hint}")])


def _local(storage: str) -> Path:
    return Path(storage.removeprefix("file://")).expanduser()
