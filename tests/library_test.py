"""What `import transdiff_jax` gives, and what it leaves alone."""

import ast
import importlib
import subprocess
import sys

import pytest

import transdiff_jax as td
from tests.support.paths import ROOT

PACKAGE = ROOT / "transdiff_jax"
FACES = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if "__all__" in path.read_text())


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_importing_loads_nothing_heavy():
    result = python("import sys, transdiff_jax; print({'jax', 'numpy', 'flax', 'orbax'} & set(sys.modules))")
    assert result.stdout == "set()\n", result.stderr


def test_importing_all_names_touches_no_device_and_no_settings():
    # absl gives the root logger a handler at its first call, in Orbax for instance: levels and hooks stay.
    result = python(
        "import logging, sys, jax, absl.logging, transdiff_jax as td;"
        "state = lambda: (logging.root.level, absl.logging.get_verbosity(), sys.excepthook, sys.unraisablehook);"
        "before = state(); [getattr(td, name) for name in td.__all__];"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized(), state() == before)"
    )
    assert result.stdout == "False True\n", result.stderr


def test_the_face_has_few_names():
    assert {"load", "train", "generate", "evaluate", "SampleRequest", "UserError"} <= set(td.__all__)
    assert len(td.__all__) <= 10


@pytest.mark.parametrize("folder", FACES, ids=lambda folder: folder.name)
def test_names_of_a_face_exist_and_are_no_modules(folder):
    name = ".".join(folder.relative_to(ROOT).parts)
    face = importlib.import_module(name)
    assert len(set(face.__all__)) == len(face.__all__)
    for public in face.__all__:
        assert getattr(face, public) is not None
        # A module of the same name would take the name's place once it is imported.
        assert not (folder / f"{public}.py").exists() and not (folder / public).exists()
    tree = ast.parse((folder / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported - {"epy"} == set(face.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = td.laod
