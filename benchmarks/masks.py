"""Which tokens of a conversation are trained: found from the original chat templates, against copies marked by hand.

    python -m benchmarks.masks [--conversations 2000] [--template NAME]

Prints a JSON line per template: ``equal`` token for token, ``listed`` (equal but for what docs/tasks.md lists for the
template), ``refused``, ``different``, and the ``reasons`` of those that are listed or refused. Exits with 1 if anything
differs that is not listed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from orchestrator.simulation.marked_templates import MarkedPair, compare, marked_pairs

RESULTS = ("equal", "listed", "refused", "different")


def compare_template(pair: MarkedPair, count: int) -> dict[str, Any]:
    """Compare a template's masks over made-up conversations; each under one of two tokenizers, in turns."""
    tokenizers, results, reasons = pair.tokenizers(), Counter[str](), Counter[str]()
    for number, conversation in enumerate(pair.conversations(count)):
        result, reason = compare(pair, tokenizers[number % len(tokenizers)], conversation)
        results[result] += 1
        reasons[reason] += result in ("listed", "refused")
    counts = {result: results[result] for result in RESULTS}
    return {"template": pair.name, "conversations": count, **counts, "reasons": dict(+reasons)}


def main() -> None:
    """Compare all templates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=2000, help="conversations per template")
    parser.add_argument("--template", help="one template instead of all")
    arguments = parser.parse_args()
    pairs = [pair for pair in marked_pairs() if arguments.template in (None, pair.name)]
    if not pairs:
        sys.exit("there are no templates: pip install --no-deps trl")
    with ProcessPoolExecutor() as pool:
        lines = []
        for line in pool.map(compare_template, pairs, [arguments.conversations] * len(pairs)):
            print(json.dumps(line, ensure_ascii=False), flush=True)
            lines.append(line)
    refused = [line["template"] for line in lines if line["refused"] == line["conversations"]]
    different = [line["template"] for line in lines if line["different"]]
    print(f"{len(lines)} templates; refused as a whole: {refused}; different: {different}", file=sys.stderr)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
