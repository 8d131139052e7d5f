"""Names on hubs: a server here answers in the layout of both; only what is needed is fetched, checked, and once."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from danlu import AutoModel, BertForSequenceClassification, cli, hub
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.runs import model_folder
from tests.api import bert

COMMIT = "c0ffee" * 6 + "c0ff"
NAMES = ["hf://owner/tiny", "modelscope://owner/tiny.v1"]


class Server(ThreadingHTTPServer):
    """The files of one model; what goes wrong is set by a test."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.told: list[tuple[str, str]] = []  # (host, Authorization) of every request
        self.status = 0  # of the listing
        self.cut = 0  # so many answers break off in the middle
        self.spoilt = ""  # the file that comes with other bytes
        self.without_range = False
        self.elsewhere = False  # large files lie on another host
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.other = f"http://localhost:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is part of the test."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts, server = urlsplit(self.path), self.server
        server.told.append((self.headers["Host"], self.headers.get("Authorization", "")))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        place = unquote(parts.path)
        if place.startswith("/api/models/owner/tiny/revision/"):
            assert query in ({"blobs": "true"}, {})  # hf's own library asks without
            self._listing(
                {"id": "owner/tiny", "sha": COMMIT, "siblings": [_sibling(*each) for each in server.files.items()]}
            )
        elif place == f"/api/models/owner/tiny/tree/{COMMIT}":  # hf's own library from 2.0 on
            self._listing([_leaf(*each) for each in server.files.items()])
        elif place == "/api/v1/models/owner/tiny.v1/repo/files":
            assert query["Recursive"].lower() == "true"
            listed = [{"Path": "onnx", "Type": "tree", "Size": 0}, *(_listed(*each) for each in server.files.items())]
            self._listing({"Code": 200, "Data": {"Files": listed}})
        elif place.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            self._file(place.removeprefix(f"/owner/tiny/resolve/{COMMIT}/"))
        elif place == "/api/v1/models/owner/tiny.v1/repo":
            self._file(query["FilePath"])
        elif place.startswith("/cdn/"):
            self._bytes(place.removeprefix("/cdn/"))
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        """What hf's own library asks of each file before it fetches it."""
        name = unquote(urlsplit(self.path).path).removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
        told = _sibling(name, self.server.files[name])
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{told.get("lfs", {}).get("sha256") or told["blobId"]}"')
        self.send_header("Content-Length", str(told["size"]))
        self.end_headers()

    def _listing(self, table: Any) -> None:
        self.server.asked["list"] += 1
        if self.server.status:
            self.send_error(self.server.status)
            return
        body = json.dumps(table).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str) -> None:
        self.server.asked[name] += 1
        if self.server.elsewhere and name.endswith(".safetensors"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.other}/cdn/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._bytes(name)

    def _bytes(self, name: str) -> None:
        server, body = self.server, self.server.files[name]
        if name == server.spoilt:
            body = body[:-1] + bytes([body[-1] ^ 1])
        begin, given = 0, self.headers.get("Range", "")
        if given and not server.without_range:
            server.ranges.append(given)
            begin = int(given.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        rest = body[begin:]
        if name.endswith(".safetensors") and server.cut:
            server.cut -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)


def _sibling(name: str, body: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    told = {"rfilename": name, "size": len(body), "blobId": git}
    large = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 135}
    return told | ({"lfs": large} if name.endswith(".safetensors") else {})


def _leaf(name: str, body: bytes) -> dict[str, Any]:
    told = _sibling(name, body)
    large = {"lfs": {"oid": told["lfs"]["sha256"], "size": len(body), "pointerSize": 135}} if "lfs" in told else {}
    return {"type": "file", "oid": told["blobId"], "size": len(body), "path": name} | large


