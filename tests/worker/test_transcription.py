"""From media to transcript: what is refused, what is voted on, and what lies where afterwards."""

import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shared import job_files
from shared.errors import CannotDo
from shared.job import Job, Options, Status, VadOptions
from shared.ledger import PREPARE
from shared.models import Abilities, queue_of
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.transcript import Language, Transcript, WindowResult
from tests.fakes import ScriptedRunner
from tests.support.jobs import submit
from tests.support.worker_context import MODEL, submit_part, worker_context
from worker.context import Context
from worker.engine.values import Hypothesis, Window
from worker.steps import perform
from worker.transcription import check_abilities

ABLE = Abilities(("en", "tw"), ("transcribe", "translate"), True, True, True, True)
PLAIN = Abilities(("en",), ("transcribe",), True, False, False, False)


@pytest.mark.parametrize(
    ("options", "abilities"),
    [
        (Options("m"), PLAIN),
        (Options("m", language="en"), PLAIN),
        (Options("m", language="tw", task="translate", word_timestamps=True, prompt="Kofi"), ABLE),
        (Options("m", language="xx"), replace(PLAIN, languages=())),
    ],
)
def test_what_the_model_can_do_is_done(options: Options, abilities: Abilities) -> None:
    check_abilities(options, abilities)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options("m", language="tw"), "The model does not know the language 'tw'."),
        (Options("m", task="translate"), "The model cannot translate."),
        (Options("m", word_timestamps=True), "The model gives no word timestamps."),
        (Options("m", prompt="Kofi"), "The model takes no prompt."),
    ],
)
def test_what_it_cannot_do_is_said(options: Options, sentence: str) -> None:
    with pytest.raises(CannotDo) as raised:
        check_abilities(options, PLAIN)

    assert raised.value.detail == sentence


class Polyglot(ScriptedRunner):
    """Hears a language in each window, by its index, with so much confidence; does as it is told of one."""

    def __init__(self, heard: Mapping[int, tuple[str, float]], default: str = "en") -> None:
        super().__init__()
        self.card = replace(self.card, abilities=replace(self.card.abilities, languages=("en", "tw")))
        self._heard = heard
        self._default = default

    def run(self, batch: Sequence[Window]) -> list[Hypothesis]:
        return [
            replace(hypothesis, language=language, language_probability=probability)
            for window, hypothesis in zip(batch, super().run(batch), strict=True)
            for language, probability in [self._heard.get(window.index, (self._default, 0.9))]
        ]

    @property
    def told(self) -> dict[int, str | None]:
        """The language each window was to be decoded in, None where it was to be found out."""
        return {window.index: window.options.language for batch in self.batches for window in batch}


def transcribed(
    settings: Settings, store: RedisStore, runner: Polyglot, seconds: Sequence[float], **options: object
) -> Context:
    with worker_context(settings, store, runner) as context:
        perform("job_1", submit_part(context, store, seconds, **options), context)
        perform("job_1", "finish", context)
    assert context.jobs.get("job_1").status is Status.COMPLETED
    return context


@pytest.mark.redis
def test_the_first_windows_vote_on_the_language_and_the_rest_follow(
    settings: Settings, store: RedisStore
) -> None:
    runner = Polyglot({0: ("en", 0.6), 1: ("tw", 0.9), 2: ("tw", 0.9)})

    context = transcribed(settings, store, runner, [2.0] * 6)

    assert runner.told == {0: None, 1: None, 2: None, 3: "tw", 4: "tw", 5: "tw"}
    assert context.jobs.get("job_1").language is not None


@pytest.mark.redis
@pytest.mark.parametrize(
    ("one", "others", "seconds"),
    [(0.6, 0.7, [4.0, 1.0, 1.0, 1.0]), (0.9, 0.3, [2.0, 2.0, 2.0, 1.0])],
    ids=["long", "certain"],
)
def test_a_long_or_certain_window_outvotes_two_others(
    settings: Settings, store: RedisStore, one: float, others: float, seconds: list[float]
) -> None:
    runner = Polyglot({0: ("tw", one), 1: ("en", others), 2: ("en", others)})

    transcribed(settings, store, runner, seconds)

    assert runner.told[3] == "tw"


