"""MLflow runs of feature sets and of trainings."""
