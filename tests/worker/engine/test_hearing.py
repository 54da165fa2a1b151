"""Windows are heard beside the steps of others: whenever a card is done with them, no text is another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.support.card import CardRunner
from tests.support.windows import mixed
from worker.engine import decoding
from worker.engine.hearing import Hearing
from worker.engine.loading import Loaded
from worker.engine.values import Ended, Window
from worker.engine.whisper import WhisperRunner

pytestmark = pytest.mark.model

COUNT = 8
SLOTS = 3
LOOKS = 3


@dataclass
class Event:
    """As of a card that is not done for so many looks."""

    looks: int

    def query(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "TOKENS_AT_LEAST", 8)
        patch.setattr(decoding, "TOKENS_PER_SECOND", 2)
        yield


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return mixed(COUNT)


@pytest.fixture(scope="module")
def alone(nano: Loaded, windows: Sequence[Window]) -> list[tuple[int, ...]]:
    runner = WhisperRunner(nano, 1)
    return [runner.run([one])[0].tokens for one in windows]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Of all passes that were begun."""
    begun: list[Event] = []

    def mark(_hearing: Hearing) -> Event:
        begun.append(Event(LOOKS))
        return begun[-1]

    monkeypatch.setattr(Hearing, "_mark", mark)
    return begun


def tokens_of(runner: WhisperRunner, numbers: int) -> dict[int, tuple[int, ...]]:
    """Of so many windows once all have ended."""
    ended: list[Ended] = []
    while len(ended) < numbers:
        ended += runner.step()
    return {one.number: one.hypothesis.tokens for one in ended}


@pytest.mark.parametrize("as_on_card", [False, True])
def test_steps_go_on_while_others_are_heard(
    nano: Loaded,
    windows: Sequence[Window],
    alone: Sequence[tuple[int, ...]],
    events: list[Event],
    as_on_card: bool,
) -> None:
    runner = CardRunner(nano, SLOTS, as_on_card=as_on_card)

    assert [found.tokens for found in runner.run(windows)] == list(alone)

    # The first were not waited for, as there was nothing to do meanwhile; the last ones were looked for.
    assert len(events) > 1
    assert events[-1].looks < 0


def test_with_nothing_to_do_meanwhile_the_host_does_not_wait(
    nano: Loaded, windows: Sequence[Window], alone: Sequence[tuple[int, ...]], events: list[Event]
) -> None:
    runner = CardRunner(nano, SLOTS)
    runner.seat(0, windows[0])

    runner.step()

    assert [seat.number for seat in runner._rows if seat] == [0]
    assert events[0].looks >= 0
    assert tokens_of(runner, 1) == {0: alone[0]}


def begun_beside(runner: WhisperRunner, windows: Sequence[Window]) -> None:
    """The first is being written, and the others are being heard."""
    runner.seat(0, windows[0])
    runner.step()
    for number, window in enumerate(windows[1:], 1):
        runner.seat(number, window)
    runner.step()
    assert runner._hearing.has_begun


def test_who_leaves_while_it_is_heard_gets_no_row(
    nano: Loaded, windows: Sequence[Window], alone: Sequence[tuple[int, ...]], events: list[Event]
) -> None:
    runner = CardRunner(nano, SLOTS)
    begun_beside(runner, windows[:3])

    runner.unseat(1)
    runner.seat(3, windows[3])

    assert tokens_of(runner, 3) == {number: alone[number] for number in (0, 2, 3)}
    assert not any(runner._rows)


def test_fewer_slots_than_are_heard_begin_again(
    nano: Loaded, windows: Sequence[Window], alone: Sequence[tuple[int, ...]], events: list[Event]
) -> None:
    runner = CardRunner(nano, SLOTS)
    begun_beside(runner, windows[:3])

    runner.resize(2)

    assert tokens_of(runner, 3) == {number: alone[number] for number in range(3)}
    assert len(events) > 2
