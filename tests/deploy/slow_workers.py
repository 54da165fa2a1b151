"""`python -m tests.deploy.slow_workers`: the launcher with workers that take their time."""

import sys

from deploy import workers
from tests.support.worker_process import PLAIN

if __name__ == "__main__":
    sys.exit(workers.main((*PLAIN, "--pace", "0.2")))
