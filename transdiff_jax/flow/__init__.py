"""Flow matching: the path from data to noise, its times, guidance and solvers. It contains no networks."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.flow.guidance import guidance_weights, guide
    from transdiff_jax.flow.path import interpolate, score_from_velocity, sde_drift, velocity_target
    from transdiff_jax.flow.solvers import SOLVERS, Solver
    from transdiff_jax.flow.timesteps import SolverGrid, draw_training_timesteps, solver_grid

__all__ = [
    "SOLVERS",
    "Solver",
    "SolverGrid",
    "draw_training_timesteps",
    "guidance_weights",
    "guide",
    "interpolate",
    "score_from_velocity",
    "sde_drift",
    "solver_grid",
    "velocity_target",
]
