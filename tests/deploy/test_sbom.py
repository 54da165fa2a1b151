"""The bill of materials names all that is locked, with its hashes (T28)."""

import re

import pytest

from deploy.lock import wanted
from deploy.sbom import IMAGES, bill_of, packages


@pytest.mark.parametrize("image", IMAGES)
def test_a_bill_holds_each_package_once_with_its_hashes(image: str) -> None:
    bill = bill_of(image)

    names = [component["bom-ref"] for component in bill["components"]]
    assert len(names) == len(set(names)) > 50
    assert all(component["hashes"] for component in bill["components"])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["dependencies"][0]["dependsOn"] == names


@pytest.mark.parametrize("image", IMAGES)
def test_what_the_project_asks_for_is_in_the_bill(image: str) -> None:
    locked = {(package.purl.split("/")[1].split("@")[0], package.version) for package in packages(image)}

    for line in wanted(image):
        name, version = re.sub(r"\[[^\]]*\]", "", line).split("==")
        assert (re.sub(r"[-_.]+", "-", name).lower(), version) in locked, line


def test_a_bill_is_the_same_each_time() -> None:
    assert bill_of("api") == bill_of("api")
    assert bill_of("api")["serialNumber"] != bill_of("worker")["serialNumber"]
