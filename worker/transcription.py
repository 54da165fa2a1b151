"""How a job gets from media to transcript: `prepare`, `transcribe` and `finish`, each a claimed step.

A step may be begun many times; what it stores is the same each time, and the ledger takes it once.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import CannotDo, CorruptAudio
from shared.job import Job, Options, Status
from shared.ledger import LONG_PART_S, part_step
from shared.log import get_logger
from shared.models import Abilities, long_queue_of, queue_of
from shared.tracing import Span
from shared.transcript import WindowResult
from worker import parts, reuse
from worker.aside import aside
from worker.context import Context
from worker.engine.audio import DecodeLimits, Decoding, decode
from worker.engine.engine import Engine
from worker.engine.merge import assemble, window_result
from worker.engine.spans import SpeechParams
from worker.engine.vad import detector_for
from worker.engine.values import DecodingOptions, Window
from worker.engine.windows import Cut, cut_windows
from worker.leases import Held, Yielding
from worker.metrics import Timed
from worker.recognition import recognized, votes_of

_log = get_logger()


def prepare(held: Held, job: Job, context: Context) -> None:
    """Media → parts: decode, detect speech, pack windows; each part is offered as soon as it is cut."""
    began = time.monotonic()
    card = context.card(job.options.model)
    check_abilities(job.options, card.abilities)
    if reuse.end_with_equal(held, job, card, context):
        return
    with _recording(job, context) as path, _decoding(path, job, context) as decoding:
        probed_s = decoding.waited_s
        context.ledger.note(held.claim, {"media": _media(job, decoding, decoding.probe.duration_s)})
        detector = detector_for(job.options.vad.enabled, _detector_options(job.options))
        blocks = context.tracer.walk("decode", decoding.blocks())
        cuts = Timed(context.tracer.walk("detect", cut_windows(blocks, detector, card.abilities.window_s)))
        offered = 0
        with _in_turn(cuts, decoding.probe.duration_s) as coming:
            for part in parts.group(coming, context.settings.part_s):
                held.check()
                _offer(offered, part, held, job, context)
                offered += 1
        context.metrics.stage("decode", decoding.waited_s)
        context.metrics.stage("detect", cuts.seconds - (decoding.waited_s - probed_s))
        context.ledger.prepared(
            held.claim,
            offered,
            {
                "media": _media(job, decoding, decoding.decoded_s),
                "decode_s": round(time.monotonic() - began, 3),
                "warnings": decoding.warnings,
            },
        )
        _log.info("job_prepared", parts=offered, audio_s=round(decoding.decoded_s, 3))


def transcribe(held: Held, job: Job, context: Context) -> None:
    """A part's windows → results, each kept as soon as it is there; kept ones are not run again."""
    engine, card = context.engine(job.options.model)
    context.ledger.note(held.claim, {"model": card.used})
    with context.tracer.span("fetch"):
        windows = _read_part(held, job, card.abilities, context)
        kept = _kept(held, job, windows, context)
    todo = [window for window in windows if window.index not in kept]
    with _running(engine, todo, len(kept), context) as span:
        for window, hypothesis in recognized(engine, job.id, todo, votes_of(kept.values()), held):
            result = window_result(window, hypothesis)
            may_go_on = context.ledger.checkpoint(held.claim, result, window.duration_s)
            kept[result.index] = result
            span.event("window", index=result.index, audio_s=window.duration_s)
            if not may_go_on and len(kept) < len(windows):
                raise Yielding()
    with context.tracer.span("store"):
        rows = [json.loads(kept[index].to_json()) for index in sorted(kept)]
        context.blobs.write(job_files.part_result(job.id, held.claim.step), json.dumps(rows).encode())
        context.ledger.finish_part(held.claim)


def finish(held: Held, job: Job, context: Context) -> None:
    """All parts → one transcript in file time; the job is completed."""
    steps = map(part_step, range(job.parts))
    with context.tracer.span("assemble", parts=job.parts):
        results = [result for step in steps for result in _part_results(job.id, step, context)]
        transcript = replace(
            assemble(results, job.media.duration_s or 0.0),
            warnings=job.warnings,
            model=asdict(job.model) if job.model else {"name": job.options.model},
        )
    with context.tracer.span("store"):
        context.blobs.write(job_files.transcript(job.id), transcript.to_json().encode())
        fields = {"language": asdict(transcript.language)} if transcript.language else {}
        context.endings.end(held.claim, job, Status.COMPLETED, fields)
    _remove_parts(job, context)
    reuse.remember(job, context)


@contextmanager
def _recording(job: Job, context: Context) -> Iterator[Path]:
    """The recording as it was accepted. Raises CorruptAudio when its bytes have changed since."""
    began = time.monotonic()
    with ExitStack() as held:
        with context.tracer.span("fetch", size_bytes=job.media.size_bytes):
            path = held.enter_context(context.blobs.local(job_files.media(job.id)))
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != job.media.sha256:
                    raise CorruptAudio("The stored recording is not what was sent.")
        context.metrics.stage("fetch", time.monotonic() - began)
        yield path


