"""What all cases of a test process share: the warm process and the folders that it made."""

import pytest

from tests.withstand.bases import Bases
from tests.withstand.cases import Attack
from tests.withstand.linecases import LineAttack
from tests.withstand.running import Warm


@pytest.fixture(scope="session")
def withstand_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("withstand")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(0o755)  # some cases run as another user
    return folder


@pytest.fixture(scope="session")
def warm():
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def bases(withstand_folder, warm):
    (withstand_folder / "bases").mkdir()
    return Bases(withstand_folder / "bases", warm)


@pytest.fixture(scope="session")
def attack(withstand_folder, warm, bases):
    return Attack(withstand_folder, warm, bases)


@pytest.fixture(scope="session")
def attack_by_line(withstand_folder, warm, bases):
    return LineAttack(withstand_folder, warm, bases)
