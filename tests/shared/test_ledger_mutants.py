"""What the laws of the ledger are worth: each guard taken out of the scripts breaks a law, or the script."""

import shutil
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from shared.redis_store import SCRIPTS, RedisStore, connect
from tests.shared.test_ledger_laws import play

pytestmark = pytest.mark.redis

MUTANTS = {
    "the fence ignores the attempt": (
        "prelude",
        "held[1] ~= 'leased' or tonumber(held[2]) ~= tonumber(attempt)",
        "held[1] ~= 'leased'",
    ),
    "the fence ignores the step's state": (
        "prelude",
        "held[1] ~= 'leased' or tonumber(held[2]) ~= tonumber(attempt)",
        "tonumber(held[2]) ~= tonumber(attempt)",
    ),
    "an ended job ends again": ("end", "if terminal(current) then return 'ended' end", ""),
    "a held step is claimed by a second worker": (
        "claim",
        "if held[1] == 'leased' and now() < tonumber(held[2]) then return {'taken'} end",
        "",
    ),
    "an ended job goes on": ("claim", "finish_step(id, step)\n  return {'ended'}", "finish_step(id, step)"),
    "a lapsed lease is forgotten": (
        "sweep",
        "if state == 'leased' or state == 'waiting' then",
        "if false then",
    ),
    "a lost hint is forgotten": (
        "sweep",
        "if state == 'leased' or state == 'waiting' then",
        "if state == 'leased' then",
    ),
    "the outbox row is left out": ("end", "offer(id, 'deliver-0', 'deliver', webhook, 0)", ""),
    "a step handed back stays out of line": (
        "release",
        "come_back_to_line(id, step, redis.call('HGET', key('step', id, step), 'queue'), delay_ms)",
        "come_back(id, step, redis.call('HGET', key('step', id, step), 'queue'))",
    ),
    "a step taken back by hand stays out of line": (
        "requeue",
        "come_back_to_line(id, step, queue, 0)",
        "come_back(id, step, queue)",
    ),
    "a step that stands in line is put there twice": (
        "requeue",
        "if redis.call('ZSCORE', key('waiting', queue, line_of(id, step)), ref(id, step)) then "
        "return {'waiting', queue} end",
        "",
    ),
    "a step that was put off is in line as well": (
        "requeue",
        "redis.call('ZREM', key('later', queue), ref(id, step))",
        "",
    ),
    "a done step is taken back": ("requeue", "if held[1] == 'done' then return {'done', queue} end", ""),
    "a step of an ended job is taken back": (
        "requeue",
        "if terminal(record[1]) and not is_delivery(step) then return {'ended', queue} end\n"
        "if held[1] == 'done' then return {'done', queue} end",
        "",
    ),
    "a step is taken from another worker than was named": (
        "requeue",
        "(held[1] ~= 'leased' or held[3] ~= worker)",
        "held[1] ~= 'leased'",
    ),
    "a held step is returned like a hint": ("return_hint", "held[1] ~= 'waiting' or ", ""),
    "a hint is returned twice": (
        "return_hint",
        "or not redis.call('ZSCORE', key('busy', held[2]), ref(id, step)) ",
        "",
    ),
    "a paused queue gives out": ("dispatch", "if not is_paused(ARGV[index]) then", "if true then"),
    "a done step is claimed again": ("claim", "if held[1] == 'done' then return {'done'} end", ""),
    "a window counts twice": (
        "checkpoint",
        "if redis.call('HSETNX', key('windows', id, step), index, result) == 1 then",
        "redis.call('HSET', key('windows', id, step), index, result)\nif true then",
    ),
    "a part offered twice is made anew": (
        "prelude",
        "if redis.call('EXISTS', step_key) == 1 then return false end",
        "",
    ),
    "the file is assembled before all is cut": ("prelude", "counts[3] == '1' and ", ""),
    "who leaves a line empty stays in it": (
        "prelude",
        "redis.call('ZREM', key('lines', queue), tenant)",
        "",
    ),
    "who leaves the line is still counted": (
        "prelude",
        "redis.call('HINCRBY', prefix .. 'lengths', queue, -1)",
        "",
    ),
    "a receiver's room is never free again": (
        "prelude",
        "arrive(id, step, queue, line_of(id, step))",
        "redis.call('HDEL', key('step', id, step), 'class')",
    ),
    "an end is not counted": ("end", "count_end(id, status, fields)", ""),
    "what an ended job took of its key is never given back": (
        "prelude",
        "count_for(redis.call('HGET', key('job', id), 'key_id'), 'open', id, nil)",
        "",
    ),
    "audio that a key owes is not counted": ("prelude", "count_for(record[3], 'open', id, owed_ms)", ""),
    "what an ended job owed is owed for ever": ("end", "settle_owed(id)", ""),
}


@pytest.mark.slow
@pytest.mark.calm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_laws_catch(redis_url: str, tmp_path: Path, mutant: str) -> None:
    name, guard, without = MUTANTS[mutant]
    scripts = tmp_path / "lua"
    shutil.copytree(SCRIPTS, scripts)
    text = (scripts / f"{name}.lua").read_text()
    assert text.count(guard) == 1
    (scripts / f"{name}.lua").write_text(text.replace(guard, without))
    with connect(redis_url) as client, pytest.raises((AssertionError, ResponseError)):
        play(RedisStore(client, scripts=scripts), examples=3000, is_mutant=True)
