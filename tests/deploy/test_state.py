from contextlib import closing
from pathlib import Path

import pytest

from deploy.errors import StartError
from deploy.state import State


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state")) as state:
        for path in [state.folder, *state.folder.iterdir()]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_two_on_one_folder_are_refused(tmp_path: Path) -> None:
    with closing(State(tmp_path)), pytest.raises(StartError, match="another `ananse up`"):
        State(tmp_path)
    State(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="ANANSE_STATE_DIR"):
        State(tmp_path / "file" / "state")
