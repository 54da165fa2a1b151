"""Codes are public and permanent; the drawing at the top of the file is the tree."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from shared import errors
from shared.errors import DependencyError, JobError, RequestError, ServiceError


def below(base: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for error in base.__subclasses__():
        yield error
        yield from below(error)


BRANCHES = (RequestError, JobError, DependencyError)
NAMED = tuple(
    error for error in below(ServiceError) if error not in BRANCHES and error.__module__ == errors.__name__
)


def test_a_code_belongs_to_one_error() -> None:
    """But for what is found out at submit or only by the worker: one word, one meaning."""
    codes = Counter(error.code for error in NAMED)

    assert [code for code, uses in codes.items() if uses > 1] == ["unsupported_option"]
    assert {error.code for error in (errors.UnsupportedOption, errors.CannotDo)} == {"unsupported_option"}


@pytest.mark.parametrize("error", [ServiceError, *BRANCHES, *NAMED])
def test_every_error_can_be_shown(error: type[ServiceError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert error.title
    assert not error.title.endswith(".")
    assert error().detail == error.title
    assert str(error("Because of that.")) == error("Because of that.").detail == "Because of that."


@pytest.mark.parametrize("error", NAMED)
def test_every_error_has_a_title_of_its_own(error: type[ServiceError]) -> None:
    assert "code" in vars(error)
    assert "title" in vars(error)


def test_the_drawing_shows_the_tree() -> None:
    drawing = errors.__doc__ or ""

    drawn = re.findall(r"^ *[├└]─ (\w+) ", drawing, re.MULTILINE)

    assert drawn == [branch.__name__ for branch in ServiceError.__subclasses__()]
    assert re.search(r"^ *ServiceError$", drawing, re.MULTILINE)
    assert all(issubclass(error, BRANCHES) for error in NAMED)


@pytest.mark.parametrize("error", NAMED)
def test_what_the_branches_promise_is_kept(error: type[ServiceError]) -> None:
    if issubclass(error, RequestError):
        # What this server was not made to do is no mistake of the client, but nothing it should try again.
        assert 400 <= error.status < 500 or error is errors.UrlIngestUnavailable
    if issubclass(error, DependencyError):
        assert error.status >= 500
        assert error.retryable
    if issubclass(error, JobError):
        assert error.tries >= 1
