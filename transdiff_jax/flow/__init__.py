"""Flow matching: the path from data to noise, its times, guidance and solvers. Knows nothing of networks."""
