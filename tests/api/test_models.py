"""The models page: configured names, and what live workers say about them."""

from flask.testing import FlaskClient

from api.parts import Parts
from shared.fleet import WorkerState
from shared.models import Abilities, ModelCard
from tests.support.worker_hand import WorkerHand


def test_model_without_worker_is_listed_as_not_live(client: FlaskClient) -> None:
    (model,) = client.get("/v1/models").json["models"]

    assert (model["name"], model["default"], model["live"], model["workers"]) == (
        "synthetic-en",
        True,
        False,
        0,
    )
    assert model["abilities"] is None
    assert model["details"] == {}


def test_live_model_tells_its_abilities_and_speed_but_no_folder(
    client: FlaskClient, worker: WorkerHand, parts: Parts
) -> None:
    worker.come_up(("en", "tw"))

    answer = client.get("/v1/models")

    (model,) = answer.json["models"]
    assert (model["live"], model["workers"], model["slots"], model["rtfx"]) == (True, 1, 4, 12.5)
    assert (model["revision"], model["device"], model["dtype"]) == ("r1", "cpu", "float32")
    assert model["abilities"]["languages"] == ["en", "tw"]
    assert model["details"] == {"torch": "2.13.0"}
    assert "models/" not in answer.text


def test_a_wall_that_is_missing_on_one_worker_is_not_told_of_all(client: FlaskClient, parts: Parts) -> None:
    abilities = Abilities(("en",), ("transcribe",), True, False, False, False)
    card = ModelCard("synthetic-en", "models/x", "r1", "cpu", "float32", 1, abilities)
    assert client.get("/v1/models").json["models"][0]["decoder_guards"] is None

    told = []
    for name, guards in (("w-1", ("namespaces", "system_calls")), ("w-2", ("system_calls",)), ("w-3", ())):
        parts.fleet.beat(WorkerState(name, (card,), {}, guards=guards))
        told.append(client.get("/v1/models").json["models"][0]["decoder_guards"])

    assert told == [["namespaces", "system_calls"], ["system_calls"], []]


def test_where_a_model_is_served_and_whether_it_is_in_memory(client: FlaskClient, parts: Parts) -> None:
    abilities = Abilities(("en",), ("transcribe",), True, False, False, False)
    for name, device, is_loaded in (("w-1", "cuda:1", 1.0), ("w-2", "cuda:1", 0.0), ("w-3", "cpu", 1.0)):
        card = ModelCard("synthetic-en", "models/x", "r1", device, "bfloat16", 1, abilities)
        state = WorkerState(
            name, (card,), {}, rtfx={"synthetic-en": 10.0}, engine={"synthetic-en": {"is_loaded": is_loaded}}
        )
        parts.fleet.beat(state)

    (model,) = client.get("/v1/models").json["models"]

    assert model["placements"] == [
        {"device": "cpu", "dtype": "bfloat16", "workers": 1, "loaded": 1, "rtfx": 10.0},
        {"device": "cuda:1", "dtype": "bfloat16", "workers": 2, "loaded": 1, "rtfx": 10.0},
    ]
