import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from tests.support.students import student_config
from transdiff_jax.distillation.student import Distillation, Frozen, StepDraws, Student, two_half_jumps
from transdiff_jax.distillation.teacher import PATH_TIMES, Teacher, flow_map
from transdiff_jax.flow.guidance import guide, interleave
from transdiff_jax.model.params import applied
from transdiff_jax.model.transdiff import TransDiff

ROWS, TOKENS, CHANNELS = 4, 16, 4


def gaussian_map(mean, deviation):
    """The average velocity of the ODE of N(mean, deviation ** 2) data, in closed form."""

    def u(x, t, r, w):
        t, r = t[..., None, None], r[..., None, None]

        def spread(t):
            return jnp.sqrt(((1 - t) * deviation) ** 2 + t**2)

        end = (1 - r) * mean + spread(r) / spread(t) * (x - (1 - t) * mean)
        return (x - end) / (t - r)

    return u


def test_the_flow_map_of_gaussian_data_is_a_fixed_point_of_two_half_jumps():
    u = gaussian_map(0.7, 0.4)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 1, 50, 3, 2)).astype(np.float32)
    t = generator.uniform(0.3, 1, (2, 1, 50)).astype(np.float32)
    r = t * generator.uniform(0, 0.8, t.shape).astype(np.float32)
    exact = u(x, t, r, t)
    np.testing.assert_allclose(two_half_jumps(u, x, t, r, t), exact, atol=1e-5)
    wrong = lambda x, t, r, w: u(x, t, r, w) + 0.1 * x  # noqa: E731
    assert np.abs(two_half_jumps(wrong, x, t, r, t) - wrong(x, t, r, t)).max() > 1e-3


def test_one_jump_is_two_half_jumps_one_after_the_other():
    u = gaussian_map(0.7, 0.4)
    x, t, r = jnp.ones((1, 1, 1, 2, 2)), jnp.full((1, 1, 1), 0.9), jnp.full((1, 1, 1), 0.1)
    half = jnp.full((1, 1, 1), 0.5)
    middle = x - 0.4 * u(x, t, half, t)
    end = middle - 0.4 * u(middle, half, r, t)
    np.testing.assert_allclose(x - 0.8 * two_half_jumps(u, x, t, r, t), end, atol=1e-6)


@functools.cache
def networks(mrar):
    """The teacher's model and parameters, and those of a student that starts from it."""
    teacher, student = tiny_config(mrar).model, student_config(mrar).model
    params = random_params(teacher)
    trained = random_params(student)
    untrained = {
        name: {**trained["decoder"][name], "down": jax.tree.map(jnp.zeros_like, trained["decoder"][name]["down"])}
        for name in ("length_embedding", "guidance_embedding")
    }
    started = {"encoder": params["encoder"], "decoder": {**params["decoder"], **untrained}}
    return Teacher(TransDiff(teacher), student_config(mrar).sampling), params, TransDiff(student), started, trained


def inputs(mrar, count=2):
    generator = np.random.default_rng(0)
    images = 4 if mrar else 1
    x = jnp.asarray(generator.standard_normal((ROWS, images, count, TOKENS, CHANNELS)), jnp.float32)
    t = jnp.asarray(generator.uniform(0.1, 1, x.shape[:3]), jnp.float32)
    references = jnp.asarray(generator.standard_normal((ROWS, 3, 4, 4, CHANNELS)), jnp.float32) if mrar else None
    return x, t, jnp.arange(ROWS) % 3, references


@pytest.mark.parametrize("mrar", [False, True])
def test_at_its_start_a_student_is_the_teachers_conditional_velocity(mrar):
    teacher, params, model, started, _ = networks(mrar)
    x, t, labels, references = inputs(mrar)
    features = teacher.features(params, labels, references)
    keys_values = applied(model, started, TransDiff.condition)(features.conditional)
    ones = jnp.ones_like(t)
    plain = teacher.guided_velocity(params, teacher.condition(params, features), x, t, ones)
    for r, w in ((t, 1.0), (t / 2, 1.3), (0 * t, 2.0)):
        jump = flow_map(model, started, keys_values, x, t, r, w * ones)
        np.testing.assert_allclose(jump, plain, atol=2e-5)


