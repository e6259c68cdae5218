"""One jitted batch of samples: conditions, the MRAR loop, noise, fusion."""
