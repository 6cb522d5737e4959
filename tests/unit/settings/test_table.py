"""`spec/settings.md` has every setting, and is what the code says."""

from pathlib import Path

from notifyd.settings.meanings import MEANINGS
from notifyd.settings.table import SETTINGS_FILE, leaf_keys, settings_text, write_table

SPEC = Path(__file__).parents[3] / "spec"


def test_the_table_is_fresh() -> None:
    assert (SPEC / SETTINGS_FILE).read_text(encoding="utf-8") == settings_text(), "run python -m notifyd.settings.table"


def test_every_setting_has_a_meaning_and_every_meaning_a_setting() -> None:
    assert sorted(MEANINGS) == sorted(leaf_keys()), "see notifyd/settings/meanings.py"


def test_it_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path)
    assert (tmp_path / SETTINGS_FILE).read_text(encoding="utf-8") == settings_text()