def test_a_trained_student_depends_on_the_end_and_on_the_weight():
    teacher, params, model, _, trained = networks(False)
    x, t, labels, _ = inputs(False)
    keys_values = applied(model, trained, TransDiff.condition)(teacher.features(params, labels, None).conditional)
    ones = jnp.ones_like(t)
    velocity = functools.partial(flow_map, model, trained, keys_values, x, t)
    assert np.abs(velocity(t, ones) - velocity(0 * t, ones)).max() > 1e-3
    assert np.abs(velocity(t, ones) - velocity(t, 2 * ones)).max() > 1e-3
    np.testing.assert_allclose(velocity(t, ones), velocity(t - 1e-6, ones), atol=1e-3)  # Euler's step as r -> t


def test_the_guided_velocity_is_that_of_the_sampler():
    teacher, params, *_ = networks(False)
    x, t, labels, _ = inputs(False, count=1)
    features = teacher.features(params, labels, None)
    t, w = jnp.full_like(t, 0.5), jnp.full_like(t, 1.7)
    ours = teacher.guided_velocity(params, teacher.condition(params, features), x, t, w)
    pairs = interleave(features.conditional, features.unconditional)
    keys_values = applied(teacher.model, params, TransDiff.condition)(pairs)

    def velocity(x, t):
        x = interleave(x, x)[:, None]
        return applied(teacher.model, params, TransDiff.velocity)(x, jnp.full((len(x), 1), 500.0), keys_values)[:, 0]

    np.testing.assert_allclose(ours[:, 0, 0], guide(velocity, 1.7)(x[:, 0, 0], 0.5), atol=1e-5)


def test_classes_are_looked_up():
    teacher, params, *_ = networks(False)
    labels = jnp.array([7, 0, 9, 7])
    table = teacher.class_features({"encoder": params["encoder"]}, chunk=4)
    assert table.shape == (11, TOKENS, 16)
    for found, made in zip(teacher.look_up(table, labels), teacher.features(params, labels, None), strict=True):
        np.testing.assert_allclose(found, made, atol=1e-5)


def test_paths_start_at_the_noise_and_follow_the_velocity():
    teacher, params, *_ = networks(True)
    _, _, labels, references = inputs(True)
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((ROWS, 4, TOKENS, CHANNELS)), jnp.float32)
    w = jnp.full((ROWS, 4), 1.5)
    keys_values = teacher.condition(params, teacher.features(params, labels, references))
    states = teacher.paths(params, keys_values, noise, w)
    assert states.shape == (len(PATH_TIMES), *noise.shape)
    np.testing.assert_array_equal(states[0], noise)
    ones = jnp.ones((ROWS, 4, 1))
    first = teacher.guided_velocity(params, keys_values, noise[:, :, None], ones, w[..., None])[:, :, 0]
    # The first interval is of first order.
    np.testing.assert_allclose(states[1], noise - first * (1 - PATH_TIMES[1]), atol=1e-4)


def test_an_image_of_a_sequence_ignores_later_earlier_images():
    teacher, params, model, _, trained = networks(True)
    x, t, labels, references = inputs(True)
    changed = references.at[:, 1].add(1.0)  # the second image, which images 3 and 4 see
    maps = []
    for latents in (references, changed):
        features = teacher.features(params, labels, latents)
        keys_values = applied(model, trained, TransDiff.condition)(features.conditional)
        maps.append(flow_map(model, trained, keys_values, x, t, t / 2, jnp.ones_like(t)))
    np.testing.assert_allclose(maps[0][:, :2], maps[1][:, :2], atol=1e-5)
    assert np.abs(maps[0][:, 2:] - maps[1][:, 2:]).max() > 1e-3


def objective(mrar=False, **sections):
    config = student_config(mrar, **sections)
    return Distillation(config, networks(mrar)[0])


def loss_of(objective, mrar, params=None, average=None, draws=None, latents=None):
    teacher, teacher_params, *_, trained = networks(mrar)
    params = trained if params is None else params
    params = {**params, "encoder": teacher_params["encoder"]}
    table = None if mrar else teacher.class_features(teacher_params)
    generator = np.random.default_rng(3)
    images = 4 if mrar else 1
    latents = jnp.asarray(generator.standard_normal((ROWS, images, 4, 4, CHANNELS)), jnp.float32)
    draws = objective.draw(ROWS, 0, jnp.zeros((), jnp.int32)) if draws is None else draws
    frozen = Frozen(teacher_params["decoder"], table)
    average = params if average is None else {**average, "encoder": teacher_params["encoder"]}
    return objective.loss(params, average, frozen, latents, jnp.arange(ROWS), draws, None)


