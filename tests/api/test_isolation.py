"""Every route of the service, with no key, a wrong one, one of too little scope, and another tenant's id.
Made from the routes themselves, so that a new one cannot be forgotten."""

import re
import statistics
import time
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.access import OPEN, TABLE, WATCHED, needed
from api.parts import Parts
from shared.api_keys import Scope, new_secret, written
from shared.key_ring import KeyRing
from tests.support.keys import ALL, bearer, make_key
from tests.support.worker_hand import WorkerHand

pytestmark = pytest.mark.redis

NOBODYS = "job_aaaaaaaaaaaaaaaaaaaaaaaaaa"
CURSOR = "1700000000000"


@dataclass(frozen=True, slots=True)
class House:
    """Two tenants with a finished job each, and the keys of both."""

    client: FlaskClient
    ring: KeyRing
    ama: str
    kofi: str
    job_of_kofi: str

    def send(self, method: str, path: str, key: str | None = None, **headers: str) -> TestResponse:
        given = (bearer(key) if key else {}) | headers
        return self.client.open(path, method=method, headers=given, query_string={})


def routes(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in sorted(rule.methods or set())
        if method not in ("HEAD", "OPTIONS")
    ]


ROUTES = sorted(TABLE)
GUARDED = [route for route in ROUTES if TABLE[route] is not OPEN and route[1] not in WATCHED]
OF_A_JOB = [route for route in ROUTES if "<job_id>" in route[1]]


@pytest.fixture
def house(client: FlaskClient, parts: Parts, recording: bytes, worker: WorkerHand) -> House:
    ring = KeyRing(parts.store, parts.blobs)
    (_, ama), (_, kofi) = make_key(ring, "ama"), make_key(ring, "kofi")
    sent = client.post("/v1/jobs", data=recording, content_type="audio/wav", headers=bearer(kofi))
    assert sent.status_code == 202, sent.text
    worker.complete(sent.json["id"])
    return House(client, ring, ama, kofi, sent.json["id"])


def at(rule: str, job_id: str) -> str:
    """The address of a route."""
    return rule.replace("<job_id>", job_id).replace("<number>", "1")


def code_of(answer: TestResponse) -> str:
    """OpenAI's routes tell it in an envelope."""
    code: str = answer.json.get("error", answer.json)["code"]
    return code


def test_no_route_was_forgotten(app: Flask) -> None:
    assert set(TABLE) == set(routes(app))


