"""The journal of a sweep, its source of truth: MLflow, the report and a resumed sweep are rebuilt from it.

``events`` writes and reads it, ``earlier_releases`` translates journals of earlier releases, and ``folders`` finds and
locks the folder that it is in.
"""
