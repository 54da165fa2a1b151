"""`python -m worker`: one worker process. A start-up mistake is one sentence and exit code 78."""

import sys

from shared import log
from shared.settings import SettingsError, load
from shared.visible_cards import see_only
from worker.engine.values import ModelUnavailable

EXIT_CONFIGURATION = 78


def main() -> None:
    try:
        settings = load()
        log.configure(settings.log_level)
        see_only(settings.device)
        log.own_process()
        # torch and the models are heavy: wrong settings are told without them.
        from worker import app  # noqa: PLC0415

        worker = app.build(settings)
    except (SettingsError, ModelUnavailable) as error:
        sys.stderr.write(f"ananse: {error}\n")
        sys.exit(EXIT_CONFIGURATION)
    try:
        app.run(worker)
    finally:
        worker.close()


if __name__ == "__main__":
    main()
