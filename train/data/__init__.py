"""Data on the way to a training step: packed pictures, chunks of commands, cached features."""
