"""/v1/models: what is served here, what it can do, and which of it has a live worker."""

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from api.answers import AbilitiesOut, ModelOut, ModelsOut
from api.auth import identify
from api.jobs import json_answer
from api.openapi import SERVICE, answers
from api.parts import parts
from api.schemas import NoQuery
from shared.fleet import WorkerState, capacity
from shared.models import Abilities, ModelCard, ModelSource, long_queue_of, queue_of

blueprint = APIBlueprint("models", __name__, url_prefix="/v1/models", abp_tags=[SERVICE])


@blueprint.get("", summary="List models", responses=answers(200, ModelsOut))
def list_models(query: NoQuery) -> Response:
    """Live ones with the abilities their workers found; the others wait for a worker."""
    identify(request)
    workers = parts().fleet.live()
    models = [model_out(model, workers, number == 0) for number, model in enumerate(parts().models)]
    return json_answer(ModelsOut(models=models).model_dump_json())


def model_out(model: ModelSource, workers: tuple[WorkerState, ...], is_default: bool) -> ModelOut:
    serving = [worker for worker in workers if any(card.name == model.name for card in worker.models)]
    speeds = [worker.rtfx[model.name] for worker in serving if worker.rtfx.get(model.name)]
    out = ModelOut(
        name=model.name,
        default=is_default,
        live=bool(serving),
        workers=len(serving),
        slots=capacity(serving, queue_of(model.name)) + capacity(serving, long_queue_of(model.name)),
        rtfx=round(sum(speeds) / len(speeds), 2) if speeds else None,
    )
    cards = [card for worker in serving for card in worker.models if card.name == model.name]
    return _with_card(out, cards[0]) if cards else out


def _with_card(out: ModelOut, card: ModelCard) -> ModelOut:
    """The source stays unsaid: it may be a folder of ours."""
    return out.model_copy(
        update={
            "revision": card.revision,
            "device": card.device,
            "dtype": card.dtype,
            "parameters": card.parameters,
            "abilities": _abilities_out(card.abilities),
        }
    )


def _abilities_out(abilities: Abilities) -> AbilitiesOut:
    return AbilitiesOut(
        languages=list(abilities.languages),
        tasks=list(abilities.tasks),
        segment_timestamps=abilities.segment_timestamps,
        word_timestamps=abilities.word_timestamps,
        language_detection=abilities.language_detection,
        prompt=abilities.prompt,
        window_s=abilities.window_s,
        repairs=list(abilities.repairs),
    )
