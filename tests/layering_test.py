import ast
import importlib
from pathlib import Path

import pytest

import transdiff_jax
from transdiff_jax.config import Config, load_config_dict, make_config

PACKAGE = Path(transdiff_jax.__file__).parent
CONFIGS = sorted((PACKAGE.parent / "configs").rglob("*.py"))
# The first pattern that a module is, or lies below, decides.
FLOORS = {
    "training.loop": 4,
    "training.scores": 4,
    "sample_stream": 4,
    "evaluation.digits_report": 4,
    "benchmark": 4,
    "caching": 4,
    "generation": 4,
    "grouping": 4,
    "verification": 4,
    "config": 0,
    "rng": 0,
    "sharding": 0,
    "errors": 0,
    "files": 0,
    "images": 0,
    "manifest": 0,
    "processes": 0,
    "dispatch": 0,
    "distributed": 0,
    "tpu_compiler": 0,
    "run_record": 1,
    "checkpoint_steps": 1,
    "machine": 0,
    "frozen_weights": 1,
    "image_writer": 1,
    "sample_set": 1,
    "finished_set": 1,
    "flops": 1,
    "flow": 1,
    "nn": 1,
    "tokenizer": 1,
    "model": 2,
    "data": 2,
    "conditions": 3,
    "naive_sampling": 3,
    "sampling": 3,
    "sampling_noise": 3,
    "semantics": 3,
    "training": 3,
    "checkpoint": 3,
    "convert": 3,
    "evaluation": 3,
    "cli": 5,
}


def module_name(path):
    """transdiff_jax/flow/path.py -> "flow.path", transdiff_jax/flow/__init__.py -> "flow"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module):
    for name, number in FLOORS.items():
        if module == name or module.startswith(name + "."):
            return number
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def project_imports(tree):
    """Names of project modules that a syntax tree imports, without the package's name, and the nodes that do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            short = name.removeprefix("transdiff_jax").removeprefix(".")
            if name.split(".")[0] == "transdiff_jax" and short in MODULES and short:
                yield short, node


def test_every_module_is_seen():
    assert {"config", "flow", "flow.path", "model.transdiff", "cli.train", "training.loop"} <= set(MODULES)
    imported = {name for name, _ in project_imports(ast.parse(MODULES["model.encoder"].read_text()))}
    assert {"sharding", "config", "nn.attention", "nn.stack"} <= imported


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_go_down(module):
    for imported, node in project_imports(ast.parse(MODULES[module].read_text())):
        assert floor(imported) <= floor(module), f"{module}, line {node.lineno}, imports {imported} from above"


def test_no_module_imports_itself_by_a_detour():
    graph = {
        module: {name for name, _ in project_imports(ast.parse(path.read_text()))} for module, path in MODULES.items()
    }
    done = set()

    def visit(module, trail):
        assert module not in trail, f"imports go round: {' -> '.join((*trail, module))}"
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_project_imports_are_at_the_top(module):
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = [name for name, _ in project_imports(node)]
            assert not inside, f"{module}.{getattr(node, 'name', 'lambda')} imports {inside}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module):
    importlib.import_module(f"transdiff_jax.{module}".rstrip("."))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path):
    config = make_config(load_config_dict(path).to_dict())
    assert config != Config()
    # The header says how to run it.
    assert f"--config={path.relative_to(PACKAGE.parent)}" in ast.get_docstring(ast.parse(path.read_text()))


def test_there_are_configs():
    assert {"digits", "digits_mrar"} <= {path.stem for path in CONFIGS}


def test_folders_are_packages_and_none_is_named_utils():
    folders = {path.parent for path in MODULES.values()}
    assert all((folder / "__init__.py").exists() for folder in folders)
    assert not [name for name in MODULES if {"utils", "util", "helpers", "common", "misc"} & set(name.split("."))]
