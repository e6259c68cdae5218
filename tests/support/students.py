"""A tiny teacher and its student."""

import dataclasses

from tests.support.configs import tiny_config

STUDENT = {
    "model": {"flow_map": True},
    "train": {"only": "decoder", "init_from": "teacher"},
    "sampling": {"solver": "flow_map", "steps": 2, "guidance": (1.5,)},
    "distillation": {"objective": "shortcut", "guidance": (1.0, 2.0)},
}


def student_config(mrar=False, **sections):
    """The configuration of a student of `tiny_config(mrar)`; keyword arguments change fields of a section."""
    merged = {name: {**STUDENT.get(name, {}), **sections.get(name, {})} for name in {*STUDENT, *sections}}
    return tiny_config(mrar, **merged)


def replaced(config, section, **fields):
    """A configuration with other fields in a section, not checked."""
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **fields)})
