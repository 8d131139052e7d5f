"""Models by their names on a hub, hf://owner/name or modelscope://owner/name: the files that are needed, checked, once.

They lie where the hub's own library keeps them, so that what one of them has fetched the other finds; environment
variables mean what they mean there. Only a name with a scheme ever touches the network.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from danlu import files
from danlu.errors import UserError
from danlu.messages import text
from danlu.messages.reasons import because

SCHEMES = ("hf", "modelscope")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"  # beside another model's weights
SMALL = (
    "config.json", "generation_config.json", "danlu.toml", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "preprocessor_config.json",
    "chat_template.jinja", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "target.spm",
    "adapter_config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
)  # fmt: skip
_NAME = re.compile(r"(hf|modelscope):/{1,2}([\w.\-]+(?:/[\w.\-]+)?)(?:@([\w.\-/]+))?")  # Path makes one slash of two
_TRUE = {"1", "ON", "YES", "TRUE"}
_TRIES, _PIECE, _TOLD = 4, 1 << 20, 5e6  # attempts at a file; bytes read at once; bytes of a file that is announced
_BROKEN = (OSError, urllib.error.URLError, EOFError)
_FOUND: dict[tuple[str, str, Path], Path] = {}


@dataclass(frozen=True)
class Remote:
    """A file of a model on a hub."""

    path: str
    url: str
    size: int
    digest: str = ""  # sha256 in hex, or with "git:" before it git's own sha1
    blob: str = ""  # what the hub's own cache calls it


@dataclass(frozen=True)
class Name:
    """hf://owner/name@revision in its parts; `revision` is "" where none is given."""

    scheme: str
    model: str
    revision: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.model}" + (f"@{self.revision}" if self.revision else "")


def named(path: str | Path) -> Name | None:
    """The name on a hub that a path is; None for a path on this machine.

    Raises:
        UserError: E346, it begins as one and is none.
    """
    given = str(path)
    if not given.startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
        return None
    match = _NAME.fullmatch(given)
    if match is None:
        raise UserError("E346", found=given)
    return Name(match[1], match[2], match[3] or "")


def local(path: str | Path) -> Path:
    """The folder of a model: the path itself, or where the files of a name on a hub lie, fetched if need be.

    Raises:
        UserError: E342 the hub cannot be reached and nothing was fetched earlier, E343 a file came other than the hub
            says, E344 there is no such model, or it is not for everybody, E345 it has no safetensors, E346, E347 the
            connection broke again and again.
    """
    name = named(path)
    if name is None:
        return Path(path)
    hub = _HUBS[name.scheme](name)
    if _offline():
        return _kept(hub, name, "HF_HUB_OFFLINE")
    asked = (str(name), hub.endpoint, hub.root)
    if asked not in _FOUND:  # one process sees one state of a hub
        try:
            found = hub.listed()
        except _BROKEN as error:
            return _kept(hub, name, because(error))
        _FOUND[asked] = hub.fetched(_needed(name, found))
    return _FOUND[asked]


def _offline() -> bool:
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in _TRUE


def _kept(hub: "_Hub", name: Name, reason: str) -> Path:
    """What was fetched earlier, where the hub cannot be asked.

    Raises:
        UserError: E342, that is not enough to open the model.
    """
    folder = hub.kept()
    if folder is not None and _whole(folder):
        if reason != "HF_HUB_OFFLINE":
            _say(text("hub.kept", name=name, reason=reason, folder=folder))
        return folder
    listed = [SMALL[0], f"{WEIGHTS} ({INDEX}, model-*.safetensors)", "tokenizer.json, tokenizer_config.json",
              "vocab.txt | vocab.json, merges.txt | *.model"]  # fmt: skip
    raise UserError("E342", name=name, endpoint=hub.endpoint, reason=reason, evidence=listed, page=hub.page)


def _whole(folder: Path) -> bool:
    """Whether all weights are there."""
    if (folder / ADAPTER).exists() or (folder / WEIGHTS).exists():
        return True
    return (folder / INDEX).exists() and all((folder / part).exists() for part in _parts(folder / INDEX))


