"""Sweeps without training: recorded or synthetic learning curves in place of lanes, an event queue in place of time."""
