from pathlib import Path

import pytest

from deploy.configuration import EXAMPLE_PATH, TABLE_PATH, pages
from shared.settings import PREFIX, Settings


@pytest.mark.parametrize("path", [TABLE_PATH, EXAMPLE_PATH], ids=lambda path: path.name)
def test_says_what_the_settings_say(path: Path) -> None:
    assert path.read_text() == pages()[path], "run `python -m deploy.configuration`"


@pytest.mark.parametrize("path", [TABLE_PATH, EXAMPLE_PATH], ids=lambda path: path.name)
def test_names_every_setting(path: Path) -> None:
    text = path.read_text()
    assert [name for name in Settings.model_fields if PREFIX + name.upper() not in text] == []


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
