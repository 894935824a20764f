"""The scratch log's folder: emptied at the start and at the stop, and never anything of others."""

from pathlib import Path

from broker.core.broker import Broker
from broker.server.data_directory import SCRATCH, open_directory, open_scratch, remove_scratch


def now(what: object) -> None:
    """Nothing is called back."""


def start(folder: Path) -> Broker:
    broker = Broker(bytes)
    open_directory(broker, folder, now)
    return broker


def test_scratch_log_is_gone_at_the_next_start(tmp_path: Path) -> None:
    broker = start(tmp_path)
    scratch = open_scratch(tmp_path, now)
    assert scratch is not None
    scratch.log.close()
    broker.close_journal()
    assert list((tmp_path / SCRATCH).iterdir())
    start(tmp_path).close_journal()
    assert not (tmp_path / SCRATCH).exists()


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / SCRATCH).mkdir()
    for name in ("thesis.txt", "reserve", "0000000001.log"):
        (tmp_path / SCRATCH / name).touch()
    start(tmp_path).close_journal()
    assert len(list((tmp_path / SCRATCH).iterdir())) == 3


def test_what_somebody_added_to_the_scratch_log_stays(tmp_path: Path) -> None:
    broker = start(tmp_path)
    scratch = open_scratch(tmp_path, now)
    assert scratch is not None
    scratch.log.close()
    (tmp_path / SCRATCH / "note.txt").touch()
    remove_scratch(tmp_path)
    broker.close_journal()
    assert [each.name for each in (tmp_path / SCRATCH).iterdir()] == ["note.txt"]


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "FORMAT").touch()
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / SCRATCH).symlink_to(elsewhere)
    broker = start(folder)
    assert open_scratch(folder, now) is None
    broker.close_journal()
    assert [each.name for each in elsewhere.iterdir()] == ["FORMAT"]