def test_the_document_tells_of_every_guard(app: Flask, client: FlaskClient) -> None:
    spec: dict[str, Any] = client.get("/openapi.json").json
    told = {
        (method.upper(), re.sub(r"{(\w+)}", r"<\1>", path)): operation
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }
    assert set(told) <= set(TABLE)
    for route, operation in told.items():
        wanted = TABLE[route]
        assert operation["security"] == ([{"api_key": sorted(wanted)}] if wanted else []), route
        for status in ("401", "403", "429"):
            assert (status in operation["responses"]) is bool(wanted), (route, status)
    assert spec["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"


@pytest.mark.parametrize(("method", "rule"), GUARDED)
def test_without_a_key_nothing_is_told(house: House, method: str, rule: str) -> None:
    path = at(rule, house.job_of_kofi)
    of_another_secret = written(house.ama.split("_")[1], new_secret())
    for headers in ({}, {"Authorization": "Basic YTpi"}, bearer("sk-1"), bearer(of_another_secret)):
        answer = house.send(method, path, **headers)

        assert answer.status_code == 401, answer.text
        assert code_of(answer) == "unauthorized"
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="ananse"')
        assert house.job_of_kofi not in answer.text.replace(path, "")


@pytest.mark.parametrize(("method", "rule"), GUARDED)
def test_a_scope_that_is_missing_is_named(house: House, method: str, rule: str) -> None:
    wanted = TABLE[method, rule]
    others = frozenset(Scope) - wanted - {Scope.ADMIN}
    _, key = make_key(house.ring, "narrow", tenant="kofi", scopes=others)

    answer = house.send(method, at(rule, house.job_of_kofi), key)

    assert answer.status_code == 403, answer.text
    assert code_of(answer) == "forbidden"
    assert f'scope="{" ".join(sorted(wanted))}"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("method", "rule"), GUARDED)
def test_the_scopes_of_the_table_are_enough(house: House, method: str, rule: str) -> None:
    for scopes in (TABLE[method, rule], frozenset({Scope.ADMIN})):
        _, key = make_key(house.ring, "just", tenant="kofi", scopes=scopes)

        answer = house.send(method, at(rule, NOBODYS), key)

        assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("rule", sorted(WATCHED))
def test_figures_are_for_machines_of_ours_and_for_administrators(house: House, rule: str) -> None:
    _, admin = make_key(house.ring, "admin", scopes=frozenset({Scope.ADMIN}))

    def ask(address: str, **headers: str) -> int:
        answer = house.client.get(rule, headers=headers, environ_overrides={"REMOTE_ADDR": address})
        return answer.status_code

    assert ask("127.0.0.1") == 200
    assert ask("::ffff:127.0.0.1") == 200
    assert ask("203.0.113.7") == 401
    assert ask("") == 401
    assert ask("203.0.113.7", **bearer(house.ama)) == 403
    assert ask("203.0.113.7", **bearer(admin)) == 200
    # What comes by a proxy comes from anywhere.
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip"):
        assert ask("127.0.0.1", **{header: "1"}) == 401


@pytest.mark.parametrize("route", [route for route in ROUTES if TABLE[route] is OPEN])
def test_what_is_open_needs_no_key(house: House, route: tuple[str, str]) -> None:
    path = route[1].replace("<path:name>", "css/swagger-ui.css").replace("<code>", "not_found")
    path = path.replace("<name>", "style.css")

    answer = house.send(route[0], path.replace("css/", "css/"))
    answer.close()

    assert answer.status_code in (200, 503), path


@pytest.mark.parametrize(("method", "rule"), OF_A_JOB)
def test_another_tenants_job_is_not_there(house: House, method: str, rule: str) -> None:
    """As little as one that never was, to the letter."""
    bodies = []
    for job_id in (house.job_of_kofi, NOBODYS):
        answer = house.send(method, at(rule, job_id), house.ama, **{"X-Request-ID": "r1"})
        assert answer.status_code == 404
        told = [pair for pair in answer.headers if not pair[0].startswith("RateLimit")]
        bodies.append((answer.text.replace(job_id, "ID"), told))

    assert bodies[0] == bodies[1]
    assert house.send("GET", f"/v1/jobs/{house.job_of_kofi}", house.kofi).json["status"] == "completed"


@pytest.mark.parametrize(("method", "rule"), OF_A_JOB)
def test_it_takes_no_longer_to_find_out(house: House, method: str, rule: str) -> None:
    def took(job_id: str) -> float:
        began = time.perf_counter()
        house.send(method, at(rule, job_id), house.ama)
        return time.perf_counter() - began

    pairs = [(took(house.job_of_kofi), took(NOBODYS)) for _ in range(15)]

    gap_s = statistics.median(one for one, _ in pairs) - statistics.median(other for _, other in pairs)
    assert abs(gap_s) < 0.005


def test_lists_hold_ones_own(house: House, recording: bytes) -> None:
    own = house.client.post(
        "/v1/jobs", data=recording, content_type="audio/wav", headers=bearer(house.ama)
    ).json["id"]

    assert [job["id"] for job in house.send("GET", "/v1/jobs", house.ama).json["jobs"]] == [own]
    listed = house.client.get(f"/v1/jobs?cursor=9999999999999-{house.job_of_kofi}", headers=bearer(house.ama))
    assert [job["id"] for job in listed.json["jobs"]] == [own]


def test_an_idempotency_key_is_ones_own(house: House, recording: bytes) -> None:
    ids = set()
    for key in (house.ama, house.kofi):
        headers = bearer(key) | {"Idempotency-Key": "same"}
        answer = house.client.post("/v1/jobs", data=recording, content_type="audio/wav", headers=headers)
        assert answer.status_code == 202
        assert "Idempotent-Replayed" not in answer.headers
        ids.add(answer.json["id"])

    assert len(ids) == 2


def test_keys_of_one_tenant_see_the_same(house: House) -> None:
    _, second = make_key(house.ring, "kofi-reads", tenant="kofi", scopes=frozenset({Scope.READ}))

    assert house.send("GET", f"/v1/jobs/{house.job_of_kofi}", second).status_code == 200


def test_a_route_nobody_thought_of_is_an_administrators() -> None:
    assert needed("GET", "/v1/new") == {Scope.ADMIN}
    assert needed("POST", "/livez") == {Scope.ADMIN}


def test_other_methods_are_guarded_like_get(house: House) -> None:
    assert house.send("HEAD", f"/v1/jobs/{house.job_of_kofi}").status_code == 401
    assert house.send("OPTIONS", f"/v1/jobs/{house.job_of_kofi}").status_code == 200
    assert house.send("PUT", f"/v1/jobs/{house.job_of_kofi}").status_code == 405


def test_all_scopes_but_admin_are_given_when_none_are_named() -> None:
    assert frozenset(Scope) - ALL == {Scope.ADMIN}
