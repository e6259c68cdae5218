"""The house: what stands where, and who may import whom."""

import ast
import importlib

import pytest

from tests.support.paths import CONFIGS, ROOT
from transdiff_jax.config import Config, load_config_dict, make_config

PACKAGE = ROOT / "transdiff_jax"
LOOSE = {"__init__", "errors", "rng"}
# A package imports only what stands to its left.
ORDER = (
    *("errors", "rng", "config", "storage", "parallel", "images", "flow", "nn", "tokenizer", "model"),
    *("data", "checkpoints", "sampling", "generation", "evaluation", "training", "distillation"),
    *("convert", "hub", "verification", "benchmark", "demo", "cli"),
)
CONFIG_FILES = sorted(CONFIGS.rglob("*.py"))


def module_name(path):
    """transdiff_jax/flow/path.py -> "flow.path", transdiff_jax/flow/__init__.py -> "flow"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FACES = {module for module, path in MODULES.items() if path.name == "__init__.py"}


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


GRAPH = {module: {name for name, _ in project_imports(ast.parse(path.read_text()))} for module, path in MODULES.items()}


def room(module):
    return module.split(".")[0]


def assert_no_circle(graph, what):
    done = set()

    def visit(node, trail):
        assert node not in trail, f"{what} go round: {' -> '.join((*trail, node))}"
        if node not in done:
            for imported in graph.get(node, ()):
                visit(imported, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_every_module_is_seen():
    assert {"config.schema", "flow.path", "model.transdiff", "cli.train", "training.loop"} <= set(MODULES)
    assert {"parallel.axes", "config", "nn.attention", "nn.stack"} <= GRAPH["model.encoder"]


def test_every_room_is_in_the_list_and_nothing_else_is_loose():
    rooms = {room(module) for module in MODULES if module}
    assert rooms == set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_go_left(module):
    for imported in GRAPH[module]:
        if room(imported) != room(module):
            assert ORDER.index(room(imported)) < ORDER.index(room(module)), f"{module} imports {imported}"


def test_no_circle_inside_a_package():
    # Faces only name what others hold.
    assert_no_circle({module: GRAPH[module] - FACES for module in GRAPH if module not in FACES}, "modules")


def test_no_circle_between_the_parts_of_a_package():
    for package in ORDER:
        parts = {}
        for module in GRAPH:
            if room(module) == package and module not in FACES:
                part = ".".join(module.split(".")[:2])
                imported = {".".join(name.split(".")[:2]) for name in GRAPH[module] if room(name) == package}
                parts.setdefault(part, set()).update(imported - {part, package})
        assert_no_circle(parts, f"parts of {package}")


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


@pytest.mark.parametrize("module", sorted(FACES))
def test_every_package_says_its_one_job_and_holds_no_logic(module):
    tree = ast.parse(MODULES[module].read_text())
    assert ast.get_docstring(tree), module
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))], module


def test_names_are_found_at_the_first_guess():
    homes = {}
    for module in MODULES:
        package, _, name = module.rpartition(".")
        if package and "." not in package and package != "cli":
            homes.setdefault(name, []).append(module)
    assert not {name: found for name, found in homes.items() if len(found) > 1}
    folders = {path.parent for path in MODULES.values()}
    assert all((folder / "__init__.py").exists() for folder in folders)
    assert not [name for name in MODULES if {"utils", "util", "helpers", "common", "misc"} & set(name.split("."))]


def test_modules_and_functions_are_short():
    for module, path in MODULES.items():
        text = path.read_text()
        assert len(text.splitlines()) <= 250, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{module}.{node.name}"


def test_tests_mirror_the_packages():
    for path in (ROOT / "tests").rglob("*_test.py"):
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] not in ("multiprocess", "withstand"):
            assert (PACKAGE / folder).is_dir(), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not (node.module.startswith("tests.") and node.module.endswith("_test")), path


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_config_is_valid(path):
    config = make_config(load_config_dict(path).to_dict())
    assert config != Config()
    # The header says how to run it.
    assert f"--config={path.relative_to(PACKAGE.parent)}" in ast.get_docstring(ast.parse(path.read_text()))


def test_there_are_configs():
    assert {"digits", "digits_mrar"} <= {path.stem for path in CONFIG_FILES}
