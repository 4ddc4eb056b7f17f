"""The final of a sweep: retrain the best methods, compare them on the test split, and register the winner.

``run`` runs the final of all tasks: ``retrain`` plans the jobs of a task, ``results`` reads the lanes' answers,
``decide`` chooses the method. ``skip_done`` leaves out what earlier attempts have done. ``register`` then registers the
chosen method with the fields of ``bundle_fields``.
"""
