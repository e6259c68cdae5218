import importlib
import re
import shlex

import pytest

from tests.support.paths import ROOT
from transdiff_jax.config import Config

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_commands(page):
    """Commands of the page's bash blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


def commands_of(marker):
    found = [(page.name, words) for page in PAGES for words in shell_commands(page) if marker in " ".join(words)]
    assert found
    return found


@pytest.mark.parametrize(("page", "words"), commands_of("transdiff_jax.cli."), ids=lambda value: " ".join(value)[:60])
def test_commands_and_their_flags_exist(page, words):
    (module,) = [word for word in words if word.startswith("transdiff_jax.cli.")]
    known = importlib.import_module(module).FLAGS
    for word in words[words.index(module) + 1 :]:
        if not word.startswith("--"):
            continue
        name, _, value = word.removeprefix("--").partition("=")
        section = name.split(".")
        assert section[0].removeprefix("no") in known or section[0] in known, word
        if name == "config":
            assert (ROOT / value).exists(), word
        if len(section) > 1:
            fields = Config().to_dict()
            for part in section[1:]:
                assert part in fields, word
                fields = fields[part]


def test_scripts_exist():
    for page, words in commands_of("launch/"):
        for word in words:
            if word.startswith("launch/"):
                assert (ROOT / word).exists(), f"{page}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_files_named_in_text_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:configs|launch|docs|tests|transdiff_jax)/[\w./-]+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
