"""Many samples, safe to kill at any moment, and the folder that holds them."""
