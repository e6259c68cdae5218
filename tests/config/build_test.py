import dataclasses
import json

import pytest

from tests.support.configs import tiny_config
from transdiff_jax.config import (
    Config,
    MeshConfig,
    as_config,
    default_config_dict,
    load_config_dict,
    make_config,
)
from transdiff_jax.errors import UserError

FIELDS = [
    (section, name, value)
    for section, fields in Config().to_dict().items()
    if isinstance(fields, dict)
    for name, value in fields.items()
] + [("", "seed", 0)]
NUMBERS = [field for field in FIELDS if type(field[2]) in (int, float)]
BOUNDED = [field for field in NUMBERS if field[0] != "mesh"]  # the mesh is checked where the devices are known


def names(fields):
    return [f"{section}.{name}".lstrip(".") for section, name, _ in fields]


def with_field(section, name, value, mrar=True):
    values = tiny_config(mrar).to_dict()
    (values[section] if section else values)[name] = value
    return values


def message(values):
    with pytest.raises(UserError) as caught:
        make_config(values)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        ("model.width", 15, "config.model.heads=2 must divide config.model.width=15"),
        ("model.tokens_per_image", 16, "config.model.mask_tokens=4 must be 1 or config.model.tokens_per_image=16"),
        ("model.mask_tokens", 2, "config.model.mask_tokens=2 must be 1 or config.model.tokens_per_image=4"),
        ("model.reference_patch", 3, "config.model.reference_patch=3 must divide config.model.latent_size=4"),
        ("model.reference_patch", 4, "config.model.tokens_per_image=4 must be 1, the number of 4x4 patches"),
        ("model.reference_patch", 1, "config.model.tokens_per_image=4 must be 16, the number of 1x1 patches"),
        ("model.latent_size", 6, "must be 9, the number of 2x2 patches of a 6x6 latent"),
        ("model.latent_channels", 3, "config.model.latent_channels=3 must be 4: 2x2 patches of 1 channel(s)"),
        ("model.dropout", 1.0, "config.model.dropout=1.0 must be at least 0 and below 1"),
        (
            "model.attention_dropout",
            1.0,
            "config.model.attention_dropout=1.0 must be at least 0 and below 1, or -1 for",
        ),
        (
            "model.attention_dropout",
            -0.5,
            "config.model.attention_dropout=-0.5 must be at least 0 and below 1, or -1 for",
        ),
        ("model.label_dropout", -0.1, "config.model.label_dropout=-0.1 must be at least 0 and below 1"),
        ("model.dtype", "float16", "config.model.dtype='float16' is not one of 'float32', 'bfloat16'"),
        ("model.remat", "all", "config.model.remat='all' is not one of 'none', 'dots', 'full'"),
        ("model.attention", "paged", "config.model.attention='paged' is not one of 'xla', 'cudnn', 'flash'"),
        ("model.attention", "cudnn", 'config.model.attention="cudnn" needs config.model.dtype="bfloat16", not'),
        ("mesh.dcn_data", 0, "config.mesh.dcn_data=0 must be at least 1, or -1 for the slices found"),
        ("train.classes", "named", "config.train.classes='named' is not one of 'same', 'fresh', 'by_name'"),
        ("train.loggers", ("tensorbord",), "config.train.loggers[0]='tensorbord' is not one of 'tensorboard', 'wandb'"),
        ("train.loggers", ("wandb", "wandb"), "config.train.loggers=('wandb', 'wandb') must not name a logger twice"),
        ("tokenizer.kind", "vae", "config.tokenizer.kind='vae' is not one of 'pixels'"),
        ("tokenizer.patch", 3, "config.tokenizer.patch=3 must divide config.data.image_size=8"),
        ("tokenizer.patch", 4, "config.model.latent_size=4 must be 2: images of 8 pixels in patches of 4"),
        ("data.source", "imagenet", 'config.data.source=\'imagenet\' must be "digits", "tfds:NAME", "folder:PATH" or'),
        ("data.source", "folder:", "config.data.source='folder:' must be \"digits\""),
        ("data.image_channels", 4, "config.data.image_channels=4 must be 1 (grey) or 3 (RGB)"),
        ("data.crop", "centre", "config.data.crop='centre' is not one of 'none', 'random', 'center'"),
        ("data.source", "latents:", "config.data.source='latents:' must be \"digits\""),
        ("data.source", "latents:x", "'latents:x' holds KL-16 latents: config.tokenizer.kind must"),
        ("data.max_unreadable", 1.0, "config.data.max_unreadable=1.0 must be at least 0 and below 1"),
        ("data.image_size", 16, "config.model.latent_size=4 must be 8: images of 16 pixels in patches of 2"),
        ("data.image_channels", 3, "config.model.latent_channels=4 must be 12: 2x2 patches of 3 channel(s)"),
        ("loss.pairs_per_latent", 0, "config.loss.pairs_per_latent=0 must be at least 1"),
        ("optimizer.schedule", "step", "config.optimizer.schedule='step' is not one of 'constant', 'cosine'"),
        ("optimizer.beta2", 1.0, "config.optimizer.beta2=1.0 must be at least 0 and below 1"),
        ("optimizer.learning_rate", 0.0, "config.optimizer.learning_rate=0.0 must be above 0"),
        ("optimizer.clip_norm", 0, "config.optimizer.clip_norm=0.0 must be above 0"),
        ("optimizer.warmup_steps", 5, "config.optimizer.warmup_steps=5 must not exceed config.train.steps=4"),
        ("train.accumulation", 3, "config.train.accumulation=3 must divide config.train.batch_size=8"),
        ("train.ema_rates", (), "config.train.ema_rates=() must name at least one rate"),
        ("train.ema_rates", (0.5, 1.0), "config.train.ema_rates=(0.5, 1.0): 1.0 must be at least 0 and below 1"),
        ("train.ema_rates", (0.5, 0.5), "config.train.ema_rates=(0.5, 0.5) must not name a rate twice"),
        ("train.ema_rates", (True,), "config.train.ema_rates[0]=True must be of type float, not bool"),
        ("train.ema_rates", (0.9, "x"), "config.train.ema_rates[1]='x' must be of type float, not str"),
        ("train.ema_rates", (float("nan"),), "config.train.ema_rates[0]=nan must be a finite number"),
        ("train.ema_rates", 0.9, "config.train.ema_rates=0.9 must be a tuple such as"),
        ("train.only", "encoder", "config.train.only='encoder' is not one of 'all', 'decoder'"),
        ("train.init_weights", "best", "config.train.init_weights='best' is not one of 'ema', 'raw'"),
        ("sampling.solver", "rk4", "config.sampling.solver='rk4' is not one of 'euler_maruyama', 'euler'"),
        ("sampling.steps_by_image", (3, 3), "must be empty, or hold one number of steps for each of"),
        (
            "sampling.steps_by_image",
            (3, 3, 0, 3),
            "config.sampling.steps_by_image=(3, 3, 0, 3): 0 must be at least 1 and at most 100000",
        ),
        ("sampling.guidance_interval", (0.5,), "config.sampling.guidance_interval=(0.5,) must be two times, 0 <= low"),
        ("sampling.guidance_interval", (0.5, 0.4), "must be two times, 0 <= low <= high <= 1"),
        ("sampling.guidance_interval", (0.5, 1.1), "must be two times, 0 <= low <= high <= 1"),
        ("sampling.guidance_schedule", "cosine", "is not one of 'constant', 'linear', 'power_cosine'"),
        ("sampling.guidance_power", 0.0, "config.sampling.guidance_power=0.0 must be above 0"),
        ("sampling.fuse_fraction", 1.5, "config.sampling.fuse_fraction=1.5 must be at least 0 and at most 1"),
        ("sampling.last_time", 1.0, "config.sampling.last_time=1.0 must be above 0 and below 1"),
        ("sampling.last_time", 0.0, "config.sampling.last_time=0.0 must be above 0"),
        ("sampling.guidance", (), "config.sampling.guidance=() must hold one weight, or one for each"),
        ("sampling.guidance", (1.0, 2.0), "one for each of config.model.num_images=4 images"),
        ("sampling.guidance", (0.9,), "config.sampling.guidance=(0.9,): 0.9 must be at least 1 and"),
        ("sampling.guidance", (1.0, 1.0, 1.0, 0.5), "0.5 must be at least 1"),
        ("sampling.guidance", "1.3", "config.sampling.guidance='1.3' must be a tuple such as"),
    ],
)
def test_bad_value_is_one_line_that_names_it(path, value, fragment):
    section, name = path.split(".")
    assert fragment in message(with_field(section, name, value))


