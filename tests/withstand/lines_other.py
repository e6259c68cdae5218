"""Command lines of the other commands, as in lines_sample.py."""

HUGE = "9" * 30
_CONVERT = "convert --checkpoint=one_step_256_a.pth --kind=transdiff --out=out2"
_CACHE = "cache_latents --config=photos.py --out=out2"
_BENCH = "benchmark --config=config.py"

TRANSDIFF = [
    "ok ",
    "ok --help",
    "ok --version",
    "ok help",
    *(
        f"{word} => is not a command"
        for word in ("trian", "''", "²", "sample2", "'a b'", "--verbose", "app", "main", "..")
    ),
    "'a\nb' => is not a command",
    "__init__ => is not a command",
]
CONVERT = [
    "convert",
    "convert --checkpoint=one_step_256_a.pth --out=out2 => --kind",
    "convert --checkpoint=one_step_256_a.pth --kind=transdiff => --out",
    *(
        f"convert --kind=transdiff --out=out2 --checkpoint={path}"
        for path in (
            "''",
            "nowhere",
            "run",
            "config.py",
            "real.npz",
            "loop",
            "pipe",
            "/dev/null",
            "statistics.pt",
            "home",
        )
    ),
    *(f"convert --checkpoint=one_step_256_a.pth --out=out2 --kind={kind}" for kind in ("''", "x", "kl16", "inception")),
    *(
        f"convert --checkpoint=one_step_256_a.pth --kind=transdiff --heads=2 --out={path}"
        for path in ("''", "run", "config.py", "loop", "/dev/null", "config.py/a", "pipe", "x" * 300)
    ),
    *(f"{_CONVERT} --heads={value}" for value in ("0", "-1", "3", "1.5", "a", "''", "nan", HUGE, "1000000000")),
    *(f"{_CONVERT} --heads=2 --tokenizer={value}" for value in ("''",)),
    f"{_CONVERT} --heads=2 --to-torch => leave it out",
    *(
        f"convert --kind=transdiff --to-torch --out=out2.pth --checkpoint={path}"
        for path in ("''", "nowhere", "data", "config.py", "loop", "out", "one_step_256_a.pth", "inception")
    ),
    *(
        f"convert --kind=kl16 --to-torch --out=out2.pth --checkpoint={path}"
        for path in ("''", "nowhere", "run", "loop")
    ),
    *(
        f"convert --kind=transdiff --to-torch --checkpoint=run --out={path}"
        for path in ("''", "config.py/a.pth", "loop/a.pth", "/dev/null/a.pth")
    ),
    "convert --kind=inception --to-torch --checkpoint=inception --out=out2.pth => does not go with",
    f"{_CONVERT} extra",
    f"{_CONVERT} --unknown=1",
    f"{_CONVERT} --to-torch=maybe",
    "ok convert --help",
]
VERIFY = [
    "verify => name at least one golden file",
    *(
        f"verify {path}"
        for path in ("''", "nowhere", "config.py", "run", "loop", "pipe", "/dev/null", "real.npz", "' '")
    ),
    *(
        f"verify {path}"
        for path in ("one_step_256_a.pth", "statistics.npz", "out/samples.npz", "x" * 300, "'a\nb'", "'é²'")
    ),
    "verify real.npz kl16_a.npz",
    "verify --unknown=1 kl16_a.npz",
    "ok verify kl16_a.npz",
    "ok verify --help",
]
CACHE = [
    "cache_latents => --out",
    f"{_CACHE} --check => give one of",
    f"{_CACHE} --groups=random => give one of",
    *(
        f"cache_latents --config=photos.py --out={path}"
        for path in ("''", "config.py", "loop", "/dev/null", "run", "pipe")
    ),
    *(
        f"cache_latents --check --out={path}"
        for path in ("''", "nowhere", "run", "config.py", "loop", "pipe", "photos")
    ),
    "ok cache_latents --check --out=latents",
    "ok cache_latents --config=photos.py --out=latents",
    "cache_latents --config=photos.py --out=latents --dtype=bfloat16 => choose another folder",
    *(f"{_CACHE} --dtype={value}" for value in ("''", "float64", "float32", "1")),
    "cache_latents --config=config.py --out=out2",
    *(
        f"{_CACHE} --config.data.source={value}"
        for value in ("digits", "folder:nowhere", "latents:latents", "tfds:x", "''")
    ),
    *(f"{_CACHE} --config.tokenizer.weights={value}" for value in ("''", "nowhere", "run", "config.py", "inception")),
    *(f"{_CACHE} --config.data.{field}" for field in ("crop=random", "image_size=33", "image_size=1600000000")),
    f"{_CACHE} --config.tokenizer.slice_size=100000000000",
    f"{_CACHE} --config.tokenizer.slice_size=0",
    *(f"cache_latents --groups=random --group_size={n} --out=latents" for n in ("0", "1", "-1", "a", "1.5", "5", HUGE)),
    *(f"cache_latents --groups={value} --out=latents" for value in ("''", "x", "semantic")),
    *(
        f"cache_latents --groups=semantic --groups_run={path} --out=latents"
        for path in ("''", "nowhere", "run", "config.py")
    ),
    "cache_latents --groups=random --groups_run=run --out=latents => go together",
    *(
        f"cache_latents --groups=random --seed={value} --out=latents"
        for value in ("-1", "2147483648", HUGE, "a", "nan")
    ),
    "cache_latents --groups=random --small_classes=x --out=latents",
    "cache_latents --groups=random --out=nowhere",
    f"{_CACHE} extra",
    f"{_CACHE} --check=maybe",
]
BENCHMARK = [
    "benchmark => --what",
    *(f"benchmark --what={value}" for value in ("''", "x", "sample", "train", "data", "aot")),
    *(f"{_BENCH} --what=sample --repetitions={value}" for value in ("0", "-1", "a", "1.5", "''", HUGE)),
    *(f"{_BENCH} --what=sample --batch_size={value}" for value in ("0", "-1", "a", HUGE, "1000000000000", "1.5")),
    *(f"{_BENCH} --what=train --batch_size={value}" for value in ("0", "-1", HUGE, "1000000000000")),
    f"ok {_BENCH} --what=train --flops_only",
    f"ok {_BENCH} --what=sample --flops_only",
    *(
        f"{_BENCH} --what=train {flag} => does not go with"
        for flag in ("--compare_naive", "--compare_train", "--topology=a")
    ),
    *(
        f"{_BENCH} --what=sample {flag} => does not go with"
        for flag in ("--image_size=8", "--mode=train", "--num_slices=2")
    ),
    f"{_BENCH} --what=evaluate => does not go with",
    *(f"benchmark --what=evaluate --image_size={value}" for value in ("0", "-1", "a", HUGE, "1000000000")),
    *(f"benchmark --what=evaluate --batch_size={value}" for value in ("0", "a", "100000000000", HUGE)),
    *(
        f"{_BENCH} --what=aot --topology={value}"
        for value in ("''", "x", "v5e", "v5e:", "v5e:0x0", "v5e:4x4x4x4", "v5e:axb")
    ),
    *(f"{_BENCH} --what=aot --topology={value}" for value in ("v5e:-1x4", "v9:4x4", f"v5e:{HUGE}x4", "'v5e:²x4'")),
    *(f"{_BENCH} --what=aot --topology=v5e:4x4 --num_slices={value}" for value in ("0", "-1", "a", HUGE)),
    *(f"{_BENCH} --what=aot --topology=v5e:4x4 --mode={value}" for value in ("''", "x")),
    f"{_BENCH} --what=data --config.data.directory=''",
    f"{_BENCH} --what=data extra",
]
REPORT = [
    "digits_report => --folder",
    *(f"digits_report --folder={path}" for path in ("''", "nowhere", "run", "config.py", "loop", "/dev/null", "home")),
    "digits_report --folder=home extra",
    "digits_report --unknown=1",
]
INFO = [
    "info => --workdir",
    *(
        f"info --workdir={path}"
        for path in ("''", "nowhere", "data", "config.py", "loop", "pipe", "out", "/dev/null", "x" * 300, "s3://a/b")
    ),
    *(f"info --workdir={name}" for name in ("hf://", "hf://a", "hf://a/b", "hf://a/../b", "hf://a/b/c.bin", "gs://")),
    *(f"convert --checkpoint={name} --kind=transdiff --out=out2" for name in ("hf://a/b", "hf://a/b@%00/c", "hf:")),
    "ok info --workdir=run",
    "ok info --workdir=good_link --json",
    "info --workdir=run extra",
    "info --workdir=run --json=maybe",
]
PUSH = [
    "push => --license",
    "push --workdir=run --repo=a/b => --license",
    *(f"push --workdir={path} --repo=a/b --license=mit" for path in ("''", "nowhere", "config.py", "loop", "hf://a/b")),
    *(f"push --workdir=run --license=mit --repo={repo}" for repo in ("''", "a", "a/b/c", "../a", "a/b@c", "a/..")),
    *(f"push --workdir=run --repo=a/b --license={name}" for name in ("''", "MIT", "'a b'", "'a\nb: c'", "²")),
    *(f"push --workdir=run --repo=a/b --license=mit --ema_rate={rate}" for rate in ("0.5", "-1", "nan", "a", "''")),
    *(
        f"push --workdir=run --repo=a/b --license=mit --certificates={path}"
        for path in ("''", "nowhere", "run", "out/samples.json", "config.py", "pipe", "/dev/null")
    ),
    "push --workdir=run --repo=a/b --license=mit => cannot be reached",
]
LINES = [*TRANSDIFF, *CONVERT, *VERIFY, *CACHE, *BENCHMARK, *REPORT, *INFO, *PUSH]
