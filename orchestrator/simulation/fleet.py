"""The machines of a simulated sweep: how fast their lanes are, and when they are lost."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Nodes with lanes.

    Args:
        nodes: Number of machines.
        lanes_per_node: Number of lanes of a machine, which are lost together.
        straggling: Share of the lanes that are slow, in 0..1.
        slowness: Factor by which a slow lane takes longer.
        seconds_between_losses: Mean seconds between two losses of a node, drawn from an exponential distribution.
        seconds_away: Seconds until a lost node's lanes are back.
        patience: Seconds without a heartbeat after which a lane counts as dead, unless it is back before.
        seed: Seed of the draws.
    """

    nodes: int = 1
    lanes_per_node: int = 1
    straggling: float = 0.0
    slowness: float = 3.0
    seconds_between_losses: float = math.inf
    seconds_away: float = 120.0
    patience: float = 60.0
    seed: int = 0

    @property
    def lanes(self) -> range:
        """The lanes' numbers."""
        return range(self.nodes * self.lanes_per_node)

    def lanes_of(self, node: int) -> range:
        """Return the lanes of a node."""
        return range(node * self.lanes_per_node, (node + 1) * self.lanes_per_node)

    def factor(self, lane: int) -> float:
        """Return the factor by which a lane takes longer than recorded."""
        return self.slowness if self._draw("speed", lane).random() < self.straggling else 1.0

    def next_loss(self, node: int, count: int) -> float:
        """Return the seconds from a node's start, or its last return, to its next loss.

        Args:
            node: The node's number.
            count: Number of its losses so far.
        """
        if math.isinf(self.seconds_between_losses):
            return math.inf
        return self._draw("loss", node, count).expovariate(1 / self.seconds_between_losses)

    def _draw(self, *parts: object) -> random.Random:
        return random.Random(f"{self.seed}:{parts}")
