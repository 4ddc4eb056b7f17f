"""The phases of one sweep.

``runner`` runs them in order: ``prepare`` tokenizes and quantizes, ``search_phase`` searches, :mod:`orchestrator.final`
retrains and compares the best methods, and they are registered. ``manifest`` describes the sweep in the journal's first
event, ``saved_state`` reads back what earlier attempts recorded, and ``resume`` makes the same plan again. ``status``
is what a display shows meanwhile.
"""
