"""Checks of few-step students: what is trained, what is learned, and what may be sampled fits together."""

from transdiff_jax.config.schema import Config
from transdiff_jax.errors import UserError


def check_student(config: Config) -> None:
    """Checks the section `distillation`, and the sampling of a student.

    Raises:
        UserError: a value is out of range, or does not fit the rest of the configuration.
    """
    if config.distillation.objective == "none":
        _check_no_student(config)
        return
    _check_learning(config)
    _check_shares(config)
    _check_sampling(config)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_no_student(config: Config) -> None:
    _require(
        not config.model.flow_map,
        "config.model.flow_map=True is for few-step students: choose config.distillation.objective, or set it to False",
    )
    _require(
        config.sampling.solver != "flow_map",
        'config.sampling.solver="flow_map" needs a few-step student: distill one (docs/distill.md), or choose another '
        "solver",
    )


def _check_learning(config: Config) -> None:
    objective = config.distillation.objective
    _require(
        config.model.flow_map,
        f'config.distillation.objective="{objective}" needs config.model.flow_map=True: the student takes the length '
        "of a jump",
    )
    _require(
        config.train.only == "decoder",
        f'config.train.only="{config.train.only}" must be "decoder": a student keeps its teacher\'s semantic encoder',
    )
    _require(
        bool(config.train.init_from),
        "config.train.init_from is empty: name the run of the teacher, whose weights the student starts from",
    )
    _require(
        config.loss.diversity_weight == 0,
        f"config.loss.diversity_weight={config.loss.diversity_weight} has no effect on a student, whose encoder is "
        "frozen: set it to 0",
    )
    _require(
        objective != "trajectory" or config.distillation.own_average,
        "config.distillation.own_average=False has an effect only on the objective shortcut",
    )


def _check_shares(config: Config) -> None:
    c, pairs = config.distillation, config.loss.pairs_per_latent
    anchors = c.anchor_share * pairs
    _require(
        c.objective != "shortcut" or (abs(anchors - round(anchors)) < 1e-6 and round(anchors) >= 1),
        f"config.distillation.anchor_share={c.anchor_share} of config.loss.pairs_per_latent={pairs} must be a whole "
        "number of at least 1, since guidance enters by the anchors alone",
    )
    _require(
        c.objective != "shortcut" or round(anchors) < pairs,
        f"config.distillation.anchor_share={c.anchor_share} leaves no jumps to learn: lower it, or set "
        'config.distillation.objective="guidance"',
    )
    weights = c.guidance
    _require(
        len(weights) in (1, 2) and weights[0] <= weights[-1],
        f"config.distillation.guidance={weights} must be one weight, or the two ends of a range",
    )
    _require(
        c.references == "data" or config.model.num_images > 1,
        'config.distillation.references="teacher" needs earlier images: config.model.num_images must be above 1',
    )


def _check_sampling(config: Config) -> None:
    c, sampling = config.distillation, config.sampling
    if c.objective == "guidance":
        _require(
            sampling.solver != "flow_map",
            'config.sampling.solver="flow_map" needs a student of jumps; this one learned the guided velocity alone: '
            "choose another solver",
        )
    if c.objective == "trajectory":
        _require(
            sampling.solver == "flow_map",
            f'config.sampling.solver="{sampling.solver}" asks for velocities, and this student learned the jumps of '
            "its teacher's paths alone: choose flow_map",
        )
    low, high = c.guidance[0], c.guidance[-1]
    learned = f"{low}" if low == high else f"{low} to {high}"
    for weight in sampling.guidance:
        _require(
            low <= weight <= high,
            f"config.sampling.guidance={sampling.guidance}: this student learned the weights {learned}",
        )
    constant = sampling.guidance_schedule == "constant" and tuple(sampling.guidance_interval) == (0.0, 1.0)
    _require(
        constant or low == 1,
        f"config.sampling.guidance_schedule and guidance_interval take the weight down to 1, but this student learned "
        f"the weights {learned}",
    )
