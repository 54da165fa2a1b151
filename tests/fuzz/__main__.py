"""`python -m tests.fuzz [--examples N] [--seed N]`: 10,000 requests made from our own OpenAPI document, and
every answer judged by it."""

import argparse
import sys

from tests.fuzz.campaign import Campaign, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument(
        "--examples", type=int, default=400, help="of each operation, beside the corner cases"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    verdict = run(Campaign(given.examples, given.seed))
    said = "nothing found" if verdict.is_clean else "see above"
    sys.stdout.write(f"{verdict.report}\n{verdict.cases} cases, seed {given.seed}: {said}\n")
    return 0 if verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
