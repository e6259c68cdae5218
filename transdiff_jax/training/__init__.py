"""Training a run: objective, state, step, averages, optimizer, fine-tuning, and the loop around them."""
