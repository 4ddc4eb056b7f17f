"""The machines of a simulated sweep: how fast their lanes are, and when they are lost."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Nodes with lanes.

    Args:
        nodes: machines.
        lanes_per_node: that are lost together.
        straggling: share of the lanes that are slow.
        slowness: by how much a slow lane takes longer.
        seconds_between_losses: of one node, on average; drawn from an exponential distribution.
        seconds_away: until a lost node's lanes are back.
        patience: seconds of silence after which a lane counts as dead, if it is not back before.
        seed: of what is drawn.
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
        """Their numbers."""
        return range(self.nodes * self.lanes_per_node)

    def lanes_of(self, node: int) -> range:
        """The lanes of a node."""
        return range(node * self.lanes_per_node, (node + 1) * self.lanes_per_node)

    def factor(self, lane: int) -> float:
        """How many times as long as recorded a lane takes."""
        return self.slowness if self._draw("speed", lane).random() < self.straggling else 1.0

    def next_loss(self, node: int, count: int) -> float:
        """Seconds from a node's start, or its last loss, to the next.

        Args:
            node: which.
            count: losses so far.
        """
        if math.isinf(self.seconds_between_losses):
            return math.inf
        return self._draw("loss", node, count).expovariate(1 / self.seconds_between_losses)

    def _draw(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed}:{what}")
