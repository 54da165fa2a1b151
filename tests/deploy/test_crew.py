"""Which workers a machine starts, where, and with how many threads."""

import os

import pytest

from deploy.crew import Place, crew, devices_of, places_of
from deploy.errors import EXIT_CONFIGURATION, StartError
from shared.devices import usable_cores
from shared.settings import Settings


@pytest.mark.parametrize(
    ("given", "cards", "devices"),
    [
        ({}, 0, ("cpu",)),
        ({}, 2, ("cuda:0", "cuda:1")),
        ({"devices": "cuda,cpu"}, 2, ("cuda:0", "cuda:1", "cpu")),
        ({"devices": "cpu,cpu"}, 2, ("cpu", "cpu")),
        ({"devices": "cuda:1,cuda:1"}, 2, ("cuda:1", "cuda:1")),
        ({"device": "cpu"}, 2, ("cpu",)),
        ({"device": "cuda"}, 2, ("cuda:0",)),
        ({"device": "cuda:1"}, 2, ("cuda:1",)),
        ({"device": "cpu", "devices": "auto"}, 2, ("cuda:0", "cuda:1")),
    ],
)
def test_one_worker_for_each_device(given: dict[str, str], cards: int, devices: tuple[str, ...]) -> None:
    assert devices_of(Settings(**given), cards) == devices


@pytest.mark.parametrize(
    ("given", "cards", "missing"),
    [
        ({"devices": "cuda"}, 0, "cuda"),
        ({"devices": "cpu,cuda:2"}, 2, "cuda:2"),
        ({"device": "cuda"}, 0, "cuda:0"),
    ],
)
def test_a_card_that_is_not_there_is_one_sentence(given: dict[str, str], cards: int, missing: str) -> None:
    with pytest.raises(StartError, match=f"^there is no {missing}: ") as raised:
        devices_of(Settings(**given), cards)
    assert raised.value.exit_code == EXIT_CONFIGURATION


@pytest.mark.parametrize(
    ("devices", "cores", "threads"),
    [
        (("cpu",), 16, [16]),
        (("cpu", "cpu"), 2, [1, 1]),
        (("cpu", "cpu", "cpu"), 8, [3, 3, 2]),
        (("cuda:0", "cuda:1", "cpu"), 16, [1, 1, 14]),
        (("cuda:0", "cuda:1"), 16, [1, 1]),
        (("cuda:0", "cpu"), 1, [1, 1]),
    ],
)
def test_threads_share_the_cores(devices: tuple[str, ...], cores: int, threads: list[int]) -> None:
    assert [place.threads for place in places_of(devices, cores)] == threads


def test_threads_that_were_set_stand() -> None:
    assert places_of(("cpu", "cpu"), 8, threads=3) == (Place("cpu", 3), Place("cpu", 3))


@pytest.mark.parametrize(("workers", "threads"), [(3, 0), (2, 2)])
def test_more_threads_than_cores_are_refused(workers: int, threads: int) -> None:
    with pytest.raises(StartError, match="too many for 2 cores"):
        places_of(("cpu",) * workers, 2, threads)


def test_every_worker_is_told_its_own() -> None:
    one, *others = crew(Settings(devices="cpu"), {"LANG": "C"})

    assert (one.name, others) == ("worker", [])
    assert one.environment["ANANSE_DEVICE"] == "cpu"
    assert one.environment["ANANSE_THREADS"] == str(usable_cores())
    assert one.environment["LANG"] == "C"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores")
def test_workers_of_a_crew_have_names_of_their_own() -> None:
    workers = crew(Settings(devices="cpu,cpu", metrics_port=9464), {})

    assert [one.name for one in workers] == ["worker-0", "worker-1"]
    assert [one.environment["ANANSE_METRICS_PORT"] for one in workers] == ["9464", "9465"]


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ("a=org/x?device=cuda", "places no model on cpu"),
        (
            "a=org/x,b=org/y?device=cuda:1+cuda:2",
            "places b on cuda:1\\+cuda:2, but the workers here are on cpu",
        ),
    ],
)
def test_an_idle_device_and_a_homeless_model_are_one_sentence(models: str, sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        crew(Settings(devices="cpu", models=models), {})
