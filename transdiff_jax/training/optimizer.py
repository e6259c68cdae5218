"""AdamW as TransDiff is trained: decay and freezing by parameter path, global-norm clip, warm-up."""

import flax.linen as nn
import jax.numpy as jnp
import optax

from transdiff_jax.config import Config
from transdiff_jax.model.params import Params
from transdiff_jax.training.parameter_rules import Rules, apply_rules

# The release decays every parameter with two or more dimensions outside the diffusion decoder. Here the rules go by
# path, because layers are stacked and a bias has two dimensions too.
DECAY_RULES: Rules = (
    (r"decoder/.*", False),
    (r"encoder/.*bias", False),
    (r"encoder/.*norm/scale", False),
    (r"encoder/.*kernel", True),
    (r"encoder/(.*_embedding|null_class)", True),
)

TRAINED_RULES: dict[str, Rules] = {
    "all": ((r".*", "trained"),),
    "decoder": ((r"decoder/.*", "trained"), (r"encoder/.*", "frozen")),
}


def make_schedule(config: Config) -> optax.Schedule:
    """The learning rate of update n: linear from 0 over the warm-up, then constant or cosine to 0."""
    c = config.optimizer
    peak = c.learning_rate * (config.train.batch_size / 256 if c.scale_with_batch else 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(config.train.steps - c.warmup_steps, 1)),
    }[c.schedule]
    if c.warmup_steps == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, c.warmup_steps), after], [c.warmup_steps])


def make_optimizer(config: Config, params: Params) -> optax.GradientTransformation:
    """The optimizer of a run; the paths of `params`, which may be abstract, decide what decays and what is frozen.

    Frozen parameters have no optimizer state and get no update, not even decay.
    """
    c = config.optimizer
    params = nn.unbox(params)
    adamw = optax.adamw(
        make_schedule(config),
        b1=c.beta1,
        b2=c.beta2,
        eps=c.epsilon,
        weight_decay=c.weight_decay,
        mask=apply_rules(DECAY_RULES, params),
        mu_dtype=jnp.float32,
    )
    trained = optax.chain(optax.clip_by_global_norm(c.clip_norm), adamw)
    labels = apply_rules(TRAINED_RULES[config.train.only], params)
    return optax.multi_transform({"trained": trained, "frozen": optax.set_to_zero()}, labels)
