import pytest

from tests.support.configs import tiny_config
from tests.support.students import student_config
from transdiff_jax.errors import UserError


@pytest.mark.parametrize("mrar", [False, True])
@pytest.mark.parametrize(
    ("objective", "solver"),
    [("shortcut", "flow_map"), ("shortcut", "heun"), ("guidance", "euler_maruyama"), ("trajectory", "flow_map")],
)
def test_students(mrar, objective, solver):
    student_config(mrar, distillation={"objective": objective}, sampling={"solver": solver})


BAD = {
    "flow_map=True is for few-step students": {"distillation": {"objective": "none"}, "sampling": {"solver": "euler"}},
    "needs config.model.flow_map=True: the student takes": {"model": {"flow_map": False}},
    'config.train.only="all" must be "decoder"': {"train": {"only": "all"}},
    "config.train.init_from is empty: name the run of the teacher": {"train": {"init_from": ""}},
    "anchor_share=0.3 of config.loss.pairs_per_latent=2 must be a whole": {"distillation": {"anchor_share": 0.3}},
    "anchor_share=0.0 of config.loss.pairs_per_latent=2": {"distillation": {"anchor_share": 0.0}},
    "anchor_share=1.0 leaves no jumps to learn": {"distillation": {"anchor_share": 1.0}},
    "anchor_share=2.0 must be at least 0 and at most 1": {"distillation": {"anchor_share": 2.0}},
    "config.distillation.guidance=(2.0, 1.0) must be one weight": {"distillation": {"guidance": (2.0, 1.0)}},
    "config.distillation.guidance=() must be one weight": {"distillation": {"guidance": ()}},
    "config.distillation.guidance=(0.5, 1.0): 0.5 must be": {"distillation": {"guidance": (0.5, 1.0)}},
    'references="teacher" needs earlier images': {"distillation": {"references": "teacher"}},
    "own_average=False has an effect only on the objective shortcut": {
        "distillation": {"objective": "trajectory", "own_average": False}
    },
    "needs a student of jumps; this one learned the guided velocity": {"distillation": {"objective": "guidance"}},
    'solver="heun" asks for velocities': {
        "distillation": {"objective": "trajectory"},
        "sampling": {"solver": "heun"},
    },
    "config.sampling.guidance=(2.5,): this student learned the weights 1.0 to 2.0": {"sampling": {"guidance": (2.5,)}},
    "this student learned the weights 1.5": {"distillation": {"guidance": (1.5,)}, "sampling": {"guidance": (1.6,)}},
    "take the weight down to 1, but this student learned the weights 1.5": {
        "distillation": {"guidance": (1.5,)},
        "sampling": {"guidance_schedule": "linear"},
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_students(message):
    with pytest.raises(UserError) as error:
        student_config(**BAD[message])
    assert message in str(error.value)


def test_other_models_have_no_flow_map():
    with pytest.raises(UserError, match='solver="flow_map" needs a few-step student'):
        tiny_config(sampling={"solver": "flow_map"})
    with pytest.raises(UserError, match="flow_map=True is for few-step students"):
        tiny_config(model={"flow_map": True})
