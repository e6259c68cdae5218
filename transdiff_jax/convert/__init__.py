"""Between the reference's checkpoints and ours: one name table a network, and the safe reading of a `.pth` file."""
