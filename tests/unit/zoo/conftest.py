"""A small model published by a web server on this machine, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sqzc.zoo.manifest import FileEntry, InputEntry, ModelEntry

GRAPH = b"graph" * 100
WEIGHTS = bytes(range(256)) * 4000


@dataclass
class Served:
    """What the server has under one path, and how it gives it out."""

    data: bytes
    status: int = 200
    ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """The next answers break off after so many bytes, one entry each."""
    announces: int | None = None
    """A Content-Length other than the true one."""
    omits_length: bool = False
    content_range: str | None = None
    seen_ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request so far."""


class Server:
    """`served[path]` is what a GET of that path gives; anything else is not found."""

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{path}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        what = self.served.get(handler.path.lstrip("/"))
        if what is None:
            handler.send_error(404)
            return
        asked = handler.headers.get("Range")
        what.seen_ranges.append(asked)
        if what.status != 200:
            handler.send_error(what.status)
            return
        body, start = what.data, 0
        if asked and what.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.send_error(416)
                return
            body = body[start:]
            handler.send_response(206)
            span = f"bytes {start}-{len(what.data) - 1}/{len(what.data)}"
            handler.send_header("Content-Range", what.content_range or span)
        else:
            handler.send_response(200)
        if not what.omits_length:
            handler.send_header("Content-Length", str(len(body) if what.announces is None else what.announces))
        handler.end_headers()
        with suppress(ConnectionError):  # the client may hang up on an answer that it refuses
            handler.wfile.write(body[: what.breaks_after.pop(0)] if what.breaks_after else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.stop()


MakeEntry = Callable[..., FileEntry]


def file_entry(name: str, role: str, data: bytes, *urls: str) -> FileEntry:
    sha256, sha384 = hashlib.sha256(data).hexdigest(), hashlib.sha384(data).hexdigest()
    return FileEntry(name, role, len(data), sha256, sha384, urls)


@pytest.fixture
def tiny(server: Server) -> ModelEntry:
    """The model `tiny`: `net.pb` and `weights.pb`, at two addresses each, of which the server has the first."""
    server.served = {"a/net.pb": Served(GRAPH), "a/weights.pb": Served(WEIGHTS)}
    files = tuple(
        file_entry(name, role, data, server.url(f"a/{name}"), server.url(f"b/{name}"))
        for name, role, data in (("net.pb", "graph", GRAPH), ("weights.pb", "weights", WEIGHTS))
    )
    return ModelEntry(
        name="tiny",
        description="a model for tests",
        licence="MIT",
        licence_url="http://127.0.0.1/licence",
        input=InputEntry("x", (1, 3, 4, 4), (1.0, 2.0, 3.0), "BGR"),
        output="y",
        files=files,
        labels="names.txt",
    )


@pytest.fixture
def weights(tiny: ModelEntry) -> FileEntry:
    return tiny.files[1]


@pytest.fixture
def only_first(weights: FileEntry) -> FileEntry:
    """`weights.pb` with no second address."""
    return replace(weights, urls=weights.urls[:1])


@pytest.fixture
def served_weights(server: Server, tiny: ModelEntry) -> Served:
    return server.served["a/weights.pb"]
