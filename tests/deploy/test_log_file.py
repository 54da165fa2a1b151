from pathlib import Path

from deploy.log_file import LogFile


def test_starts_fresh_and_keeps_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    for text in (b"first\n", b"second\n"):
        log = LogFile(path)
        log.write(text)
        log.close()
    assert path.read_text() == "second\n"
    assert (tmp_path / "one.log.1").read_text() == "first\n"


def test_never_outgrows_its_bound(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "one.log", max_bytes=100)
    for number in range(100):
        log.write(b"line %02d\n" % number)
    log.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 200
    assert (tmp_path / "one.log").read_text().endswith("line 99\n")


def test_what_cannot_be_written_is_lost_without_harm(tmp_path: Path) -> None:
    (tmp_path / "one.log.1").mkdir()
    log = LogFile(tmp_path / "one.log", max_bytes=20)
    log.write(b"kept\n")
    log.write(b"too long, and the file cannot be put aside\n")
    log.write(b"kept too\n")
    log.close()
    assert (tmp_path / "one.log").read_text() == "kept\nkept too\n"
