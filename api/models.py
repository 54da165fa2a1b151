"""/v1/models: what is served here, what it can do, and which of it has a live worker."""

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from api.answers import AbilitiesOut, ModelOut, ModelsOut, OpenAiModelOut, PlacementOut
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
    data = [OpenAiModelOut(id=model.name) for model in models]
    return json_answer(ModelsOut(models=models, data=data).model_dump_json())


def model_out(model: ModelSource, workers: tuple[WorkerState, ...], is_default: bool) -> ModelOut:
    serving = [(worker, card) for worker in workers for card in worker.models if card.name == model.name]
    holders = [worker for worker, _ in serving]
    out = ModelOut(
        name=model.name,
        default=is_default,
        live=bool(serving),
        workers=len(serving),
        slots=capacity(holders, queue_of(model.name)) + capacity(holders, long_queue_of(model.name)),
        rtfx=_mean_speed(holders, model.name),
        placements=_placements(serving),
        decoder_guards=_guards_of_all(holders),
    )
    return _with_card(out, serving[0][1]) if serving else out


def _placements(serving: list[tuple[WorkerState, ModelCard]]) -> list[PlacementOut]:
    places: dict[tuple[str, str], list[WorkerState]] = {}
    for worker, card in serving:
        places.setdefault((card.device, card.dtype), []).append(worker)
    name = serving[0][1].name if serving else ""
    return [
        PlacementOut(
            device=device,
            dtype=dtype,
            workers=len(holders),
            loaded=sum(bool(worker.engine.get(name, {}).get("is_loaded", 1.0)) for worker in holders),
            rtfx=_mean_speed(holders, name),
        )
        for (device, dtype), holders in sorted(places.items())
    ]


def _guards_of_all(workers: list[WorkerState]) -> list[str] | None:
    """In the order in which a worker names them. None where nobody is there to say."""
    if not workers:
        return None
    return [guard for guard in workers[0].guards if all(guard in worker.guards for worker in workers)]


def _mean_speed(workers: list[WorkerState], model: str) -> float | None:
    speeds = [worker.rtfx[model] for worker in workers if worker.rtfx.get(model)]
    return round(sum(speeds) / len(speeds), 2) if speeds else None


def _with_card(out: ModelOut, card: ModelCard) -> ModelOut:
    """The source stays unsaid: it may be a folder of ours."""
    return out.model_copy(
        update={
            "revision": card.revision,
            "device": card.device,
            "dtype": card.dtype,
            "parameters": card.parameters,
            "abilities": _abilities_out(card.abilities),
            "details": card.details,
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
