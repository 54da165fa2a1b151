"""Reading one job: what all other flows stand on."""

import json
from urllib.parse import quote

from ananse_client.flows import Flow, Patience, Reply, Send, call
from ananse_client.reading import read
from ananse_client.shapes import Job


def get(patience: Patience, job_id: str) -> Flow[Job]:
    return job_of((yield from call(patience, Send("GET", path_of(job_id)))))


def job_of(reply: Reply) -> Job:
    return read(Job, json.loads(reply.text))


def path_of(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
