"""What is done on a card, wherever the model is."""

from worker.engine.whisper import WhisperRunner


class CardRunner(WhisperRunner):
    """Windows are heard together, and wait for each other's words."""

    @property
    def _is_on_cpu(self) -> bool:
        return False
