"""A run on disk: its checkpoints, which of them counts, its record, and its weights."""
