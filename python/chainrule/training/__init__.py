"""Training of networks: `fit` and `evaluate`, optimizers, schedules, stopping rules, results."""
