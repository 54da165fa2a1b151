"""`ananse up`: the whole service on this machine under one supervisor."""

import argparse
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing

from deploy import embedded_redis
from deploy.crew import CREW
from deploy.errors import EXIT_FAILED, StopRequested
from deploy.plan import Plan, draw_up
from deploy.processes import attached
from deploy.readiness import Workers, asks_for_key, described, responds
from deploy.state import State
from deploy.supervisor import Supervisor, say
from shared.fleet import WorkerState
from shared.settings import load

_REMIND_S = 20.0


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("up", help="run Redis, API, worker and Flower, and restart what dies")
    parser.add_argument("--demo", action="store_true", help="transcribe a sample recording once all is up")
    parser.add_argument("--logs", action="store_true", help="show here what the parts log, too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns once all is stopped: 0 when asked to, else what the demonstration ended with."""
    settings = load()
    with closing(State(settings.state_dir)) as state:
        plan = draw_up(settings, state)
        show = _show if arguments.logs else None
        with Supervisor(state.log_dir, say=say, show=show) as supervisor:
            try:
                _start(supervisor, plan)
                if arguments.demo and not _demonstrate(supervisor, plan):
                    return EXIT_FAILED
                supervisor.settle()
                say(_farewell(plan, state))
                supervisor.watch(until=lambda: False)
            except StopRequested:
                say("\nStopping …")
    return 0


def _start(supervisor: Supervisor, plan: Plan) -> None:
    """Redis first, the rest at once, then waits until all of it answers."""
    say("Starting …")
    if plan.redis:
        supervisor.start(plan.redis)
        _await(supervisor, "redis", lambda: embedded_redis.answers(plan.redis_url))
    say(f"  redis   {plan.redis.command[0] if plan.redis else 'the one in ANANSE_REDIS_URL'}")
    for service in plan.services:
        supervisor.start(service)
    _await(supervisor, "api", lambda: responds(f"{plan.api.url}/readyz"))
    say(f"  api     {plan.api.url}")
    with closing(Workers(plan.redis_url)) as workers:
        for service in plan.services:
            if service.crew == CREW:
                _await_worker(supervisor, service.name, workers)
    _await(supervisor, "flower", lambda: responds(f"{plan.flower.url}/healthcheck"))
    say(f"  flower  {plan.flower.url}")


def _await_worker(supervisor: Supervisor, name: str, workers: Workers) -> None:
    found: list[WorkerState] = []

    def serves() -> bool:
        found[:] = [one for one in workers.on(socket.gethostname()) if one.pid == supervisor.pid(name)]
        return bool(found)

    _await(supervisor, name, serves)
    say(f"  {name:<7} {described(found[0])}")


def _show(name: str, line: str) -> None:
    say(f"{name:>7} | {line}")


def _await(supervisor: Supervisor, name: str, is_up: Callable[[], bool]) -> None:
    remind_at = time.monotonic() + _REMIND_S

    def is_up_or_remind() -> bool:
        nonlocal remind_at
        if time.monotonic() >= remind_at:
            remind_at += _REMIND_S
            say(f"  {name} is still starting; its log: {supervisor.log_path(name)}")
        return is_up()

    supervisor.watch(until=is_up_or_remind)


def _demonstrate(supervisor: Supervisor, plan: Plan) -> bool:
    """Runs it as a process of its own, so that the supervisor keeps watching; whether it went well."""
    if asks_for_key(f"{plan.api.url}/v1/models"):
        say("\nThe API asks for a key, so nothing is shown here: `ananse demo --key KEY` does.")
        return True
    with attached((sys.executable, "-m", "deploy.cli", "demo", "--url", plan.api.url)) as demonstration:
        supervisor.watch(until=lambda: demonstration.poll() is not None)
        return demonstration.returncode == 0


def _farewell(plan: Plan, state: State) -> str:
    return f"""
  Page      {plan.api.url}/
  API docs  {plan.api.url}/docs
  Flower    {plan.flower.url}  (user {plan.flower_user}, password {plan.flower_password})
  Logs      {state.log_dir}
Ctrl-C stops all of it."""
