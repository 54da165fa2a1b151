"""Pages of metrics as a Prometheus reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: str) -> list[Sample]:
    return [
        Sample(sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels, whatever others they have. 0 when there is
    none."""
    return sum(found(text, name, **labels))


def found(text: str, name: str, **labels: str) -> list[float]:
    return [one.value for one in samples(text) if one.name == name and labels.items() <= one.labels.items()]


def labels_of(texts: Iterable[str]) -> dict[str, set[str]]:
    """By name of sample: the labels its samples have."""
    known: dict[str, set[str]] = {}
    for text in texts:
        for one in samples(text):
            known.setdefault(one.name, set()).update(one.labels)
    return known
