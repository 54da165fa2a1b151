"""`ananse webhook-secret`: what a receiver needs to check our signatures."""

import argparse
from contextlib import closing

from deploy import embedded_redis
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, load
from shared.webhook_secrets import WebhookSecrets


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("webhook-secret", help="print the secret that webhooks are signed with")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Raises StartError when the secret is not in the settings and no Redis answers."""
    print(read(load()))
    return 0


def read(settings: Settings) -> str:
    """The setting, else the one that the service made for itself."""
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value()
    url = embedded_redis.url_for(settings)
    embedded_redis.require(url)
    with closing(connect(url)) as client:
        return WebhookSecrets(RedisStore(client)).all()[0]
