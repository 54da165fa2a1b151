"""The models page: configured names, and what live workers say about them."""

from flask.testing import FlaskClient

from api.parts import Parts
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


def test_live_model_tells_its_abilities_and_speed_but_no_folder(
    client: FlaskClient, worker: WorkerHand, parts: Parts
) -> None:
    worker.come_up(("en", "tw"))

    answer = client.get("/v1/models")

    (model,) = answer.json["models"]
    assert (model["live"], model["workers"], model["slots"], model["rtfx"]) == (True, 1, 4, 12.5)
    assert (model["revision"], model["device"], model["dtype"]) == ("r1", "cpu", "float32")
    assert model["abilities"]["languages"] == ["en", "tw"]
    assert "models/" not in answer.text
