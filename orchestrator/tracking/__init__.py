"""The sweep journal, MLflow runs and the model registry."""
