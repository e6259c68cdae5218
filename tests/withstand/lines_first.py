"""Command lines that are always run, each with what its error must say; as in lines_sample.py."""

_TRAIN = "train --config=config.py --workdir=out2"
_SAMPLE = "sample --workdir=run --out=out2"

TRAIN = [
    f"{_TRAIN} --config.model.heads=5 => config.model.heads=5 must divide config.model.width=16",
    f"{_TRAIN} --config.model.widht=3 => no such field: 'widht' Did you mean \"width\"",
    f"{_TRAIN} --config.trian.steps=3 => no such field: 'trian'",
    f"{_TRAIN} --config.model.width=wide => --config.model.width=wide",
    f"{_TRAIN} --config.train.ema_rates=\"('fast',)\" => config.train.ema_rates[0]='fast' must be of type float",
    f"{_TRAIN} --nonsense=3 => Unknown command line flag 'nonsense'",
    f"{_TRAIN} stray => unexpected argument 'stray'",
    "train --config=pipe --workdir=out2 => --config=pipe is not a file: name a configuration file",
    "train --config=huge.py --workdir=out2 => --config=huge.py holds 8589934592 bytes: name a configuration file",
    "train --config=no_function.py --workdir=out2 => TypeError: 'int' object is not call",
    "train --config=configs/missing.py --workdir=out2 => configs/missing.py",
    f"{_TRAIN} --config.data.split=validation => config.data.split='validation' is not a split of digits",
    f"{_TRAIN} --config.data.image_size=16 --config.model.latent_size=8 => config.data.image_size=16",
    f"{_TRAIN} --config.train.init_from=/nonexistent => /nonexistent holds no checkpoints",
    f"{_TRAIN} --config.mesh.data=3 => does not fit 1 device(s)",
    f"{_TRAIN} --config.data.source=folder:missing => error: config.data.source names the folder missing: No such file",
]
SAMPLE = [
    f"{_SAMPLE} --workdir=home --labels=1 => holds no checkpoints",
    f"{_SAMPLE} --out=config.py --labels=1 => cannot be used",
    f"{_SAMPLE} --labels=10 => class 10 does not exist; this model has classes 0 to 9",
    f"{_SAMPLE} --labels=seven => --labels: 'seven' is not a whole number",
    f"{_SAMPLE} => give one of --labels=207,88, --num_samples=50000, and --fuse=207,88",
    f"{_SAMPLE} --labels=1 --num_samples=2 => give one of --labels=207,88",
    f"{_SAMPLE} --fuse=1 => --fuse=1 must name two classes, such as --fuse=207,88",
    f"{_SAMPLE} --fuse=1,11 => fuse_with: class 11 does not exist",
    f"{_SAMPLE} --labels=1 --fuse_fraction=0.1 => --fuse_fraction has an effect only with --fuse",
    f"{_SAMPLE} --labels=1 --solver=heun --noise_scale=1 => --noise_scale has an effect only with the solver euler",
    f"{_SAMPLE} --labels=1 --steps=3,4 => config.sampling.steps_by_image=(3, 4) must be empty, or hold one",
    f"{_SAMPLE} --labels=1 --guidance=0.5 => 0.5 must be at least 1",
    f"{_SAMPLE} --num_samples=99999999999999999999 => is not an integer in the range [1, 10000000]",
]
OTHER = ["cache_latents --out=out2 => give one of --config=FILE (which names the images and the weights), --check, and"]
LINES = [*TRAIN, *SAMPLE, *OTHER]
