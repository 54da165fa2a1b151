"""Workers on hosts of their own lose Redis while jobs run: nothing is lost, and nothing is ended twice."""

import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import hosts
from tests.chaos.namespaces import Cut, NotPermitted, network
from tests.support.redis_server import find_binary

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 17
LEASE_AND_SWEEP_S = 2.2
SLACK_S = 10.0
"""For a machine that has other things to do."""


@pytest.fixture(autouse=True)
def _only_where_permitted() -> None:
    try:
        with network():
            pass
    except NotPermitted as reason:
        pytest.skip(str(reason))


@pytest.fixture
def binary(redis_url: str) -> Path:
    """There is one, or `redis_url` would have skipped."""
    found = find_binary()
    assert found is not None
    return found


def test_a_worker_cut_off_is_replaced_and_then_refused(binary: Path, tmp_path: Path) -> None:
    figures = hosts.run(tmp_path, binary, partitions=6, longest_s=3, seed=SEED)

    assert figures.is_clean, str(figures)
    assert Counter(one.how for one in figures.partitions) == dict.fromkeys(Cut, 2)
    assert any(one.ending == "step_fenced" for one in figures.partitions), str(figures)
    assert all(one.takeover_s < LEASE_AND_SWEEP_S + SLACK_S for one in figures.partitions), str(figures)
    assert figures.jobs > len(figures.partitions)


def test_nothing_is_left_of_the_hosts_when_all_goes_wrong() -> None:
    with ExitStack() as stack:
        tags: list[str] = []
        with pytest.raises(ZeroDivisionError):
            go_wrong(tags, stack)
        # A process that is still inside keeps nothing that others could see.
        assert traces(tags[0]) == set()


def go_wrong(tags: list[str], stack: ExitStack) -> None:
    with network() as net:
        tags.append(net.tag)
        with net.add("east").inside():
            sleeper = subprocess.Popen(["sleep", "60"])
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        assert len(traces(net.tag)) > 3
        _ = 1 / 0


def traces(tag: str) -> set[str]:
    """Names of namespaces and links that bear the network's tag."""
    shown = [
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
        for words in (("netns",), ("-br", "link"))
    ]
    return {line.split()[0] for lines in shown for line in lines.splitlines() if tag in line}
