"""`python -m deploy.healthcheck api|worker|flower`: exit code 0 when the part in this container is at work.

Loads neither torch nor Celery, since it runs every few seconds.
"""

import argparse
import socket
import sys
from contextlib import closing

from deploy.addresses import Address
from deploy.readiness import Workers, responds
from shared.settings import Settings, load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.healthcheck")
    parser.add_argument("part", choices=("api", "worker", "flower"))
    return 0 if is_healthy(parser.parse_args().part, load()) else 1


def is_healthy(part: str, settings: Settings) -> bool:
    if part == "api":
        return responds(f"{Address(settings.host, settings.port).url}/readyz")
    if part == "flower":
        return responds(f"{Address(settings.host, settings.flower_port).url}/healthcheck")
    with closing(Workers(settings.redis_url)) as workers:
        return bool(workers.on(socket.gethostname()))


if __name__ == "__main__":
    sys.exit(main())
