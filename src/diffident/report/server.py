"""The page of `diffident serve`: HTTP on this machine only, for the one who has its address.

Only 127.0.0.1 is bound. A request must name it as its host, which a page elsewhere that has rebound its own name
cannot; and it must have the token of this run, from the address that was printed or the cookie that it sets, which
other users of the machine and other pages do not have. What changes something must be JSON, which no form can send.
"""

import json
import secrets
from functools import partial
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from diffident.errors import InputError
from diffident.report.building import Report
from diffident.report.live import LiveSamples
from diffident.report.marks import marks_csv
from diffident.report.page import as_json, render_page

_MOST_BYTES = 65_536
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class PageServer(ThreadingHTTPServer):
    """Serves one report; `address` is what to open.

    Args:
        report: Verdict and plots.
        samples: Samples on demand, or None.
        port: 0 takes any that is free.
    """

    daemon_threads = True

    def __init__(self, report: Report, samples: LiveSamples | None, port: int = 0):
        self.report = report
        self.samples = samples
        self.token = secrets.token_urlsafe(32)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self.server_address[1]

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """The cookie's name: servers on other ports of this machine have others."""
        return f"diffident-{self.port}"

    def page(self) -> str:
        """The page as it is now, marks included."""
        about = {} if self.samples is None else {"live": self.samples.about()}
        return render_page(self.report, connect="'self'", extra=about)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"
    timeout = 30
    # The head of an answer and its body are two writes; the body must not wait until the head is acknowledged (40 ms).
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The page, rows, a sample, its neighbours or its picture."""
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if not self._is_here():
            return
        if url.path == "/" and self._is_token(query.get("token", "")):
            # The token leaves the address, and so the history and what is copied from it.
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
        elif self._is_known():
            self._answer(partial(self._get, url.path, query))

    def do_POST(self) -> None:
        """A selection or a mark."""
        if not (self._is_here() and self._is_known()):
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdigit() or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._send(400, b"JSON of at most 64 KiB, please.", "text/plain")
            return
        body = self.rfile.read(int(length))
        self._answer(partial(self._post, urlsplit(self.path).path, body))

    def _get(self, path: str, query: dict[str, str]) -> tuple[bytes, str] | None:
        samples = self.server.samples
        if path == "/":
            return self.server.page().encode("utf-8"), "text/html; charset=utf-8"
        if samples is None:
            return None
        if path in ("/thumbnail", "/picture"):
            picture = samples.picture(_whole(query, "row"), path == "/picture")
            return None if picture is None else (picture, "image/webp")
        if path == "/marks.csv":
            text = marks_csv(samples.audit.suspects, samples.marks.rows())
            return text.encode("utf-8", "replace"), "text/csv; charset=utf-8"
        if path == "/rows":
            return _json(samples.rows(query.get("view", ""), _whole(query, "start"), _whole(query, "end")))
        if path == "/sample":
            return _json(samples.detail(_whole(query, "row")))
        if path == "/neighbours":
            return _json(samples.neighbours(_whole(query, "row")))
        return None

    def _post(self, path: str, body: bytes) -> tuple[bytes, str] | None:
        samples = self.server.samples
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise InputError("`body` must be JSON; got something else. Reload the page.") from None
        if samples is not None and path == "/select":
            return _json(samples.select(content))
        if samples is not None and path == "/marks":
            if not isinstance(content, dict) or type(content.get("row")) is not int:
                raise InputError("`row` must be a whole number; got another. Reload the page.")
            samples.mark(content["row"], content.get("marked") is True)
            return _json({})
        return None

    def _answer(self, work: Any) -> None:
        try:
            found = work()
        except InputError as error:
            self._send(400, str(error).encode("utf-8", "replace"), "text/plain; charset=utf-8")
            return
        if found is None:
            self._send(404, b"Nothing here.", "text/plain")
            return
        content, kind = found
        self._send(200, content, kind)

    def _is_here(self) -> bool:
        """Whether the request names this machine as its host."""
        known = {f"{name}:{self.server.port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get("Host", "") in known:
            return True
        self._refuse("Open the address that `diffident serve` printed.")
        return False

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "replace"), self.server.token.encode())

    def _is_known(self) -> bool:
        """Whether the request has the token, in its cookie."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return True
        self._refuse("Open the whole address that `diffident serve` printed, with its token.")
        return False

    def _refuse(self, text: str) -> None:
        self.close_connection = True
        self._send(403, text.encode(), "text/plain; charset=utf-8")

    def _send(self, code: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        cache = "private, max-age=3600" if kind == "image/webp" else "no-store"
        self.send_response(code)
        every = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": cache, **_HEADERS}
        for name, value in (every | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for the address."""


def _json(value: Any) -> tuple[bytes, str]:
    return str(as_json(value)).encode("utf-8"), "application/json"


def _whole(query: dict[str, str], name: str) -> int:
    text = query.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InputError(f"`{name}` must be a whole number; got another. Reload the page.")
    return int(text)
