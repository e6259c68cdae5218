"""Our code against tensors of the release."""
