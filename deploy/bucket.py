"""`python -m deploy.bucket NAME ENDPOINT`: makes the bucket of a composed object store, once.

A bucket elsewhere is its owner's to make.
"""

import argparse
import sys

from deploy.errors import EXIT_FAILED, StartError

_ANSWER_S = 10
_TRIES = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.bucket")
    parser.add_argument("name")
    parser.add_argument("endpoint")
    given = parser.parse_args()
    try:
        was_made = make(given.name, given.endpoint)
    except StartError as error:
        sys.stderr.write(f"ananse: {error}\n")
        return EXIT_FAILED
    print("bucket made" if was_made else "the bucket is there")
    return 0


def make(name: str, endpoint: str) -> bool:
    """Whether it was not there before. Credentials come as for AWS's own programs. Raises StartError."""
    # Half a second of imports, which nothing else in this folder needs.
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.session import get_session  # noqa: PLC0415

    try:
        client = get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            config=Config(
                connect_timeout=_ANSWER_S,
                read_timeout=_ANSWER_S,
                retries={"mode": "standard", "total_max_attempts": _TRIES},
                s3={"addressing_style": "path"},
            ),
        )
        # Asked first: made again by its owner, some stores say yes and some no.
        if name in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            return False
        client.create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        raise StartError(f"the bucket {name} cannot be made at {endpoint} ({error})") from error
    return True


if __name__ == "__main__":
    sys.exit(main())
