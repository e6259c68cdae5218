"""Pages name only what is there: links, commands, flags, fields, files, names. Every public name has a docstring."""

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from absl.testing import flagsaver

import transdiff_jax as td
from tests.support.paths import ROOT
from transdiff_jax.cli import app
from transdiff_jax.cli.main import COMMANDS
from transdiff_jax.config import Config, SamplingConfig

PACKAGE = ROOT / "transdiff_jax"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")), *DOCS]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
LIBRARY = TEXTS["docs/library.md"]
TRAINERS = {"gpu_node.sh", "slurm.sbatch", "tpu_pod.sh"}  # launchers that hand their flags to the command train
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LINE = 120


def on_pages(cases):
    """Parametrizes a test by (name of the page, case)."""
    found = [(name, case) for name, text in TEXTS.items() for case in sorted(cases(text), key=str)]
    assert found
    return pytest.mark.parametrize(("page", "case"), found, ids=[f"{name}: {str(case)[:60]}" for name, case in found])


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def inline_code(text):
    return re.findall(r"`([^`\n]+)`", prose(text))


def shell_commands(text):
    """Words of the commands in bash blocks, continuation lines joined, comments dropped."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def call_of(words):
    """(command of transdiff, its arguments) of a shell command; None if it calls none."""
    for index, word in enumerate(words):
        if Path(word).name == "transdiff":
            return words[index + 1], words[index + 2 :]
        if word == "-m" and words[index + 1].startswith("transdiff_jax.cli."):
            return words[index + 1].removeprefix("transdiff_jax.cli."), words[index + 2 :]
        if Path(word).name in TRAINERS and word.startswith("launch/"):
            return "train", words[index + 1 :]
    return None


def calls(text):
    return [call for words in shell_commands(text) if (call := call_of(words))]


def flags_of(command):
    assert command in COMMANDS, f"there is no command {command}"
    return importlib.import_module(f"transdiff_jax.cli.{command}").FLAGS


@on_pages(calls)
def test_commands_their_flags_and_their_configurations_are_valid(page, case, monkeypatch):
    command, arguments = case
    known, module = flags_of(command), importlib.import_module(f"transdiff_jax.cli.{command}")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    saved = flagsaver.save_flag_values(known)
    try:
        files = known(sys.argv)[1:]
        if "config" in known and known["config"].present:
            app.read_config(module.CONFIG)
    finally:
        flagsaver.restore_flag_values(saved, known)
    assert all(command == "verify" and (ROOT / file).exists() for file in files), files


def named_commands(text):
    words = [match for code in inline_code(text) for match in re.findall(r"\btransdiff (\w+)|cli\.(\w+)$", code)]
    shown = [line for block in blocks(text, "console") for line in re.findall(r"^\$ transdiff (\w+)", block, re.M)]
    return {*shown, *(name for pair in words for name in pair if name)} - {"NAME"}


@on_pages(named_commands)
def test_commands_in_text_exist(page, case):
    assert case in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_on_a_page(command):
    assert any(command == called for text in TEXTS.values() for called, _ in calls(text))


@on_pages(lambda text: {re.split("[= ]", code)[0][2:] for code in inline_code(text) if code.startswith("--")})
def test_flags_in_text_exist(page, case):
    if "." in case:
        assert_is_field(case)
    else:
        assert any(case in flags_of(command) for command in COMMANDS), case


@on_pages(lambda text: {match for code in inline_code(text) for match in re.findall(r"^config(?:\.\w+)+", code)})
def test_fields_in_text_exist(page, case):
    assert_is_field(case)


def assert_is_field(path):
    fields = Config().to_dict()
    for part in path.split(".")[1:]:
        assert part in fields, path
        fields = fields[part]


INSIDE = r"(configs|launch|docs|tests|transdiff_jax|\.github)/[\w./-]*"
AT_THE_TOP = r"[\w.-]+\.(md|toml|txt|yaml)|Makefile|LICENSE"


def files_named(text):
    """Paths of this repository in backticks and in commands, and names of files at its top."""
    words = [*inline_code(text), *(word for words in shell_commands(text) for word in words)]
    return {word for word in words if re.fullmatch(f"{INSIDE}|{AT_THE_TOP}", word)}


@on_pages(files_named)
def test_files_exist(page, case):
    assert (ROOT / case).exists()


def test_make_targets_exist():
    targets = set(" ".join(re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
    named = {word for text in TEXTS.values() for code in inline_code(text) for word in re.findall(r"^make (\w+)", code)}
    named |= {words[1] for text in TEXTS.values() for words in shell_commands(text) if words[0] == "make"}
    assert named and named <= targets


def test_extras_exist():
    shown = [word for text in TEXTS.values() for words in shell_commands(text) for word in (*words, *inline_code(text))]
    named = {extra for word in shown for extras in re.findall(r"\.\[([\w,]+)\]", word) for extra in extras.split(",")}
    assert named and named <= set(EXTRAS)


def links(text):
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text):
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@on_pages(lambda text: {link for link in links(text) if not link.startswith("http")})
def test_links_lead_somewhere(page, case):
    name, _, anchor = case.partition("#")
    target = (ROOT / page).parent / name if name else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.read_text())


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in DOCS])
def test_every_page_opens_with_what_most_people_want(page):
    assert re.match(r"# .+\n\n```(bash|python)\n", TEXTS[page])


@pytest.mark.parametrize("page", TEXTS)
def test_lines_are_of_the_usual_length(page):
    assert not [line for line in TEXTS[page].splitlines() if len(line) > LINE and not line.startswith("|")]


def test_the_list_of_packages_is_that_of_the_layering_test():
    tree = ast.parse((ROOT / "tests" / "layering_test.py").read_text())
    (order,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "ORDER"]
    listed = re.findall(r"^\| `(\w+)` \|", TEXTS["ARCHITECTURE.md"], re.MULTILINE)
    assert tuple(listed) == eval(compile(ast.Expression(order), "ORDER", "eval"))


# Python in the pages.


def accepts(function, call, bound_to):
    """Whether a call's arguments fit a signature; settings are fields of `SamplingConfig`."""
    signature = inspect.signature(function)
    names = [keyword.arg for keyword in call.keywords]
    signature.bind(*[None] * (len(call.args) + bound_to), **dict.fromkeys(names))
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        settings = set(names) - set(signature.parameters)
        return settings <= {field.name for field in dataclasses.fields(SamplingConfig)}
    return True


