"""Training: the controller, its data, the loop."""
