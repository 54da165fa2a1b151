"""Reads a request's options into a job's, and refuses what no model here can do."""

from collections.abc import Iterable, Mapping

from flask import Request
from pydantic import ValidationError

from api.parts import Parts
from api.problems import of_validation, one_invalid
from api.schemas import OptionsIn
from shared.errors import UnknownModel, UnsupportedOption
from shared.job import Options
from shared.models import Abilities


def query_fields(request: Request) -> dict[str, str]:
    """The query as it is; a name given twice is refused."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise one_invalid(name, "is given twice")
    return request.args.to_dict()


def merged(query: Mapping[str, str], form: Mapping[str, str]) -> dict[str, str]:
    """Query and form in one; empty fields, as HTML forms send them, count as left out."""
    for name in query.keys() & form.keys():
        raise one_invalid(name, "is given twice")
    return {name: value for name, value in {**query, **form}.items() if value != ""}


def read_options(parts: Parts, fields: Mapping[str, object]) -> Options:
    """Raises InvalidOptions, UnknownModel, UnsupportedOption."""
    try:
        options = OptionsIn.model_validate(dict(fields)).to_options(parts.models[0].name)
    except ValidationError as error:
        raise of_validation(error) from error
    if options.model not in {model.name for model in parts.models}:
        raise UnknownModel("GET /v1/models lists the models served here.")
    longest_s = parts.settings.retention_s
    if options.retention_s is not None and options.retention_s > longest_s:
        raise one_invalid("retention_s", f"must not be more than {longest_s:g}")
    _refuse_unsupported(options, _abilities(parts, options.model))
    return options


def _abilities(parts: Parts, model: str) -> tuple[Abilities, ...]:
    return tuple(
        card.abilities for worker in parts.speeds.workers() for card in worker.models if card.name == model
    )


def _refuse_unsupported(options: Options, known: Iterable[Abilities]) -> None:
    """Only what live workers say counts; while none is up the job is taken, and judged by its worker."""
    known = tuple(known)
    if not known:
        return
    languages = {language for abilities in known for language in abilities.languages}
    if options.language is not None and options.language not in languages:
        raise UnsupportedOption(f"The model does not know the language {options.language!r}.")
    if not any(options.task in abilities.tasks for abilities in known):
        raise UnsupportedOption(f"The model cannot do the task {options.task!r}.")
    if options.word_timestamps and not any(abilities.word_timestamps for abilities in known):
        raise UnsupportedOption("The model gives no word timestamps.")
    if options.prompt and not any(abilities.prompt for abilities in known):
        raise UnsupportedOption("The model takes no prompt.")
