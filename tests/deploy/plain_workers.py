"""`python -m tests.deploy.plain_workers`: the launcher as it is, with workers that start at once."""

import sys

from deploy import workers
from tests.support.worker_process import PLAIN

if __name__ == "__main__":
    sys.exit(workers.main(PLAIN))
