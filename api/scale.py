"""/internal/scale: how much there is to do, as the KEDA metrics-api scaler reads it. For the cluster, no part
of the public contract."""

import json

from flask import Blueprint, Response, request

from api.jobs import json_answer
from api.ledger_view import Load
from api.parts import parts
from shared.errors import UnknownModel

blueprint = Blueprint("scale", __name__, url_prefix="/internal")


@blueprint.get("/scale")
def scale() -> Response:
    """All models, or the one asked for: then its figures stand at the top, for names hold dots and
    slashes."""
    loads = parts().view.look().loads
    model = request.args.get("model")
    if model is None:
        backlog_s = sum(load.backlog_s for load in loads.values())
        shape: dict[str, object] = {
            "backlog_s": round(backlog_s, 3),
            "models": {name: _out(load) for name, load in loads.items()},
        }
    elif model in loads:
        shape = {"model": model, **_out(loads[model])}
    else:
        raise UnknownModel("No such model is served here.")
    return json_answer(json.dumps(shape))


def _out(load: Load) -> dict[str, object]:
    """Seconds of audio; `speed` is that of one worker, 0 when none was ever measured."""
    return {
        "backlog_s": round(load.backlog_s, 3),
        "waiting_s": round(load.waiting_s, 3),
        "running_s": round(load.running_s, 3),
        "workers": load.workers,
        "speed": load.speed,
        "fleet_speed": round(load.fleet_speed, 3),
    }
