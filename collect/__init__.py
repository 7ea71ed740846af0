"""From an operator's input to a recorded episode: operators, synchronised recording, the episode session."""
