"""What rows, models, losses and scores are: one package for each kind of model and data."""