@pytest.mark.parametrize(("section", "name", "_"), BOUNDED, ids=names(BOUNDED))
def test_every_number_has_a_lower_bound(section, name, _):
    path = f"config.{section}.{name}" if section else f"config.{name}"
    assert f"{path}=-7" in message(with_field(section, name, -7))


@pytest.mark.parametrize(("section", "name", "_"), NUMBERS, ids=names(NUMBERS))
def test_bool_is_not_a_number(section, name, _):
    assert f"{name}=True must be of type" in message(with_field(section, name, True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("section", "name"), [field[:2] for field in NUMBERS if isinstance(field[2], float)], ids=lambda x: x
)
def test_floats_are_finite(section, name, value):
    assert f"config.{section}.{name}={value!r} must be a finite number" in message(with_field(section, name, value))


@pytest.mark.parametrize(("section", "name", "_"), FIELDS, ids=names(FIELDS))
def test_none_fits_no_field(section, name, _):
    assert f"{name}=None" in message(with_field(section, name, None))


@pytest.mark.parametrize(
    ("path", "value", "kinds"),
    [
        ("model.width", 16.0, "int, not float"),
        ("model.width", "16", "int, not str"),
        ("model.dropout", "0.1", "float, not str"),
        ("data.flip", 1, "bool, not int"),
        ("data.directory", 3, "str, not int"),
    ],
)
def test_wrong_type(path, value, kinds):
    section, name = path.split(".")
    assert f"config.{path}={value!r} must be of type {kinds}" in message(with_field(section, name, value))


@pytest.mark.parametrize("section", [name for name, value in Config().to_dict().items() if isinstance(value, dict)])
def test_unknown_key_and_section_that_is_no_section(section):
    text = message(with_field(section, "widht", 3))
    assert f"config.{section}.widht is not a configuration field; config.{section} has " in text
    values = tiny_config().to_dict() | {section: 3}
    assert message(values) == f"config.{section} must be a section with fields, but is 3"


def test_unknown_section():
    expected = "config.modle is not a configuration field; config has data, distillation, eval, loss, mesh, model"
    assert expected in message({"modle": {}})


def test_seed_fits_an_int32():
    # Samplers take an int32, and keys have 32 bits: a larger seed would draw the same as its low bits.
    assert make_config(with_field("", "seed", 2**31 - 1)).seed == 2**31 - 1
    assert "config.seed=2147483648" in message(with_field("", "seed", 2**31))


def test_one_image_needs_no_reference_patch():
    values = with_field("model", "reference_patch", 3, mrar=False)
    values["model"]["tokens_per_image"] = 5
    assert make_config(values).model.semantic_tokens == 5


def test_derived_sizes():
    model = tiny_config(mrar=True).model
    assert (model.semantic_tokens, model.latent_tokens) == (16, 16)
    assert tiny_config(model={"tokens_per_image": 7}).model.semantic_tokens == 7


@pytest.mark.parametrize(("given", "rate"), [({}, 0.3), ({"attention_dropout": 0.0}, 0.0)])
def test_attention_weights_drop_like_the_rest_unless_told_otherwise(given, rate):
    """Version 0.1 had one rate for both."""
    values = with_field("model", "dropout", 0.3)
    del values["model"]["attention_dropout"]
    values["model"].update(given)
    assert make_config(values).model.weight_dropout == rate


def test_int_becomes_float_and_list_becomes_tuple():
    values = with_field("sampling", "guidance", [1, 2, 3, 4])
    values["optimizer"]["learning_rate"] = 1
    config = make_config(values)
    assert config.sampling.guidance == (1.0, 2.0, 3.0, 4.0)
    assert all(type(weight) is float for weight in config.sampling.guidance)
    assert type(config.optimizer.learning_rate) is float


def test_dict_round_trip(config):
    changed = dataclasses.replace(config, seed=5, mesh=MeshConfig(data=2))
    assert make_config(changed.to_dict()) == changed
    assert make_config(json.loads(json.dumps(changed.to_dict()))) == changed


def test_absent_fields_take_their_defaults():
    values = tiny_config().to_dict()
    del values["loss"], values["train"]["keep_last"]
    config = make_config(values)
    assert config.loss == Config().loss
    assert config.train.keep_last == 2


def test_a_configuration_cannot_be_changed(config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.width = 32


def test_default_config_dict_has_all_fields_and_takes_no_others():
    config = default_config_dict()
    assert config.to_dict() == Config().to_dict()
    with pytest.raises((AttributeError, KeyError)):
        config.model.widht = 3


def test_a_config_file_may_start_from_another(tmp_path):
    (tmp_path / "a.py").write_text(
        "from transdiff_jax.config import default_config_dict\n"
        "def get_config():\n    config = default_config_dict()\n    config.seed = 3\n    return config\n"
    )
    (tmp_path / "b.py").write_text(
        "from pathlib import Path\nfrom transdiff_jax.config import load_config_dict\n"
        "def get_config():\n    config = load_config_dict(Path(__file__).with_name('a.py'))\n"
        "    config.train.steps = 9\n    return config\n"
    )
    config = load_config_dict(tmp_path / "b.py")
    assert (config.seed, config.train.steps) == (3, 9)


@pytest.mark.parametrize("made", [5, None, "text", [("seed", 3)]])
def test_a_config_file_that_makes_no_fields_is_one_line(tmp_path, made):
    (tmp_path / "c.py").write_text(f"def get_config():\n    return {made!r}\n")
    with pytest.raises(UserError, match=r"c\.py: get_config\(\) must return the fields of a config") as caught:
        as_config(tmp_path / "c.py")
    assert repr(made) in str(caught.value)


def test_a_config_file_may_make_a_dict(tmp_path):
    (tmp_path / "c.py").write_text(f"def get_config():\n    return {tiny_config().to_dict()!r}\n")
    assert as_config(tmp_path / "c.py") == tiny_config()


def test_a_file_that_is_no_config_file_is_one_line(tmp_path):
    (tmp_path / "c.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"c\.py has no function get_config"):
        as_config(tmp_path / "c.py")
    with pytest.raises(UserError, match=r"d\.py: No such file or directory"):
        as_config(tmp_path / "d.py")


def test_flash_has_no_mask():
    tiny_config(model={"attention": "flash"})
    with pytest.raises(UserError, match=r'attention="flash" has no mask for MRAR: set .* in place of 4'):
        tiny_config(mrar=True, model={"attention": "flash"})


def test_cudnn_needs_heads_of_a_multiple_of_eight():
    tiny_config(model={"attention": "cudnn", "dtype": "bfloat16"})
    for sizes, size in (({"heads": 4}, 4), ({"width": 512, "heads": 1}, 512)):
        message = rf"a multiple of 8 and at most 256, not config\.model\.width / config\.model\.heads = {size}"
        with pytest.raises(UserError, match=message):
            tiny_config(model={"attention": "cudnn", "dtype": "bfloat16", **sizes})
