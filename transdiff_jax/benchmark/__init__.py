"""Speed, FLOPs and memory: measured on this machine, or compiled ahead of time for another."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.benchmark.aot import benchmark_aot
    from transdiff_jax.benchmark.flops import sample_flops, training_flops
    from transdiff_jax.benchmark.input_speed import benchmark_data
    from transdiff_jax.benchmark.sampling_speed import benchmark_sample
    from transdiff_jax.benchmark.scoring_speed import benchmark_evaluate
    from transdiff_jax.benchmark.training_speed import benchmark_train

__all__ = [
    "benchmark_aot",
    "benchmark_data",
    "benchmark_evaluate",
    "benchmark_sample",
    "benchmark_train",
    "sample_flops",
    "training_flops",
]
