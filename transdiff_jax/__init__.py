"""TransDiff in JAX and Flax: an autoregressive Transformer joined with a flow-matching diffusion decoder."""

__version__ = "0.1.0"
