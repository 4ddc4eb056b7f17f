"""Benchmarks: ``python -m benchmarks.NAME`` measures figures of docs/performance.md and prints them as JSON lines.

Every line is one measurement; its keys are explained in the module's docstring, which ``--help`` prints.
"""
