"""Command lines of `sample` and `evaluate`: each line, and what its error says after =>. With "ok" it ends with 0."""

HUGE = "9" * 30
_RUN = "sample --workdir=run --out=out2"
_SET = "evaluate --inception=inception --reference=real.npz --certificate=out2.json"
_OWN = "evaluate --inception=inception --workdir=run --reference=statistics.npz --certificate=out2.json"

SAMPLE = [
    "sample => --workdir",
    "sample --workdir=run => --out",
    "sample --out=out2 => --workdir",
    *(f"sample --workdir={path} --out=out2 --num_samples=2" for path in ("''", "nowhere", "config.py", "/dev/null")),
    *(f"sample --workdir={path} --out=out2 --num_samples=2" for path in ("link", "loop", "data", "out", "'²'", "' '")),
    "ok sample --workdir=run/ --out=out2 --labels=1",
    "ok sample --workdir=./run/../run --out=out2 --labels=1",
    "ok sample --workdir=good_link --out=out2 --labels=1",
    *(f"sample --workdir=run --out={path} --labels=1" for path in ("''", "config.py", "/dev/null", "loop")),
    *(f"sample --workdir=run --out={path} --labels=1" for path in ("pictures", "link/a/b", "loop/a", "pipe")),
    f"sample --workdir=run --out={'x' * 300} --labels=1",
    f"sample --workdir={'y/' * 3000} --out=out2 --labels=1",
    "ok sample --workdir=run --out='out2/a b/ünï/٤٥' --labels=1",
    "ok sample --workdir=run --out='out2/a\0b' --labels=1",
    f"{_RUN} --labels=1 --fuse=1,2 => give one of",
    *(
        f"{_RUN} --labels={value}"
        for value in ("''", ",", "1,", "a", "1.5", "1e3", "-1", "10", HUGE, "nan", "1;2", "٤²")
    ),
    *(f"{_RUN} --labels={value}" for value in ("0x1", "'1 2'", "None", "1,2,a", "--", "[1]", "²")),
    *(f"{_RUN} --num_samples={value}" for value in ("0", "-1", "''", "a", "1.5", "1e3", "nan", "inf", "True", HUGE)),
    *(f"{_RUN} --num_samples={value}" for value in ("99999999999999999999", "9223372036854775807", "1000000000000")),
    *(f"{_RUN} --fuse={value}" for value in ("1", "1,2,3", "1,a", "1,10", "''", ",", "-1,1", HUGE)),
    f"{_RUN} --fuse=1,2 --num_samples=0",
    f"{_RUN} --fuse=1,2 --num_samples={HUGE}",
    *(f"{_RUN} --fuse=1,2 --fuse_fraction={value}" for value in ("-0.1", "1.1", "nan", "inf", "1e400", "a", "''")),
    f"{_RUN} --labels=1 --fuse_fraction=0.5 => only with --fuse",
    *(f"{_RUN} --labels=1 --seed={value}" for value in ("-1", "2147483648", HUGE, "1.5", "a", "''", "0x10", "nan")),
    *(f"{_RUN} --labels=1 --steps={value}" for value in ("0", "-1", "1,2", "''", "a", "1.5", "nan", HUGE, ",")),
    *(f"{_RUN} --labels=1 --steps={value}" for value in ("100000000000", "9223372036854775808", "4e9", "2147483648")),
    *(f"{_RUN} --labels=1 --guidance={value}" for value in ("0.5", "-1", "nan", "inf", "1e400", "a", "''", "1,2")),
    *(
        f"{_RUN} --labels=1 --guidance_interval={value}"
        for value in ("0", "0,2", "1,0", "nan,1", "-1,1", "a,b", "0,1,2")
    ),
    *(f"{_RUN} --labels=1 --guidance_schedule={value}" for value in ("''", "cubic", "Linear", "0")),
    f"{_RUN} --labels=1 --guidance_power=4 => only with",
    *(
        f"{_RUN} --labels=1 --guidance_schedule=power_cosine --guidance_power={value}"
        for value in ("0", "-1", "nan", "inf", "1e400", "a")
    ),
    *(f"{_RUN} --labels=1 --solver={value}" for value in ("''", "rk4", "EULER", "1")),
    f"{_RUN} --labels=1 --solver=heun --noise_scale=1 => only with",
    f"{_RUN} --labels=1 --solver=euler --drift_scale=1 => only with",
    *(f"{_RUN} --labels=1 --noise_scale={value}" for value in ("-1", "nan", "inf", "1e400", "a", "''")),
    *(f"{_RUN} --labels=1 --drift_scale={value}" for value in ("-1", "nan", "-inf", "1e400", "a", "''")),
    *(f"{_RUN} --labels=1 --batch_size={value}" for value in ("0", "-1", "''", "a", "1.5", HUGE, "1000000000000")),
    *(f"{_RUN} --labels=1 --ema_rate={value}" for value in ("0.5", "-1", "nan", "1", "a", "''", "1e400")),
    *(f"{_RUN} --labels=1 --mesh={value}" for value in ("1", "1,1", "1,1,1,1", "0,1,1", "-1,-1,1", "2,1,1", "a,1,1")),
    *(
        f"{_RUN} --labels=1 --mesh={value}"
        for value in ("''", "-2,1,1", f"{HUGE},1,1", "1.5,1,1", "1,1,-1,", "nan,1,1")
    ),
    *(f"{_RUN} --labels=1 --tokenizer={value}" for value in ("/nope", "''", "config.py", "run", "weights")),
    *(
        f"{_RUN} --labels=1 {value}"
        for value in ("extra", "--unknown=1", "--npz=maybe", "--labels", "--=", "---", "-x")
    ),
    *(
        f"{_RUN} --labels=1 {value}"
        for value in ("--seed", "--no", "--nosolver", "--all_images=2", "--workdir", "'--é=1'")
    ),
    "ok sample --help",
    "ok sample -h --workdir=",
]

