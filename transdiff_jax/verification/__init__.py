"""Our code against tensors of the reference: what `cli.verify` and the parity tests both run."""
