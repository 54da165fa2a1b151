"""1,500 requests from our own OpenAPI document (T23): no 5xx, no answer the document does not say, nothing
taken that it forbids, nothing refused that it allows, nothing deleted that answers. `make fuzz` runs
10,000."""

import pytest

from tests.fuzz.campaign import Campaign, run

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow, pytest.mark.calm]

CASES = 1500
EXAMPLES = 16
"""Of each operation; the corners of all schemas are as many cases again, several times."""
SEED = 23


def test_every_answer_is_in_the_document() -> None:
    verdict = run(Campaign(EXAMPLES, SEED))

    assert verdict.is_clean, verdict.report
    assert verdict.cases >= CASES