@pytest.mark.redis
def test_a_language_that_was_asked_for_is_not_voted_on(settings: Settings, store: RedisStore) -> None:
    runner = Polyglot({})

    transcribed(settings, store, runner, [1.0] * 5, language="tw")

    assert set(runner.told.values()) == {"tw"}


@pytest.mark.redis
def test_the_only_language_a_model_knows_need_not_be_found_out(settings: Settings, store: RedisStore) -> None:
    runner = Polyglot({})
    runner.card = replace(runner.card, abilities=replace(runner.card.abilities, languages=("tw",)))

    transcribed(settings, store, runner, [1.0] * 5)

    assert set(runner.told.values()) == {"tw"}


@pytest.mark.redis
def test_windows_that_were_kept_have_voted_and_are_not_run_again(
    settings: Settings, store: RedisStore
) -> None:
    runner = Polyglot({})
    with worker_context(settings, store, runner) as context:
        step = submit_part(context, store, [1.0] * 5)
        claim = context.ledger.claim("job_1", step, "before")
        for index, language in enumerate((Language("en", 0.3), Language("tw", 0.8))):
            kept = WindowResult(index, index * 1.0, index + 1.0, (), language=language)
            context.ledger.checkpoint(claim, kept, 1.0)
        context.ledger.release(claim)

        perform("job_1", step, context)

    assert runner.told == dict.fromkeys([2, 3, 4], "tw")
    assert context.jobs.get("job_1").done_s == 5.0


@pytest.mark.redis
def test_a_transcript_says_what_it_was_made_with_and_the_parts_are_gone(
    settings: Settings, store: RedisStore
) -> None:
    context = transcribed(settings, store, Polyglot({}), [1.0, 1.0], language="en")

    transcript = Transcript.from_json(context.blobs.read(job_files.transcript("job_1")))
    assert transcript.text == "window 0 window 1"
    assert [(segment.start, segment.end) for segment in transcript.segments] == [(0.0, 1.0), (1.0, 2.0)]
    assert transcript.model["name"] == "scripted"
    assert context.blobs.folders(job_files.folder("job_1")) == ("transcript.json",)


@pytest.mark.redis
def perform_all(context: Context, job_id: str) -> None:
    for step in (PREPARE, "part-0", "finish"):
        perform(job_id, step, context)


