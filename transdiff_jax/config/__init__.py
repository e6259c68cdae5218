"""The configuration of a run: its schema, its checks, and building it from a file."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.config.build import as_config, default_config_dict, load_config_dict, make_config
    from transdiff_jax.config.schema import (
        Config,
        DataConfig,
        DistillationConfig,
        EvalConfig,
        LossConfig,
        MeshConfig,
        ModelConfig,
        OptimizerConfig,
        SamplingConfig,
        TokenizerConfig,
        TrainConfig,
    )

__all__ = [
    "Config",
    "DataConfig",
    "DistillationConfig",
    "EvalConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "TokenizerConfig",
    "TrainConfig",
    "as_config",
    "default_config_dict",
    "load_config_dict",
    "make_config",
]
