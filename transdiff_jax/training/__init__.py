"""Training: optimizer, EMA, state, step, fine-tuning, and the loop around them."""
