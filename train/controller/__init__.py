"""The mask-conditioned diffusion controller: encoders, action transformer, objectives, action spaces, checkpoints."""
