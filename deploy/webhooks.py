"""`ananse webhooks`: receivers that fail, deliveries made once more, a new secret to sign with."""

import argparse
import sys

from deploy.admin import tables
from deploy.admin.command import run
from deploy.admin.desk import Desk
from deploy.errors import StartError
from deploy.keys import seconds
from shared.ledger import DELIVER_QUEUE, ReplayOutcome
from shared.receivers import Receiver, Receivers
from shared.webhook_secrets import WebhookSecrets

_TENANT = "default"
_SENTENCES = {
    ReplayOutcome.REPLAYED: "is sent again",
    ReplayOutcome.SENDING: "is being sent at this moment",
    ReplayOutcome.EARLY: "has not ended yet",
    ReplayOutcome.GONE: "has no webhook, or there is no such job",
}


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "webhooks",
        help="receivers that fail; send a webhook once more; change the secret",
        description="Needs nothing but the settings of the service (ANANSE_REDIS_URL). See docs/webhooks.md.",
    )
    acts = parser.add_subparsers(metavar="ACT", required=True)
    failing = acts.add_parser("list", help="receivers that failed last, and those that are disabled")
    failing.add_argument("--json", action="store_true", help="for scripts")
    failing.set_defaults(act=show)
    replay = acts.add_parser("replay", help="send the webhooks of these jobs again, now")
    replay.add_argument("jobs", nargs="+", metavar="JOB")
    replay.set_defaults(act=send_again)
    enable = acts.add_parser("enable", help="ask a disabled receiver again, from the next job on")
    enable.add_argument("url", metavar="URL", help="whole, as jobs name it")
    enable.add_argument("--tenant", default=_TENANT, help="whose jobs name it")
    enable.set_defaults(act=ask_again)
    rotate = acts.add_parser("rotate", help="a new secret to sign with; the one there signs too for a while")
    rotate.add_argument(
        "--overlap", type=seconds, default=7 * 86_400, metavar="TIME", help="how long, as in 12h, 30d (7d)"
    )
    rotate.set_defaults(act=change_secret)
    parser.set_defaults(run=run)


def show(arguments: argparse.Namespace, desk: Desk) -> int:
    receivers = Receivers(desk.store).failing()
    tables.show(arguments.json, tables.rows_of(receivers), _text(receivers))
    return 0


def send_again(arguments: argparse.Namespace, desk: Desk) -> int:
    outcomes = [desk.ledger.replay(job_id) for job_id in arguments.jobs]
    for job_id, outcome in zip(arguments.jobs, outcomes, strict=True):
        print(f"{job_id}: {_SENTENCES[outcome]}")
    desk.dispatcher().dispatch([DELIVER_QUEUE])
    return 0 if set(outcomes) <= {ReplayOutcome.REPLAYED, ReplayOutcome.SENDING} else 1


def ask_again(arguments: argparse.Namespace, desk: Desk) -> int:
    if not Receivers(desk.store).enable(arguments.tenant, arguments.url):
        raise StartError(f"no failures of this address are known for the tenant {arguments.tenant!r}")
    print("enabled; `ananse webhooks replay JOB` sends what it missed")
    return 0


def change_secret(arguments: argparse.Namespace, desk: Desk) -> int:
    """The secret alone on standard output. Workers take it up with their next message."""
    if desk.settings.webhook_secret is not None:
        raise StartError(
            "the secret is in the settings: move it to ANANSE_WEBHOOK_SECRET_PREVIOUS, put a new one into "
            "ANANSE_WEBHOOK_SECRET, and restart the workers"
        )
    print(WebhookSecrets(desk.store).rotate(arguments.overlap))
    sys.stderr.write("This is the new secret. ")
    sys.stderr.write(
        "Until the overlap is over each message has two signatures: give it to your receivers.\n"
        if arguments.overlap
        else "Messages are signed with it alone from now on.\n"
    )
    return 0


def _text(receivers: tuple[Receiver, ...]) -> str:
    if not receivers:
        return "no receiver fails"
    head = ("RECEIVER", "TENANT", "FAILING SINCE", "DISABLED", "WHY")
    return tables.table(
        head,
        [
            (
                one.url,
                one.tenant,
                tables.instant(one.failing_since),
                tables.instant(one.disabled_at),
                one.reason or tables.NOTHING,
            )
            for one in receivers
        ],
    )
