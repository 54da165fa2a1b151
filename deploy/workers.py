"""`python -m deploy.workers`: the workers of one machine or container, one for each device, and started again
when they die. What they log goes to standard output as they write it."""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress

from deploy.crew import crew
from deploy.errors import EXIT_CONFIGURATION, StartError, StopRequested
from deploy.readiness import Workers, described
from deploy.supervisor import Supervisor, complain
from shared import log
from shared.settings import Settings, SettingsError, load

_log = log.get_logger()


def main(module: Sequence[str] = ("worker",)) -> int:
    """Returns once all have handed their work back: 0 when told to stop; 78 for a mistake that starting
    again does not mend, said in one sentence."""
    try:
        settings = load()
        log.configure(settings.log_level)
        run(settings, module)
    except StartError as error:
        complain(str(error))
        return error.exit_code
    except SettingsError as error:
        complain(str(error))
        return EXIT_CONFIGURATION
    return 0


def run(settings: Settings, module: Sequence[str]) -> None:
    """Until it is told to stop. Raises StartError."""
    services = crew(settings, os.environ, module)
    with (
        Supervisor(None, say=_say, show=_pass_on) as supervisor,
        suppress(StopRequested),
        closing(Workers(settings.redis_url)) as workers,
    ):
        for service in services:
            supervisor.start(service)
        waiting = {service.name for service in services}

        def are_up() -> bool:
            live = {worker.pid: worker for worker in workers.on(socket.gethostname())}
            for name in sorted(waiting):
                worker = live.get(supervisor.pid(name) or 0)
                if worker:
                    waiting.remove(name)
                    _log.info("worker_up", service=name, worker=worker.name, models=described(worker))
            return not waiting

        supervisor.watch(until=are_up)
        supervisor.settle()
        supervisor.watch(until=lambda: False)


def _say(line: str) -> None:
    _log.warning("supervisor", said=line)


def _pass_on(name: str, line: str) -> None:
    # A log that nobody takes any more stops nothing.
    with suppress(OSError):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
