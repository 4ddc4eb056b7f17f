"""The final: retrain, decide, register."""
