"""Lanes: long-lived Ray Train workers that train trial after trial on one backbone.

``pool`` starts all lanes of a sweep and the ``broker`` between them and Tune. Tune runs a ``proxy`` per trial, which
sends jobs to the broker; ``leases`` records which lane works on which job. On the other side, ``group`` starts lanes as
Ray Train workers (with ``backend`` and ``trainer``). Each of them runs ``loop``: a ``worker`` that takes jobs and steps
their trials, with the backbones, datasets and paused trials in its ``worker_memory``. ``setup`` is what lanes receive
once, ``messages`` what the workers of one lane pass on to each other. ``step_watch`` notices a trial that hangs, and
``hang_guard`` ends its process. ``cluster`` connects to Ray; ``tune`` and ``tune_bridge`` adapt Tune to the search.
"""
