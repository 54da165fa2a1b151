"""Which decoder writes for a model, torch's operations or the compiled pass, and in which number format."""

import importlib
import platform
from typing import Any

import torch

from shared.log import get_logger
from worker.engine import calibration
from worker.engine.text_decoder import Decoder

TRIED_SLOTS = 2

_log = get_logger()


def choose_format(model: Any, *, is_exact: bool) -> torch.dtype | None:
    """None is for torch's operations. `is_exact` keeps all digits of the model's own format."""
    config = model.config
    head_width = config.d_model // config.decoder_attention_heads
    is_usual = config.activation_function == "gelu" and head_width % 4 == 0
    if model.device.type != "cpu" or not is_usual:
        return None
    reason = cannot_compile()
    if reason:
        _log.warning("decoder_not_compiled", reason=reason)
        return None
    from llvmlite import binding  # noqa: PLC0415

    from worker.engine.compiled_decoder import CompiledDecoder  # noqa: PLC0415

    kept: torch.dtype = model.dtype
    has_halves = platform.machine() != "x86_64" or binding.get_host_cpu_features().get("f16c", False)
    if not is_exact and kept == torch.float32 and has_halves and _fits(model, torch.float16):
        kept = torch.float16
    if kept == torch.bfloat16:
        # Only there has torch products that nothing here can match.
        quick, usual = CompiledDecoder(model, TRIED_SLOTS), Decoder(model, TRIED_SLOTS)
        return kept if calibration.step_s(quick) < calibration.step_s(usual) else None
    return kept


def cannot_compile() -> str:
    """Why not, if so: whoever cannot writes as before."""
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError as error:
        return f"{error}: install libgomp1"
    return ""


def build_decoder(model: Any, slots: int, kept: torch.dtype | None) -> Decoder:
    if kept is None:
        return Decoder(model, slots)
    from worker.engine.compiled_decoder import CompiledDecoder  # noqa: PLC0415

    return CompiledDecoder(model, slots, kept)


def _fits(model: Any, kept: torch.dtype) -> bool:
    most = torch.finfo(kept).max
    return all(float(weight.detach().abs().max()) < most for weight in model.model.decoder.parameters())
