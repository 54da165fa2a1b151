"""What keeps the service from standing up, said in one sentence."""

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78
"""A child that ends with this cannot be helped by starting it again (sysexits.h: EX_CONFIG)."""


class StartError(Exception):
    """A sentence for the user: what is wrong and what to do."""

    def __init__(self, sentence: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class StopRequested(Exception):
    """Ctrl-C, or a SIGTERM."""
