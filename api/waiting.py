"""Holding an answer back until a job has moved. A client that waits holds a thread, so there is a bound to
how many may, and all are let go when the process stops."""

import time

from api.parts import Parts
from shared.job import Job

# How long a wait goes on at most after the process was told to stop.
SLICE_S = 1.0


def wait_for(parts: Parts, job: Job, seconds: float, *, until_end: bool = False) -> Job:
    """The job once its state has changed (or, `until_end`, once it has ended), or as it is in the end."""
    deadline = time.monotonic() + seconds
    status = job.status
    with parts.waiting("job") as may_wait:
        while may_wait and not job.status.is_terminal and (until_end or job.status is status):
            left = deadline - time.monotonic()
            if left <= 0 or parts.stopping.is_set():
                break
            job = parts.jobs.wait(job.id, job.tenant, min(left, SLICE_S), until_end=until_end)
    return job
