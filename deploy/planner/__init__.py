"""What to grasp next, where it is, whether it worked, whether all is done."""