@contextmanager
def _decoding(path: Path, job: Job, context: Context) -> Iterator[Decoding]:
    with context.tracer.span("probe"):
        begun = decode(path, _limits(context), start_s=job.options.start_s, end_s=job.options.end_s)
    with begun as decoding:
        yield decoding


def _in_turn(cuts: Iterator[Cut], duration_s: float | None) -> AbstractContextManager[Iterator[Cut]]:
    """A long recording, or one of unknown length, is cut while nobody else needs the processor."""
    is_short = duration_s is not None and duration_s <= LONG_PART_S
    return nullcontext(cuts) if is_short else aside(cuts)


def check_abilities(options: Options, abilities: Abilities) -> None:
    """Raises CannotDo for what the model was not made for: better said than done badly."""
    if options.language and abilities.languages and options.language not in abilities.languages:
        raise CannotDo(f"The model does not know the language {options.language!r}.")
    if options.task not in abilities.tasks:
        raise CannotDo(f"The model cannot {options.task}.")
    if options.word_timestamps and not abilities.word_timestamps:
        raise CannotDo("The model gives no word timestamps.")
    if options.prompt and not abilities.prompt:
        raise CannotDo("The model takes no prompt.")


def _kept(held: Held, job: Job, windows: Sequence[Window], context: Context) -> dict[int, WindowResult]:
    """Windows that earlier attempts finished. A part that was done as a whole when Redis lost its record lies
    in the blob store; it counts if it is about these very windows."""
    kept = {result.index: result for result in context.ledger.kept_windows(held.claim)}
    if kept:
        return kept
    try:
        stored = _part_results(job.id, held.claim.step, context)
    except BlobMissing:
        return {}
    if not _are_of(windows, stored):
        return {}
    for window, result in zip(windows, stored, strict=True):
        context.ledger.checkpoint(held.claim, result, window.duration_s)
    return {result.index: result for result in stored}


def _are_of(windows: Sequence[Window], results: Sequence[WindowResult]) -> bool:
    """Whether the results are of these windows, cut as they are; times are kept to the millisecond."""
    return len(windows) == len(results) and all(
        window.index == result.index and abs(window.start_s - result.start) < 0.002
        for window, result in zip(windows, results, strict=True)
    )


def _offer(number: int, cuts: Sequence[Cut], held: Held, job: Job, context: Context) -> None:
    with context.tracer.span("offer", part=number):
        part, flac = parts.encode(cuts, job.options.start_s or 0.0)
        context.blobs.write(job_files.part_audio(job.id, part_step(number)), flac)
        context.ledger.offer_part(held.claim, number, job.options.model, part.to_json(), part.seconds)
    context.dispatcher.dispatch([queue_of(job.options.model), long_queue_of(job.options.model)])


@contextmanager
def _running(engine: Engine, windows: Sequence[Window], kept: int, context: Context) -> Iterator[Span]:
    """`batches` counts the passes of the model meanwhile; windows of other jobs were in them too."""
    audio_s = round(sum(window.duration_s for window in windows), 3)
    before = engine.statistics().batches
    with context.tracer.span("run", windows=len(windows), windows_kept=kept, audio_s=audio_s) as span:
        try:
            yield span
        finally:
            span.note(batches=engine.statistics().batches - before)


def _read_part(held: Held, job: Job, abilities: Abilities, context: Context) -> list[Window]:
    flac = context.blobs.read(job_files.part_audio(job.id, held.claim.step))
    return parts.decode(
        parts.Part.from_json(held.claim.body), flac, _decoding_options(job.options, abilities)
    )


def _part_results(job_id: str, step: str, context: Context) -> list[WindowResult]:
    rows = json.loads(context.blobs.read(job_files.part_result(job_id, step)))
    return [WindowResult.from_json(json.dumps(row)) for row in rows]


def _remove_parts(job: Job, context: Context) -> None:
    for number in range(job.parts):
        context.blobs.remove(job_files.part_audio(job.id, part_step(number)))
        context.blobs.remove(job_files.part_result(job.id, part_step(number)))


def _limits(context: Context) -> DecodeLimits:
    settings = context.settings
    return DecodeLimits(
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        max_duration_s=settings.max_duration_s,
    )


def _detector_options(options: Options) -> SpeechParams:
    vad = options.vad
    return SpeechParams(
        threshold=vad.threshold,
        min_silence_s=vad.min_silence_s,
        min_speech_s=vad.min_speech_s,
        pad_s=vad.pad_s,
    )


def _decoding_options(options: Options, abilities: Abilities) -> DecodingOptions:
    """The only language a model knows need not be guessed."""
    language = options.language
    if language is None and len(abilities.languages) == 1:
        language = abilities.languages[0]
    decoding = DecodingOptions(
        language=language,
        task=options.task,
        word_timestamps=options.word_timestamps,
        prompt=options.prompt,
    )
    return decoding if options.temperature is None else replace(decoding, temperatures=(options.temperature,))


def _media(job: Job, decoding: Decoding, duration_s: float | None) -> dict[str, object]:
    return asdict(
        replace(
            job.media,
            duration_s=round(duration_s, 3) if duration_s is not None else None,
            container=decoding.probe.container,
            codec=decoding.probe.codec,
        )
    )