def is_td(node):
    return isinstance(node, ast.Name) and node.id == "td"


def makes_a_model(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ((is_td(node.func.value) and node.func.attr == "load") or node.func.attr == "with_settings")
    )


def models_of(trees):
    """Names of variables that hold a model."""
    assigned = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return {"model"} | {node.targets[0].id for node in assigned if makes_a_model(node.value)}


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if blocks(text, "python")])
def test_python_calls_what_is_there(page):
    trees = [ast.parse(block, page) for block in blocks(TEXTS[page], "python")]
    models = models_of(trees)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and is_td(node.value):
            assert node.attr in td.__all__, node.attr
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if is_td(of):
                assert accepts(getattr(td, node.func.attr), node, 0), ast.unparse(node)
            elif makes_a_model(of) or (isinstance(of, ast.Name) and of.id in models):
                assert accepts(getattr(td.TrainedModel, node.func.attr), node, 1), ast.unparse(node)


@on_pages(lambda text: {match for code in inline_code(text) for match in re.findall(r"\btd\.(\w+)", code)})
def test_names_of_the_library_in_text_exist(page, case):
    assert case in td.__all__


@pytest.mark.parametrize(
    "function", [td.load, td.evaluate, td.SampleRequest, td.TrainedModel.sample, td.TrainedModel.fuse, SamplingConfig]
)
def test_the_library_page_names_every_keyword(function):
    known = set(inspect.signature(function).parameters) - {"self", "settings"}
    # The first ones of `load` and `evaluate`; settings that have an argument of their own.
    known -= {"workdir", "samples", "steps_by_image", "fuse_fraction"}
    shown = " ".join([*inline_code(LIBRARY), *blocks(LIBRARY, "python")])
    assert not {name for name in known if not re.search(rf"\b{name}\b", shown)} - {"first", "second"}


def test_the_library_page_names_all_of_the_library():
    assert {f"td.{name}" for name in td.__all__} <= set(inline_code(LIBRARY))


# Docstrings.


def overrides(module, path):
    """Whether a method stands in a base class, which documents it."""
    *owner, name = path
    found = importlib.import_module(module)
    for part in owner:
        found = getattr(found, part)
    bases = found.__mro__[1:] if owner else ()
    return any(name in vars(base) for base in bases if base.__module__ != "builtins")


def is_overload(node):
    return any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)


def undocumented(module, body, prefix=()):
    """Public functions, classes and methods without a docstring; nested functions and overloads need none."""
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if is_overload(node):
            continue
        path = (*prefix, node.name)
        if not ast.get_docstring(node) and not overrides(module, path):
            yield ".".join((module, *path))
        if isinstance(node, ast.ClassDef):
            yield from undocumented(module, node.body, path)


def test_every_public_name_has_a_docstring():
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module, tree = ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())
        missing += [module] if not ast.get_docstring(tree) else []
        missing += undocumented(module.removesuffix(".__init__"), tree.body)
    assert not missing


@pytest.mark.parametrize("face", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_every_exported_name_exists_and_has_a_docstring(face):
    module = importlib.import_module(".".join(face.parent.relative_to(ROOT).parts))
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", "").startswith("transdiff_jax"):  # constants have no docstrings
            # Dataclasses and named tuples without one get their signature.
            assert value.__doc__ and not value.__doc__.startswith(f"{name}("), f"{module.__name__}.{name}"
