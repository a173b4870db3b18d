"""Training on a played round: micro-batches, gradient, metrics, resuming."""
