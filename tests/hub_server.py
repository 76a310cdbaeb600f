"""A small Hugging Face Hub: the folders of a directory as repositories, over HTTP.

``models/org/name`` and ``datasets/org/name`` are repositories with one revision, `COMMIT`, named
``main`` too. One whose name starts with ``gated`` is listed for all, and its files are for nobody;
one that starts with ``private`` is there for `TOKEN` only. Processes with ``HF_ENDPOINT`` set to
`HubServer.address` as they start take it for the Hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_valid"


@dataclass
class HubServer:
    """The server of a directory, within a ``with`` block.

    Attributes:
        root: Directory with ``models`` and ``datasets``.
        asked: Method and path of every request, in order.
    """

    root: Path
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        server = self

        class Handler(_Handler):
            hub = server  # type: ignore[assignment]

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """Value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables of a process that uses this Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in {"", TOKEN}:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif path == "/":
            self._send(200, b"hub")
        elif path == "/api/whoami-v2":
            self._json({"type": "user", "name": "someone"}) if token else self._refuse(401, "", "")
        elif path.startswith("/api/"):
            kind, owner, name, *rest = path.removeprefix("/api/").split("/")
            self._api(kind, f"{owner}/{name}", rest, body, token)
        else:
            parts = path.strip("/").split("/")
            kind = parts.pop(0) if parts[0] in {"datasets", "models"} else "models"
            owner, name, _, revision, *file = parts
            self._resolve(kind, f"{owner}/{name}", revision, "/".join(file), token)

    def _folder(self, kind: str, name: str, revision: str, token: str) -> Path | None:
        folder = self.hub.root / kind / name
        if not folder.is_dir() or ("/private" in name and not token):
            self._refuse(401 if not token else 404, "RepoNotFound", "Repository not found")
        elif revision not in {"main", COMMIT}:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return folder
        return None

    def _api(self, kind: str, name: str, rest: list[str], body: str, token: str) -> None:
        what, revision, *below = [*rest, *["", "main"][len(rest) :]]
        folder = self._folder(kind, name, revision or "main", token)
        if folder is None:
            return
        entries = [_entry(folder, path) for path in sorted(folder.rglob("*"))]
        if what == "auth-check":
            if "/gated" in name:
                self._refuse(403, "GatedRepo", "Access to the repository is restricted")
            else:
                self._send(200, b"{}")
        elif what == "paths-info":
            asked = json.loads(body)["paths"]  # as JSON
            self._json([entry for entry in entries if entry["path"] in asked])
        elif what == "tree":
            start = "/".join(below)
            inside = [e for e in entries if not start or e["path"].startswith(f"{start}/")]
            missing = start and not (folder / start).exists()
            self._refuse(404, "EntryNotFound", start) if missing else self._json(inside)
        else:
            files = [entry for entry in entries if entry["type"] == "file"]
            self._json(
                {
                    "id": name,
                    "sha": COMMIT,
                    "private": "/private" in name,
                    "gated": "manual" if "/gated" in name else False,
                    "tags": [],
                    "downloads": 0,
                    "siblings": [
                        {"rfilename": e["path"], "size": e["size"], "blobId": e["oid"]}
                        for e in files
                    ],
                }
            )

    def _resolve(self, kind: str, name: str, revision: str, file: str, token: str) -> None:
        folder = self._folder(kind, name, revision, token)
        if folder is None:
            return
        if "/gated" in name:
            self._refuse(403, "GatedRepo", "Access to the repository is restricted")
        elif not (folder / file).is_file():
            self._refuse(404, "EntryNotFound", f"Entry not found: {file}")
        else:
            content = (folder / file).read_bytes()
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if part is None:
                self._send(200, content, headers)
                return
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    relative = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": relative, "oid": "0" * 40, "size": 0}
    content = path.read_bytes()
    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": relative, "size": len(content), "oid": digest}
