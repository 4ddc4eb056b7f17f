"""MLflow: runs that follow a sweep's journal, the model registry, and predictions with registered models.

- ``mlflow_exporter`` follows the journal in a thread, and ``runs`` writes its events as MLflow runs.
- ``bundle`` is the folder of a registered adapter, with its ``modelcard``. ``packaging`` makes it an MLflow model that
  loads through ``pyfunc_model``, ``predictor`` and ``backbone``. ``earlier_bundles`` reads those of earlier releases.
- ``registry`` registers a bundle as a version. ``promotion_policy`` says which version is the champion, ``aliases``
  sets the aliases in MLflow, and ``promotion`` lets a user decide. ``versions`` reads and writes a version's tags.
- ``browse``, ``fetch``, ``verify`` and ``predict_lines`` do the work of the commands for registered models.
- ``connection`` opens MLflow's client and classifies its errors.
"""
