"""Which guards of the decoder's sandbox this machine grants: found out once, before the first recording."""

from shared.errors import JobError
from shared.log import get_logger
from shared.settings import Settings, SettingsError
from worker.engine.audio import DecodeLimits, guards_here
from worker.engine.decoder.sandbox import Guard

_log = get_logger()


def examine(settings: Settings) -> tuple[str, ...]:
    """Told once, in the log and with the worker's heartbeats. Raises SettingsError when the decoder does not
    run here at all, or without a guard that the settings demand."""
    limits = DecodeLimits(settings.decode_timeout_s, settings.decode_memory_bytes, settings.max_duration_s)
    try:
        held = guards_here(limits)
    except JobError as error:
        raise SettingsError(f"The decoder does not run on this machine: {error.detail}") from error
    missing = [str(guard) for guard in Guard if guard not in held]
    if missing and settings.decode_sandbox == "full":
        raise SettingsError(
            f"ANANSE_DECODE_SANDBOX=full, but this machine grants no {', '.join(missing)}: "
            "allow user namespaces and seccomp, or set it to auto. See docs/media.md."
        )
    if missing:
        _log.warning("decoder_guards_missing", held=list(held), missing=missing)
    else:
        _log.info("decoder_guarded", held=list(held))
    return tuple(held)