def _parts(index: Path) -> list[str]:
    try:
        return sorted({str(each) for each in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError("E301", path=index, reason=because(error)) from error


def _needed(name: Name, found: Sequence[Remote]) -> list[Remote]:
    """The files to open the model with: no other format of its weights, no pictures."""
    by_path = {each.path: each for each in found}
    weights = [each for each in (WEIGHTS, INDEX, ADAPTER) if each in by_path][:1]
    if not weights:
        others = [each.path for each in found if each.path.endswith((".bin", ".pt", ".h5", ".msgpack", ".gguf"))]
        raise UserError("E345", name=name, found=", ".join(others[:5]) or "-")
    parts = [each for each in by_path if re.fullmatch(r"model-\d+-of-\d+\.safetensors", each)]
    wanted = [*SMALL, *weights, *(parts if weights == [INDEX] else [])]
    return [by_path[path] for path in wanted if path in by_path]


# --- hubs ------------------------------------------------------------------------------------------------


class _Hub(ABC):
    """Where a hub answers, and where its own library keeps what it fetched."""

    endpoint: str
    page: str
    root: Path

    def __init__(self, name: Name):
        self.name = name

    @abstractmethod
    def listed(self) -> list[Remote]:
        """All files of the model. Raises OSError where the hub cannot be reached, UserError E344."""

    @abstractmethod
    def kept(self) -> Path | None:
        """The folder of what was fetched earlier."""

    @abstractmethod
    def fetched(self, wanted: Sequence[Remote]) -> Path:
        """The folder with the files, once all are there."""

    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {}

    def _asked(self, url: str) -> Any:
        try:
            with _opened(url, self.headers()) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403, 404):
                raise UserError("E344", name=self.name, endpoint=self.endpoint, status=error.code) from error
            raise
        except ValueError as error:
            raise OSError(because(error)) from error


class _HuggingFace(_Hub):
    """models--owner--name/{refs,blobs,snapshots}: a snapshot's files are links to blobs."""

    def __init__(self, name: Name):
        super().__init__(name)
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        self.revision = name.revision or "main"
        self.page = f"{self.endpoint}/{name.model}/tree/{self.revision}"
        self.root = _hf_cache() / f"models--{name.model.replace('/', '--')}"
        self.commit = ""

    def headers(self) -> dict[str, str]:
        token = os.environ.get("HF_TOKEN", "").strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def listed(self) -> list[Remote]:
        asked = f"{self.endpoint}/api/models/{self.name.model}/revision/{quote(self.revision, safe='')}?blobs=true"
        told = self._asked(asked)
        self.commit = str(told["sha"])
        return [self._remote(each) for each in told["siblings"]]

    def _remote(self, told: Mapping[str, Any]) -> Remote:
        path, large = told["rfilename"], told.get("lfs") or {}
        digest = str(large.get("sha256", "")) or f"git:{told['blobId']}"
        url = f"{self.endpoint}/{self.name.model}/resolve/{self.commit}/{quote(path)}"
        return Remote(path, url, int(told.get("size") or 0), digest, digest.removeprefix("git:"))

    def kept(self) -> Path | None:
        if (self.root / "snapshots" / self.revision).is_dir():
            return self.root / "snapshots" / self.revision
        ref = self.root / "refs" / self.revision
        return self.root / "snapshots" / ref.read_text("utf-8").strip() if ref.is_file() else None

    def fetched(self, wanted: Sequence[Remote]) -> Path:
        folder = self.root / "snapshots" / self.commit
        for each in wanted:
            blob, place = self.root / "blobs" / each.blob, folder / each.path
            if not place.exists():
                fetch(each, blob, self.headers())
                place.parent.mkdir(parents=True, exist_ok=True)
                _linked(place, blob)
        if self.revision != self.commit:
            files.write_text(self.root / "refs" / self.revision, self.commit)
        return folder


class _ModelScope(_Hub):
    """models/owner--name/snapshots/revision; what its library up to 1.37 left, models/owner/name, is used on."""

    def __init__(self, name: Name):
        super().__init__(name)
        self.endpoint = _modelscope()
        self.revision = name.revision or "master"
        self.page = f"{self.endpoint}/models/{name.model}/files"
        cache = Path(os.environ.get("MODELSCOPE_CACHE", "").strip() or "~/.cache/modelscope").expanduser()
        owner, _, model = name.model.rpartition("/")
        old = Path("models") / (owner or "modelscope") / model.replace(".", "___")
        new = cache / "models" / name.model.replace("/", "--") / "snapshots" / self.revision
        self.root = next((each for each in (cache / old, cache / "hub" / old) if any(each.glob("*"))), new)

    def headers(self) -> dict[str, str]:
        token = os.environ.get("MODELSCOPE_API_TOKEN", "").strip()
        return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}

    def listed(self) -> list[Remote]:
        base = f"{self.endpoint}/api/v1/models/{self.name.model}/repo"
        told = self._asked(f"{base}/files?Revision={quote(self.revision, safe='')}&Recursive=true")
        if told.get("Code", 200) != 200:
            raise UserError("E344", name=self.name, endpoint=self.endpoint, status=told["Code"])
        blobs = [each for each in told["Data"]["Files"] if each.get("Type") != "tree"]
        url = f"{base}?Revision={quote(self.revision, safe='')}&FilePath="
        return [Remote(each["Path"], url + quote(each["Path"], safe=""), int(each["Size"]), each.get("Sha256") or "")
                for each in blobs]  # fmt: skip

    def kept(self) -> Path | None:
        return self.root if self.root.is_dir() else None

    def fetched(self, wanted: Sequence[Remote]) -> Path:
        for each in wanted:
            place = self.root / each.path
            if not place.exists() or _wrong(each, place):
                fetch(each, place, self.headers())
        return self.root