@pytest.mark.parametrize(("name", "mrar"), [("shortcut", True), ("trajectory", True), ("guidance", False)])
def test_every_objective_has_a_loss_with_gradients_in_the_decoder_alone(name, mrar):
    sampling = {"solver": "euler" if name == "guidance" else "flow_map"}
    goal = objective(mrar, distillation={"objective": name}, sampling=sampling)
    trained = networks(mrar)[-1]
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(lambda p: loss_of(goal, mrar, p), has_aux=True))(trained)
    assert np.isfinite(loss) and loss > 0
    count = ROWS * (4 if mrar else 1) * 2
    assert metrics["bucket_count"].sum() == count
    np.testing.assert_allclose(metrics["bucket_loss"].sum() / count, loss, rtol=1e-5)
    norms = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), gradient)
    assert max(jax.tree.leaves(norms["encoder"])) == 0
    assert norms["decoder"]["keys_values"]["key"]["kernel"] > 0
    assert norms["decoder"]["guidance_embedding"]["down"]["kernel"] > 0


def test_the_guidance_objective_is_the_distance_to_the_guided_teacher():
    goal = objective(distillation={"objective": "guidance"}, sampling={"solver": "euler"})
    draws = goal.draw(ROWS, 0, jnp.zeros((), jnp.int32))
    assert (np.asarray(draws.jumps.t) == np.asarray(draws.jumps.r)).all()
    teacher, params, model, _, trained = networks(False)
    loss, metrics = loss_of(goal, False, draws=draws)
    assert set(metrics) == {"loss", "anchor_loss", "bucket_loss", "bucket_count"}
    # Again, step by step.
    latents = jnp.asarray(np.random.default_rng(3).standard_normal((ROWS, 1, 4, 4, CHANNELS)), jnp.float32)
    data = latents.reshape(ROWS, 1, 1, TOKENS, CHANNELS)
    t = draws.jumps.t[..., None, None]
    x = (1 - t) * data + t * draws.jumps.noise
    features = teacher.features(params, jnp.arange(ROWS), None)
    target = teacher.guided_velocity(
        params, teacher.condition(params, features), x, draws.jumps.t, draws.jumps.guidance
    )
    keys_values = applied(model, trained, TransDiff.condition)(features.conditional)
    made = flow_map(model, trained, keys_values, x, draws.jumps.t, draws.jumps.t, draws.jumps.guidance)
    np.testing.assert_allclose(loss, np.mean((made - target) ** 2), rtol=1e-5)


def test_the_average_or_the_student_makes_the_half_jumps():
    trained = networks(False)[-1]
    other = jax.tree.map(lambda leaf: leaf * 1.1, trained)
    with_average, alone = objective(), objective(distillation={"own_average": False})
    for goal, differs in ((with_average, True), (alone, False)):
        loss = jax.jit(lambda average, goal=goal: loss_of(goal, False, average=average)[0])
        assert (loss(other) != loss(trained)) == differs


def test_earlier_images_can_be_the_teachers_own():
    goal = objective(True, distillation={"references": "teacher"}, sampling={"solver": "flow_map"})
    ode = dataclasses.replace(goal.teacher.sampling, solver="dpmpp_2m", steps=3)
    goal = Distillation(goal.config, dataclasses.replace(goal.teacher, sampling=ode))
    draws = goal.draw(ROWS, 0, jnp.zeros((), jnp.int32))
    assert draws.references.shape == (ROWS, TOKENS, CHANNELS)
    own = jax.jit(lambda: loss_of(goal, True, draws=draws)[0])()
    data = jax.jit(lambda: loss_of(objective(True), True, draws=StepDraws(draws.jumps, None))[0])()
    assert np.isfinite(own) and own != data


def test_a_student_teaches_with_one_pass():
    _, params, model, _, trained = networks(False)
    trained = {**trained, "encoder": params["encoder"]}
    teacher = Teacher(model, student_config().sampling)
    x, t, labels, _ = inputs(False)
    features = teacher.features(trained, labels, None)
    assert features.unconditional is None
    keys_values = teacher.condition(trained, features)
    w = jnp.full_like(t, 1.5)
    ours = teacher.guided_velocity(trained, keys_values, x, t, w)
    np.testing.assert_array_equal(ours, flow_map(model, trained, keys_values, x, t, t, w))


def test_a_student_is_a_pair_of_parameters():
    _, _, model, started, trained = networks(False)
    x, t, labels, _ = inputs(False)
    features = networks(False)[0].features(started, labels, None)
    student = Student(model, trained, started, {})
    target = student.target_map(features)(x, t, t / 2, t)
    assert student.errors(features, (x, t, t / 2, t), target).shape == t.shape
    assert np.all(Student(model, started, started, {}).errors(features, (x, t, t / 2, t), target) < 1e-9)
