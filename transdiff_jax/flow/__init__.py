"""Flow matching: the path from data to noise, its times, guidance and solvers; it knows no networks."""