_HUBS: Mapping[str, type[Any]] = {"hf": _HuggingFace, "modelscope": _ModelScope}


def _hf_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    named_ = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named_ or Path(home) / "hub").expanduser()


def _modelscope() -> str:
    """MODELSCOPE_ENDPOINT, or MODELSCOPE_DOMAIN, which has no scheme."""
    said = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    return (said if "://" in said else f"https://{said}").rstrip("/")


def _linked(place: Path, blob: Path) -> None:
    """The file of a snapshot: a link to its blob, or where there are no links the blob itself."""
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:
        os.replace(blob, place)


# --- files -----------------------------------------------------------------------------------------------


def fetch(remote: Remote, place: Path, headers: Mapping[str, str]) -> None:
    """Fetch a file to its place, on from what is there of it, and compare it with what the hub says of it.

    Raises:
        UserError: E347 the connection broke several times in a row, E343 it came other than the hub says.
    """
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.incomplete")
    with files.locked(place.with_name(f"{place.name}.lock")):
        if remote.size > _TOLD:
            size, host = f"{remote.size / 1e6:,.0f}", urlsplit(remote.url).netloc
            _say(text("hub.fetching", name=remote.path, size=size, host=host))
        _resumed(remote, part, headers)
        if reason := _wrong(remote, part):
            part.unlink()
            raise UserError("E343", path=remote.path, url=remote.url, reason=reason)
        files.adopt(part, place)


def _resumed(remote: Remote, part: Path, headers: Mapping[str, str]) -> None:
    """Read until all is there, over broken connections."""
    for attempt in range(_TRIES):
        before = part.stat().st_size if part.exists() else 0
        if remote.size and before > remote.size:
            part.unlink()
            before = 0
        if remote.size and before == remote.size:
            return
        try:
            _read(remote.url, part, before, headers)
            if not remote.size or part.stat().st_size >= remote.size:
                return
            reason = f"{part.stat().st_size:,} / {remote.size:,}"
        except _BROKEN as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code == 416:  # nothing comes after what is there
                    part.unlink(missing_ok=True)
            reason = because(error)
        if attempt == _TRIES - 1:
            host = "{0.scheme}://{0.netloc}".format(urlsplit(remote.url))
            raise UserError("E347", name=remote.path, host=host, reason=reason)


def _read(url: str, part: Path, before: int, headers: Mapping[str, str]) -> None:
    """Add what comes to `part`; from its beginning where the server does not go on from a place."""
    asked = {**headers, **({"Range": f"bytes={before}-"} if before else {})}
    with _opened(url, asked) as reply, part.open("ab" if reply.status == 206 else "wb") as file:
        while piece := reply.read(_PIECE):
            file.write(piece)


def _wrong(remote: Remote, place: Path) -> str:
    """How a file differs from what the hub says of it; "" where it does not."""
    size = place.stat().st_size
    if remote.size and size != remote.size:
        return f"{size:,} ≠ {remote.size:,}"
    if not remote.digest:
        return ""
    kind, _, wanted = remote.digest.rpartition(":")
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False) if kind else hashlib.sha256()
    with place.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    name = "git sha1" if kind else "sha256"
    return "" if digest.hexdigest() == wanted else f"{name} {digest.hexdigest()[:12]} ≠ {wanted[:12]}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to where a file lies, without telling another host who asks."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            for secret in ("Authorization", "Cookie"):
                made.remove_header(secret)
        return made


@contextlib.contextmanager
def _opened(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    timeout = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 10)
    request = urllib.request.Request(url, headers={"User-Agent": "danlu", **headers})
    with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as reply:
        yield reply


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
