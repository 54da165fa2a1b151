"""`python -m tests.corpus`: mutagen's files and as many mutants as asked for, through an API and a worker.
Exit code 1 when a file came to no proper end."""

import argparse
import sys
import tempfile
from pathlib import Path

from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.corpus.course import course
from tests.corpus.mutagen_files import mutagen_files
from tests.corpus.mutants import mutants
from tests.corpus.own_files import own_files
from tests.support.redis_server import redis_server, require_binary


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus")
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=Path, help="a folder whose files are run too")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ananse-corpus-") as temporary,
        redis_server(require_binary()) as url,
        connect(url) as client,
    ):
        folder = Path(temporary)
        settings = Settings(redis_url=url, blob_url=f"file://{folder}/blobs", state_dir=folder / "state")
        files = mutagen_files()
        more = sorted(path for path in asked.more.rglob("*") if path.is_file()) if asked.more else []
        seeds = files | own_files(folder / "own")
        with course(settings, RedisStore(client), folder) as run:
            run.run(files.items())
            run.run((str(path), path.read_bytes()) for path in more)
            run.run(mutants(seeds, asked.mutants, asked.seed))
    sys.stdout.write("".join(f"{end:24}{count:6}\n" for end, count in run.ends.most_common()))
    sys.stdout.write("".join(f"FAULT {fault}\n" for fault in run.faults))
    sys.stdout.write(f"{run.ends.total()} files, {len(run.faults)} faults\n")
    sys.exit(bool(run.faults))


if __name__ == "__main__":
    main()
