"""The scripted expert's knowledge: object shapes, grasp candidates, motions, and noise."""
