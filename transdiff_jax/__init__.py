"""TransDiff in JAX and Flax: an autoregressive Transformer joined with a flow-matching diffusion decoder.

import transdiff_jax as td
model = td.load("runs/digits/mrar")
images = model.sample([3, 1, 4], seed=0, guidance=1.3)
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.config import Config, as_config
    from transdiff_jax.errors import UserError
    from transdiff_jax.evaluation.scoring import evaluate
    from transdiff_jax.generation.loading import generate
    from transdiff_jax.generation.request import SampleRequest
    from transdiff_jax.generation.trained_model import TrainedModel
    from transdiff_jax.hub.local_runs import load
    from transdiff_jax.hub.starts import distill, train

__version__ = "0.2.0"

__all__ = [
    "Config",
    "SampleRequest",
    "TrainedModel",
    "UserError",
    "as_config",
    "distill",
    "evaluate",
    "generate",
    "load",
    "train",
]