def _listed(name: str, body: bytes) -> dict[str, Any]:
    return {"Path": name, "Type": "blob", "Size": len(body), "Sha256": hashlib.sha256(body).hexdigest()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = bert.folder(tmp_path_factory.mktemp("hub") / "tiny")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    found["1_Pooling/config.json"] = b"{}"
    return found | {"pytorch_model.bin": b"a pickle", "README.md": b"words", "onnx/model.onnx": b"another form"}


@pytest.fixture
def server(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(dict(files))
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", made.url + "/")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(hub, "_FOUND", {})
    yield made
    made.shutdown()
    made.server_close()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process would know."""
    monkeypatch.setattr(hub, "_FOUND", {})


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_needed_is_fetched_and_only_once(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = hub.local(name)
    assert folder.is_relative_to(tmp_path)
    for path in ("config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        assert (folder / path).read_bytes() == server.files[path]
    for path in ("pytorch_model.bin", "README.md", "onnx/model.onnx"):
        assert not server.asked[path]
    before = Counter(server.asked)
    assert hub.local(name) == folder
    assert server.asked == before, "one process asks once"
    forget(monkeypatch)
    assert hub.local(name) == folder
    assert server.asked - before == Counter(list=1), "the next one asks only whether something is new"
    assert not list(tmp_path.rglob("*.incomplete"))


def test_the_cache_is_that_of_the_hubs_own_library(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    folder = hub.local(NAMES[0])
    found = huggingface_hub.snapshot_download("owner/tiny", cache_dir=tmp_path / "hf" / "hub", local_files_only=True)
    assert Path(found) == folder
    assert (folder / "model.safetensors").is_symlink()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert hub.local(NAMES[0]).is_relative_to(tmp_path / "elsewhere")
    assert hub.local(NAMES[1]) == tmp_path / "modelscope" / "models" / "owner--tiny.v1" / "snapshots" / "master"


@pytest.mark.parametrize("place", ["models/owner/tiny___v1", "hub/models/owner/tiny___v1"])
def test_what_an_older_library_of_modelscope_left_is_used_on(server: Server, place: str, tmp_path: Path) -> None:
    older = tmp_path / "modelscope" / place
    older.mkdir(parents=True)
    (older / "config.json").write_bytes(server.files["config.json"])
    assert hub.local(NAMES[1]) == older
    assert not server.asked["config.json"]


@pytest.mark.parametrize("name", NAMES)
def test_the_hubs_own_library_takes_this_server_for_its_hub(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server would only be what we believe a hub to be; what one has fetched the other finds."""
    module = "huggingface_hub" if name.startswith("hf") else "modelscope"
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    fetch = f"from {module} import snapshot_download as fetch; print(fetch({name.partition('://')[2]!r}))"
    done = subprocess.run([sys.executable, "-c", fetch], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    theirs = Path(done.stdout.strip().splitlines()[-1])
    assert {n: (theirs / n).read_bytes() for n in server.files} == server.files
    before = Counter(server.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    assert hub.local(name) == theirs
    assert server.asked - before == Counter(list=1), "nothing is fetched again"


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_connection_goes_on_from_where_it_broke(server: Server, name: str) -> None:
    server.cut = 2
    folder = hub.local(name)
    assert (folder / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    half = len(server.files["model.safetensors"]) // 2
    assert server.ranges[0] == f"bytes={half}-"


def test_a_server_that_cannot_go_on_begins_anew(server: Server) -> None:
    server.cut, server.without_range = 1, True
    assert (hub.local(NAMES[0]) / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    assert not server.ranges


def test_a_connection_that_always_breaks_is_said_and_gone_on_from(server: Server) -> None:
    server.cut = 99
    with pytest.raises(UserError) as caught:
        hub.local(NAMES[0])
    assert caught.value.code == "E347"
    server.cut = 0
    assert (hub.local(NAMES[0]) / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    assert server.asked["model.safetensors"] == hub._TRIES + 1
    assert len(server.ranges) == hub._TRIES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoilt", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_hub_says_are_refused(server: Server, name: str, spoilt: str, tmp_path: Path) -> None:
    server.spoilt = spoilt
    with pytest.raises(UserError, match="sha") as caught:
        hub.local(name)
    assert caught.value.code == "E343"
    assert not [path for path in tmp_path.rglob("*") if path.name == spoilt or path.suffix == ".incomplete"]
    server.spoilt = ""
    assert (hub.local(name) / spoilt).read_bytes() == server.files[spoilt]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_that_is_not_given_is_said(server: Server, name: str, status: int) -> None:
    server.status = status
    with pytest.raises(UserError, match=str(status)) as caught:
        hub.local(name)
    assert caught.value.code == "E344"


def test_a_token_is_told_to_the_hub_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.elsewhere = True
    folder = hub.local(NAMES[0])
    assert (folder / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    hosts = {host.partition(":")[0]: token for host, token in server.told}
    assert hosts == {"127.0.0.1": "Bearer secret", "localhost": ""}


@pytest.mark.parametrize("name", NAMES)
def test_a_hub_that_cannot_be_reached(server: Server, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for key in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"model\.safetensors") as caught:
        hub.local(name)
    assert caught.value.code == "E342"
    for key in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(key, server.url)
    folder = hub.local(name)
    for key in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    assert hub.local(name) == folder
    assert "cannot be asked" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_offline_asks_nobody(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        hub.local(name)
    assert caught.value.code == "E342"
    assert not server.asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = hub.local(name)
    asked = server.asked.total()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.local(name) == folder
    assert server.asked.total() == asked


def test_weights_in_several_files_come_with_their_index(server: Server) -> None:
    whole = server.files.pop("model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    server.files |= dict.fromkeys(index["weight_map"].values(), whole)
    server.files["model.safetensors.index.json"] = json.dumps(index).encode()
    folder = hub.local(NAMES[0])
    assert all((folder / name).exists() for name in index["weight_map"].values())
    del server.files["model.safetensors.index.json"]
    with pytest.raises(UserError, match=r"pytorch_model\.bin") as caught:
        hub.local(NAMES[1])
    assert caught.value.code == "E345"


def test_what_is_on_this_machine_never_touches_the_network(server: Server, tmp_path: Path) -> None:
    for path in ("owner/tiny", tmp_path, "hf", "./hf:x"):
        assert hub.named(path) is None
        assert hub.local(path) == Path(path)
    assert str(hub.named(Path("hf://owner/tiny@v1.0"))) == "hf://owner/tiny@v1.0", "a Path has one slash"
    with pytest.raises(UserError) as caught:
        hub.named("hf://a/b/c")
    assert caught.value.code == "E346"
    assert not server.asked


# --- everywhere that a model folder is taken -------------------------------------------------------------


@pytest.mark.usefixtures("steady")
def test_a_name_is_taken_where_a_folder_is(server: Server, tmp_path: Path, capsys: Any) -> None:
    assert model_folder(NAMES[0]) == hub.local(NAMES[0])
    model = AutoModel.from_pretrained(NAMES[0], task="text_classification", labels=bert.LABELS)
    assert type(model) is BertForSequenceClassification
    with pytest.warns(UserWarning, match="chance"):
        model.predict("a text")
    assert cli.main(["predict", NAMES[1], "the old king"]) == 0
    recipe = f"""
task = "text_classification"
data.path = "rows.jsonl"
model.base = "{NAMES[0]}"
model.context = 64
train = {{ steps = 2, precision = "fp32", batch_tokens = 128 }}
system.threads = 1
"""
    bert.jsonl(tmp_path / "rows.jsonl", bert.rows(30))
    (tmp_path / "recipe.toml").write_text(recipe, "utf-8")
    life = Life(load_recipe(tmp_path / "recipe.toml"))
    trained = "finetune"
    run = life.run(Silent(), trained)
    saved = (run.folders[trained] / "danlu.toml").read_text("utf-8")
    assert f'base = "{NAMES[0]}"' in saved
    assert [state.status for state in Life(load_recipe(tmp_path / "recipe.toml")).states(trained)] == ["cached"] * 3
