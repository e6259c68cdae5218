"""One jitted batch of samples: conditions, the MRAR loop, noise, fusion."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.sampling.mrar import sample_latents
    from transdiff_jax.sampling.naive import naive_latents
    from transdiff_jax.sampling.noise import GivenNoise, SeededNoise
    from transdiff_jax.sampling.sampler import Sampler, Samples, make_sampler
    from transdiff_jax.sampling.semantic_similarity import class_similarities

__all__ = [
    "GivenNoise",
    "Sampler",
    "Samples",
    "SeededNoise",
    "class_similarities",
    "make_sampler",
    "naive_latents",
    "sample_latents",
]
