"""Small modules that every layer may import.

A module belongs here if at least two layers need it and it needs none of them: errors and their one-line form, storage
and URIs, numbers and metrics as text, JSON lines, output of libraries, a watched background thread, and the plain types
that describe a trial and a job on their way between driver and lanes. What only one layer uses belongs into that layer.
"""
