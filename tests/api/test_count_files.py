"""Files that processes count in: whoever had the same number before left none that count."""

from pathlib import Path

from api import count_files


def test_a_new_first_process_begins_with_nothing(tmp_path: Path) -> None:
    folder = count_files.folder(7, str(tmp_path))
    count_files.clean(folder)
    (folder / "counter_8.db").write_bytes(b"old")

    count_files.clean(folder)

    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o077 == 0


def test_of_a_process_that_ended_only_counts_stay(tmp_path: Path) -> None:
    for name in ("counter_8.db", "histogram_8.db", "gauge_livesum_8.db", "gauge_livesum_88.db"):
        (tmp_path / name).touch()

    count_files.forget_process(tmp_path, 8)

    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "counter_8.db",
        "gauge_livesum_88.db",
        "histogram_8.db",
    ]
