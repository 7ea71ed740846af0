"""How often it works, counted honestly: suites, trials, results."""
