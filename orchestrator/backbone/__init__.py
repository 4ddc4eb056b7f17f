"""Quantize once, map without copying, hand out views."""
