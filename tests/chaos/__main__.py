"""`python -m tests.chaos`: a campaign of any size, and its report. Exit code 1 when a promise was broken."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import FORGETFUL, KILLED, Plan, run
from tests.chaos.scene import say


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forgetful", action="store_true", help="Redis is emptied or set back, not killed")
    parser.add_argument("--report", type=Path, help="a Markdown file to write")
    parser.add_argument("--folder", type=Path, help="keep logs and bytes here")
    asked = parser.parse_args()
    shares = FORGETFUL if asked.forgetful else KILLED
    plan = Plan(asked.jobs, asked.every, asked.workers, asked.clients, seed=asked.seed, shares=shares)
    with tempfile.TemporaryDirectory(prefix="ananse-chaos-") as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(plan, folder, say)
    say(report.markdown())
    say(report.verdict)
    if asked.report:
        asked.report.write_text(report.markdown())
    sys.exit(not report.verdict.is_kept)


if __name__ == "__main__":
    main()
