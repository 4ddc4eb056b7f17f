"""A hub of one repository on this machine, which records what is asked of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """The running server.

    Args:
        url: its address, for ``HF_ENDPOINT``.
        downloads: names of the files whose content was sent, in order.
        tokens: what the requests had for a token.
    """

    url: str
    downloads: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def hub_server(folder: Path, token: str | None = None) -> Iterator[HubServer]:
    """Serve a folder as the repository ``team/model``.

    Args:
        folder: files of the repository.
        token: token without which every request is refused, as for a gated model.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, *, send: bool) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            server.tokens.append(given)
            if token and given != token:
                self._reply(401, b"{}", {"X-Error-Code": "GatedRepo"}, send)
                return
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/team/model/tree/"):
                entries = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                    for file in sorted(folder.iterdir())
                ]
                self._reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, send)
                return
            if path.startswith("/api/models/team/model"):
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                body = json.dumps({"id": "team/model", "sha": COMMIT, "siblings": files}).encode()
                self._reply(200, body, {"Content-Type": "application/json"}, send)
                return
            file = folder / path.rpartition("/")[2]
            if not path.startswith("/team/model/resolve/") or not file.is_file():
                self._reply(404, b"{}", {"X-Error-Code": "EntryNotFound"}, send)
                return
            body = file.read_bytes()
            if send:
                server.downloads.append(file.name)
            etag = hashlib.sha256(body).hexdigest()
            self._reply(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, send)

        def _reply(self, status: int, body: bytes, headers: dict[str, str], send: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if send:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server = HubServer(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