EVALUATE = [
    "evaluate => --inception",
    "evaluate --inception=inception => give one of --samples",
    "evaluate --inception=inception --samples=out => give one of --reference",
    f"{_SET} => give one of --samples",
    f"ok {_SET} --samples=out",
    f"ok {_SET} --samples=pictures",
    f"ok {_SET} --samples=packed.npz",
    f"{_SET} --samples=out --workdir=run => give one of",
    *(
        f"{_SET} --samples={path}"
        for path in ("''", "nowhere", "config.py", "run", "data", "loop", "link", "/dev/null")
    ),
    *(
        f"{_SET} --samples={path}"
        for path in ("pipe", "statistics.npz", "home", "'a\nb'", "x" * 300, "one_step_256_a.pth")
    ),
    *(
        f"evaluate --inception=inception --samples=out --certificate=out2.json --reference={path}"
        for path in (
            "''",
            "nowhere",
            "nowhere.npz",
            "config.py",
            "run",
            "loop",
            "pipe",
            "/dev/null",
            "home",
            "inception",
        )
    ),
    "evaluate --inception=inception --samples=out --certificate=out2.json --reference=one_step_256_a.pth",
    *(
        f"evaluate --samples=out --reference=real.npz --certificate=out2.json --inception={path}"
        for path in ("''", "nowhere", "config.py", "run", "loop", "pipe", "weights", "one_step_256_a.pth", "home")
    ),
    *(
        f"evaluate --inception=inception --samples=out --reference=real.npz --certificate={path}"
        for path in (
            "''",
            "a.txt",
            "nowhere/a.json",
            "home",
            "real.npz",
            "out/samples.json",
            "/dev/null",
            "loop/a.json",
        )
    ),
    *(
        f"evaluate --inception=inception --samples=out --make-reference={path}"
        for path in ("''", "a.json", "nowhere/a.npz", "home", "out/samples.npz", "real", "loop/a.npz")
    ),
    "ok evaluate --inception=inception --samples=real.npz --make-reference=out2.npz",
    "evaluate --inception=inception --samples=real.npz --make-reference=out2.npz --reference=real.npz",
    "evaluate --inception=inception --samples=real.npz --make-reference=out2.npz --protocol=adm",
    "evaluate --inception=inception --samples=real.npz --make-reference=real.npz => would replace",
    *(f"{_SET} --samples=out --protocol={value}" for value in ("''", "x", "ADM", "1")),
    *(f"{_SET} --samples=out --inception_batch_size={value}" for value in ("0", "-1", "a", "1.5", "''", "nan", HUGE)),
    f"{_SET} --samples=out --inception_batch_size=1000000000000",
    *(f"{_SET} --samples=out {flag} => only with --workdir" for flag in ("--seed=1", "--steps=3", "--guidance=2")),
    *(f"{_SET} --samples=out {flag} => only with --workdir" for flag in ("--num_samples=3", "--batch_size=2")),
    *(f"{_SET} --samples=out {value}" for value in ("extra", "--unknown=1", "--samples", "--=1")),
    f"ok {_OWN} --num_samples=4",
    *(f"{_OWN} --num_samples={value}" for value in ("0", "-1", "a", "''", "1.5", HUGE, "1000000000000")),
    *(f"{_OWN} --num_samples=4 --steps={value}" for value in ("0", "1,2", "a", "100000000000")),
    *(
        f"{_OWN} --num_samples=4 {flag}"
        for flag in ("--ema_rate=0.5", "--guidance=nan", "--batch_size=0", "--mesh=2,1,1")
    ),
    *(f"{_OWN} --num_samples=4 --tokenizer={value}" for value in ("/nope", "''")),
    "evaluate --inception=inception --workdir=nowhere --reference=real.npz",
    "evaluate --inception=inception --workdir='' --reference=real.npz",
]
LINES = [*SAMPLE, *EVALUATE]
