"""What keeps the service from standing up, said in one sentence."""

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78
"""A child that ends with this cannot be helped by starting it again (sysexits.h: EX_CONFIG)."""


class StartError(Exception):
    """A sentence for the user: what is wrong and what to do."""


class StopRequested(Exception):
    """Ctrl-C, or a SIGTERM."""
