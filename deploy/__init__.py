"""From an instruction to objects in the bin: planner, target masks, closed loop, evaluation."""
