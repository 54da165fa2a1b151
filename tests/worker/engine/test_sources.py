import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest

from shared.models import ModelSource
from worker.engine.sources import ModelUnavailable, resolve

BUNDLED = Path(__file__).parents[3] / "models" / "synthetic-en"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(?:/revision/(?P<revision>[^/]+))?")
TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Hub:
    """The hub's protocol for one repository, on loopback; notes which files were asked for."""

    repo: str
    files: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    breaks_at: str | None = None

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = path.partition("?")[0]
        for pattern, reply in ((TREE, self._tree), (API, self._info), (FILE, self._file)):
            if match := pattern.fullmatch(path):
                names = match.groupdict()
                if names["repo"] != self.repo:
                    return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
                if names["revision"] not in (None, "main", COMMIT):
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
                return reply(names)
        return 404, {}, b"{}"

    def _info(self, _names: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        siblings = [{"rfilename": name} for name in self.files]
        return _json({"id": self.repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _tree(self, _names: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return _json(
            [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in self.files.items()
            ]
        )

    def _file(self, names: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(names["path"])
        content = self.files[names["path"]]
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(content)}"'}, content


def _json(content: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(with_body=True)

        def do_HEAD(self) -> None:
            self._reply(with_body=False)

        def log_message(self, *_args: object) -> None:
            pass

        def _reply(self, *, with_body: bool) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            is_cut = self.path.endswith(str(hub.breaks_at))
            if with_body:
                self.wfile.write(body[: len(body) // 2] if is_cut else body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serves the bundled model, and beside it files that must never be fetched."""
    files = {path.name: path.read_bytes() for path in BUNDLED.iterdir() if path.is_file()}
    files |= {"pytorch_model.bin": b"pickle", "modeling.py": b"raise SystemExit", "onnx/config.json": b"{}"}
    with serving(Hub("someone/whisper", files)) as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may break."""
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def test_folder_is_used_where_it_is(folder: Path) -> None:
    checkpoint = resolve(ModelSource("m", str(folder)))

    assert checkpoint.folder == folder
    assert re.fullmatch("[0-9a-f]{12}", checkpoint.revision)


def test_folders_revision_follows_its_contents(folder: Path) -> None:
    revisions = [resolve(ModelSource("m", str(folder))).revision for _ in range(2)]
    assert revisions[0] == revisions[1]

    weights = bytearray((folder / "model.safetensors").read_bytes())
    trained = range(100_000, len(weights), 5_000)
    weights[trained.start :: trained.step] = bytes(len(trained))
    (folder / "model.safetensors").write_bytes(weights)
    revisions.append(resolve(ModelSource("m", str(folder))).revision)
    (folder / "generation_config.json").write_text("{}")
    revisions.append(resolve(ModelSource("m", str(folder))).revision)

    assert len(set(revisions)) == 3


def test_hub_model_is_fetched_at_its_commit(hub: Hub) -> None:
    checkpoint = resolve(ModelSource("m", hub.repo), hub.url)

    assert checkpoint.revision == COMMIT
    assert (checkpoint.folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_nothing_executable_is_fetched(hub: Hub) -> None:
    checkpoint = resolve(ModelSource("m", hub.repo), hub.url)

    suffixes = {path.suffix for path in checkpoint.folder.rglob("*") if not path.is_dir()}
    assert suffixes <= {".safetensors", ".json", ".txt"}
    assert {"pytorch_model.bin", "modeling.py", "onnx/config.json"}.isdisjoint(hub.asked)


def test_pinned_revision_is_used(hub: Hub) -> None:
    assert resolve(ModelSource("m", hub.repo, revision=COMMIT), hub.url).revision == COMMIT


def test_cached_model_needs_no_hub(hub: Hub) -> None:
    first = resolve(ModelSource("m", hub.repo), hub.url)

    again = resolve(ModelSource("m", hub.repo), "http://127.0.0.1:9")

    assert again == first


def test_a_fetched_model_stays_the_one_it_was(hub: Hub) -> None:
    """The hub is not asked again, so no branch can move under a running service."""
    first = resolve(ModelSource("m", hub.repo), hub.url)
    asked = len(hub.asked)

    assert resolve(ModelSource("m", hub.repo), hub.url) == first
    assert len(hub.asked) == asked


@pytest.mark.parametrize("harm", ["change", "remove", "add code", "spoil"])
def test_a_fetched_model_that_changed_is_refused_and_not_fetched_again(hub: Hub, harm: str) -> None:
    folder = resolve(ModelSource("m", hub.repo), hub.url).folder
    asked = len(hub.asked)
    weights = (folder / "model.safetensors").resolve()
    match harm:
        case "change":
            weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        case "remove":
            weights.unlink()
        case "add code":
            (folder / "modeling.py").write_text("raise SystemExit")
        case "spoil":
            (folder.parents[1] / "ananse" / "default.json").write_text('{"revision": "../../elsewhere"}')

    assert "is not as it was fetched" in complaint(ModelSource("m", hub.repo), hub.url)
    assert len(hub.asked) == asked


def test_pickles_other_programs_fetched_are_left_alone(hub: Hub) -> None:
    folder = resolve(ModelSource("m", hub.repo), hub.url).folder
    (folder / "pytorch_model.bin").write_bytes(b"pickle")

    assert resolve(ModelSource("m", hub.repo), hub.url).folder == folder


def complaint(source: ModelSource, endpoint: str | None = None) -> str:
    """What the operator reads: one sentence, without a trace."""
    with pytest.raises(ModelUnavailable) as caught:
        resolve(source, endpoint)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ":" in message, "it must say what to do"
    return message


def test_unknown_id(hub: Hub) -> None:
    assert "someone/else is not on" in complaint(ModelSource("m", "someone/else"), hub.url)


def test_unknown_revision(hub: Hub) -> None:
    assert "no revision v9" in complaint(ModelSource("m", hub.repo, revision="v9"), hub.url)


def test_unreachable_hub() -> None:
    assert "cannot be reached" in complaint(ModelSource("m", "someone/whisper"), "http://127.0.0.1:9")


def test_neither_folder_nor_id() -> None:
    assert "neither a folder nor a hub id" in complaint(ModelSource("m", "no such model"))


def test_repository_with_pickles_only() -> None:
    config = (BUNDLED / "config.json").read_bytes()
    with serving(Hub("someone/old", {"config.json": config, "pytorch_model.bin": b"pickle"})) as hub:
        assert "no model.safetensors" in complaint(ModelSource("m", hub.repo), hub.url)
        assert "pytorch_model.bin" not in hub.asked


@pytest.mark.slow
@pytest.mark.calm
def test_download_that_breaks_off(hub: Hub) -> None:
    hub.breaks_at = "model.safetensors"

    assert "could not be fetched" in complaint(ModelSource("m", hub.repo), hub.url)


def test_missing_folder() -> None:
    assert "does not exist" in complaint(ModelSource("m", "models/no-such-model"))


def test_folder_with_pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert "pickled" in complaint(ModelSource("m", str(folder)))


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()

    assert "no config.json" in complaint(ModelSource("m", str(folder)))


def test_folder_with_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")

    assert "not valid JSON" in complaint(ModelSource("m", str(folder)))


def test_adapter_without_its_base(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")

    assert "adapter" in complaint(ModelSource("m", str(folder)))


def test_other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))

    assert "not a Whisper" in complaint(ModelSource("m", str(folder)))


def test_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "lacks model-00001-of-00002.safetensors" in complaint(ModelSource("m", str(folder)))
