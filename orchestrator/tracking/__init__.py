"""MLflow runs that follow a sweep's journal, the model registry, and predictions with registered models."""
