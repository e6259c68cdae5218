"""Speed, FLOPs and memory: measured here, or compiled ahead for other machines."""