def talk(context: Context, store: RedisStore, job_id: str, **options: object) -> Job:
    """A job for the same two seconds of sound, worked on to its end."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(b"\x10\x20" * 32_000)
    asked = {"model": MODEL, "vad": VadOptions(enabled=False)} | options
    submit(store, job_id, content=file.getvalue(), **asked)  # type: ignore[arg-type]
    context.blobs.write(job_files.media(job_id), file.getvalue())
    perform_all(context, job_id)
    return context.jobs.get(job_id)


def revised(runner: ScriptedRunner, revision: str | None = "r1") -> ScriptedRunner:
    runner.card = replace(runner.card, revision=revision)
    return runner


def test_the_same_asked_again_is_copied(settings: Settings, store: RedisStore) -> None:
    runner = revised(ScriptedRunner())
    with worker_context(settings, store, runner) as context:
        first = talk(context, store, "job_1")
        again = talk(context, store, "job_2", metadata={"other": "caller"}, priority=5)

        assert (again.status, again.reused_from) == (Status.COMPLETED, "job_1")
        assert first.reused_from is None
        texts = [context.blobs.read(job_files.transcript(job_id)) for job_id in ("job_1", "job_2")]
        assert texts[0] == texts[1]
        assert (again.media.duration_s, again.done_s, again.language) == (2.0, 2.0, first.language)
        assert len(runner.batches) == 1


@pytest.mark.parametrize(
    "other",
    [{"reuse": False}, {"language": "en"}, {"task": "transcribe", "prompt": "words"}, {"tenant": "another"}],
    ids=["turned off", "language", "prompt", "another client's"],
)
def test_what_is_not_the_same_is_done(
    settings: Settings, store: RedisStore, other: dict[str, object]
) -> None:
    runner = revised(ScriptedRunner())
    with worker_context(settings, store, runner) as context:
        talk(context, store, "job_1")

        assert talk(context, store, "job_2", **other).reused_from is None
        assert len(runner.batches) == 2


def test_what_another_revision_or_nobody_knows_what_made_is_done_again(
    settings: Settings, store: RedisStore
) -> None:
    for number, revision in enumerate(("r1", "r2", None, None)):
        with worker_context(settings, store, revised(ScriptedRunner(), revision)) as context:
            assert talk(context, store, f"job_{number}").reused_from is None


def test_a_result_that_is_gone_is_made_again(settings: Settings, store: RedisStore) -> None:
    with worker_context(settings, store, revised(ScriptedRunner())) as context:
        talk(context, store, "job_1")
        context.blobs.remove(job_files.transcript("job_1"))

        again = talk(context, store, "job_2")

        assert (again.status, again.reused_from) == (Status.COMPLETED, None)


def test_a_recording_that_has_changed_is_not_transcribed(settings: Settings, store: RedisStore) -> None:
    with worker_context(settings, store) as context:
        submit(store, content=b"what was sent", model=MODEL)
        context.blobs.write(job_files.media("job_1"), b"what lies there")

        perform("job_1", PREPARE, context)

        failure = context.jobs.get("job_1").failure
        assert failure is not None
        assert failure.code == "corrupt_audio"


def test_a_part_that_was_done_before_redis_forgot_is_not_done_again(
    settings: Settings, store: RedisStore
) -> None:
    runner = ScriptedRunner()
    with worker_context(settings, store, runner) as context:
        step = submit_part(context, store, [1.0, 2.0])
        perform("job_1", step, context)
        store.client.flushdb()
        submit_part(context, store, [1.0, 2.0])

        perform("job_1", step, context)
        perform("job_1", "finish", context)

        assert sum(runner.sizes) == 2
        assert context.jobs.get("job_1").status is Status.COMPLETED


def test_a_part_makes_room_when_it_should(settings: Settings, store: RedisStore) -> None:
    with worker_context(settings.model_copy(update={"batch_size": 1}), store) as context:
        step = submit_part(context, store, [1.0] * 3)
        store.client.hset(store.key("job", "job_1"), "parts_done", -1)
        other = submit_part(context, store, [1.0], "job_2", tenant="another")

        perform("job_1", step, context)

        assert len(context.jobs.windows("job_1")) < 3
        assert [hint.job_id for hint in context.ledger.dispatch(queue_of(MODEL), 1, hint_s=9)] == ["job_2"]
        perform("job_2", other, context)
        perform("job_1", step, context)
        assert context.ledger.claim("job_1", step, "w").outcome == "done"


def test_a_recording_becomes_parts_and_its_length_is_noted(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    recording = tmp_path / "talk.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x10\x20" * 32_000)
    with worker_context(settings, store) as context:
        submit(store, content=recording.read_bytes(), model=MODEL, vad=VadOptions(enabled=False))
        context.blobs.write(job_files.media("job_1"), recording.read_bytes())

        perform("job_1", PREPARE, context)
        perform("job_1", "part-0", context)
        perform("job_1", "finish", context)

        job = context.jobs.get("job_1")
        assert (job.status, job.failure, job.parts) == (Status.COMPLETED, None, 1)
        assert (job.media.duration_s, job.media.container, job.total_s) == (2.0, "wav", 2.0)
        assert job.media.name == "speech.wav"
        assert job.timings.decode_s is not None
