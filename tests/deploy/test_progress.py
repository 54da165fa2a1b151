import io

from deploy.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_redrawn() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.show("decoding", 0.0)
    progress.show("transcribing", 0.5)
    progress.done()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 2
    assert " 50%  transcribing" in stream.getvalue()


def test_a_file_gets_a_line_for_each_stage_and_quarter() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for percent in range(101):
        progress.show("transcribing", percent / 100)
    progress.done()
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["0%", "25%", "50%", "75%", "100%"]
