"""Certificates for tests, made by openssl: an authority, a server and a client that it vouches for."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_DAYS = "2"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Each as `NAME.pem` with its key beside it, `NAME.key`."""

    folder: Path

    def pem(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def make_certificates(folder: Path, *authorities: str) -> Certificates:
    """For each authority a server at 127.0.0.1 and a client: `AUTHORITY-server`, `AUTHORITY-client`.

    Skips where there is no openssl.
    """
    made = Certificates(folder)
    for authority in authorities:
        _openssl("req", "-x509", *_key(made.key(authority)), *_named(authority), "-out", made.pem(authority))
        for side, alternative in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
            name = f"{authority}-{side}"
            signing = ("-CA", made.pem(authority), "-CAkey", made.key(authority))
            more = ("-addext", f"subjectAltName={alternative}", "-out", made.pem(name))
            _openssl("req", "-x509", *_key(made.key(name)), *_named(name), *signing, *more)
    return made


def _key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _named(name: str) -> tuple[str, ...]:
    return ("-subj", f"/CN={name}", "-days", _DAYS)


def _openssl(*words: str | Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        missing = "openssl is not installed"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    subprocess.run([openssl, *map(str, words)], check=True, capture_output=True)
