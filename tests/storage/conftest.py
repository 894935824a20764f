"""The recorded log that tests damage."""

import shutil
from pathlib import Path

import pytest

from tests.storage.recording import Recording, record


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def copied(recording: Recording, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording.path, tmp_path / "copy"))
