"""libav's filters: frames of any form become samples at 16 kHz."""

from itertools import pairwise

import av
from av.audio.frame import AudioFrame
from av.filter import Graph
from av.filter.context import FilterContext

from worker.engine.decoder.protocol import LANES, SAMPLE_BYTES, SAMPLE_RATE


class Lanes:
    """The filter graph for frames of one shape: in any form, out at 16 kHz in one lane of s16.

    Of two channels it makes two lanes, half their sum and half their difference: the worker chooses.
    """

    def __init__(self, frame: AudioFrame) -> None:
        channels = frame.layout.nb_channels
        self._shape = shape(frame)
        self.width = SAMPLE_BYTES * (LANES if channels == 2 else 1)
        graph = Graph()
        steps: list[FilterContext] = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                channels=channels,
                time_base=frame.time_base,
            )
        ]
        if pan := panning(frame.layout.name, channels):
            steps.append(graph.add("pan", pan))
        out = "stereo" if channels == 2 else "mono"
        steps.append(
            graph.add("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}:channel_layouts={out}")
        )
        steps.append(graph.add("abuffersink"))
        for step, following in pairwise(steps):
            step.link_to(following)
        graph.configure()
        self._source, self._sink = steps[0], steps[-1]
        self._graph = graph

    def fits(self, frame: AudioFrame) -> bool:
        return shape(frame) == self._shape

    def push(self, frame: AudioFrame) -> bytes:
        # The filters need no timestamps, and broken ones would only confuse them.
        frame.pts = None
        self._source.push(frame)
        return self._pull()

    def drain(self) -> bytes:
        """What the resampler still holds. Nothing can be pushed afterwards."""
        self._source.push(None)
        return self._pull()

    def _pull(self) -> bytes:
        samples = bytearray()
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return bytes(samples)
            samples += memoryview(frame.planes[0])[: frame.samples * self.width]  # type: ignore[attr-defined]


def shape(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def panning(layout: str, channels: int) -> str | None:
    """None where libav knows from the layout how to mix. One without names ("9 channels") is averaged."""
    if channels == 2:
        return "stereo|c0=0.5*c0+0.5*c1|c1=0.5*c0-0.5*c1"
    if channels > 2 and layout.endswith("channels"):
        share = f"{1 / channels:.6f}"
        return "mono|c0=" + "+".join(f"{share}*c{channel}" for channel in range(channels))
    return None
