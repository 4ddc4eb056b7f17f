"""Sweeps without training: recorded or made-up learning curves in place of lanes, an event queue in place of time."""
