import os
import stat
from pathlib import Path

import pytest

from vegamite_standalone.admin_key import KEY_FILE, ensure_admin_key, read_key


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        key = ensure_admin_key(tmp_path)
    finally:
        os.umask(umask)
    assert ensure_admin_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_no_two_instances_have_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert ensure_admin_key(tmp_path / "a") != ensure_admin_key(tmp_path / "b")


def test_what_a_stopped_start_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "admin.new").write_text("half")
    assert ensure_admin_key(tmp_path) == read_key(tmp_path / KEY_FILE)


@pytest.mark.parametrize("content", ["", " \n", "two words", "schlüssel"])
def test_a_file_without_a_key_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text(content)
    with pytest.raises(ValueError, match="holds no key"):
        ensure_admin_key(tmp_path)
