"""The command ``peft-sweep``, which kills itself as it writes the journal.

    python -m benchmarks._chaos_driver before 12 run sweep.yaml

``before`` kills the process as it opens the journal to append to its first 12 lines, so that line 13 is never written.
``after`` kills it at the first thing of any thread that Python reports to an audit hook once there are 12 lines:
nothing has acted on the twelfth yet, and it may not have been brought to the disk.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"


class SelfKiller:
    """An audit hook that ends its own process without a word.

    Args:
        moment: ``before`` or ``after``.
        lines: lines that the journal has then.
    """

    def __init__(self, moment: str, lines: int) -> None:
        self.is_before, self.lines = moment == "before", lines
        self.journal: Path | None = None
        self.busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at the journal when it is opened to be appended to, and with ``after`` at every later event too."""
        if self.busy or os.getpid() != PID:
            return
        self.busy = True  # what is done here is audited as well
        try:
            opens = event == "open" and str(arguments[0]).endswith(JOURNAL) and "a" in str(arguments[1])
            if opens:
                self.journal = Path(os.fsdecode(arguments[0]))
            if self.journal and (opens or not self.is_before) and self._written() >= self.lines:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            self.busy = False

    def _written(self) -> int:
        assert self.journal is not None
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0


PID = os.getpid()

if __name__ == "__main__":
    moment, lines, *sys.argv[1:] = sys.argv[1:]
    sys.addaudithook(SelfKiller(moment, int(lines)))
    from orchestrator.cli import main

    main()
