"""The page over HTTP, for this machine alone: what it serves, and what it refuses."""

from __future__ import annotations

import errno
import json
import logging
import re
import signal
import sqlite3
import sys
import threading
import unicodedata
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harvest.annotate.desk import Desk, State
from harvest.annotate.pairs import Question
from harvest.errors import UserError
from harvest.labels.votes import ANSWERS, Pair
from harvest.learn.samples import read_parts
from harvest.report.frame import framed

HOST = "127.0.0.1"
OURS = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?")  # any other name may be a foreign page's domain
TITLE = "Which joint is nearer?"
SOURCES = "img-src 'self'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'"
LARGEST_BODY = 4096  # bytes
LONGEST_NAME = 60
LONGEST_S = 86_400.0
ICON = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke-width="3">
<circle cx="5" cy="11" r="3" stroke="#ff9f1c"/><path d="M9 2h5v5h-5z" stroke="#56b4e9"/></svg>"""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that gets no answer; the message says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        """Take the status to answer with."""
        super().__init__(why)
        self.status = status


class AnnotationServer(ThreadingHTTPServer):
    """The server of a desk's page, bound to the loopback interface and listening."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0, delay_s: float = 0.0) -> None:
        """Listen at a port, 0 for any that is free.

        Args:
            delay_s: for which the page takes no answer after a new picture.
        Raises:
            UserError: the port cannot be had.
        """
        self.desk = desk
        self.page = _page(delay_s)
        self.script = _resource("page.js")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise UserError(f"port {port} {why}; give another to --port, or 0 for any that is free") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing where a browser went away; a traceback for anything else, which is a bug of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


def serve_until_stopped(server: AnnotationServer) -> None:
    """Answer requests until the process is told to stop, by Ctrl-C or SIGTERM; from the main thread."""
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        stop.wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for number, handler in former.items():
            signal.signal(number, handler)


class _Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: a connection each, so that nothing unread is taken for another request."""

    server: AnnotationServer
    timeout = 20.0  # seconds without a byte
    server_version, sys_version = "harvest", ""

    def do_GET(self) -> None:
        """The page, its script, or a picture."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """What to ask next, after a vote or the removal of one."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are no news."""

    def _answer(self, find: Callable[[], tuple[str, bytes]]) -> None:
        status = HTTPStatus.OK
        try:
            kind, content = find()
        except Refusal as refusal:
            status, (kind, content) = refusal.status, _json({"error": str(refusal)})
        except ConnectionError:
            raise
        except sqlite3.Error as error:
            log.error("a vote could not be stored: %s", error)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            kind, content = _json({"error": f"the file of votes cannot be written: {error}"})
        except OSError as error:
            log.error("a request could not be answered: %s", error)
            status, (kind, content) = HTTPStatus.SERVICE_UNAVAILABLE, _json({"error": "the crops cannot be read"})
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _get(self) -> tuple[str, bytes]:
        self._check_host()
        address = urlsplit(self.path)
        if address.path == "/":
            return "text/html; charset=utf-8", self.server.page
        if address.path == "/page.js":
            return "text/javascript; charset=utf-8", self.server.script
        if address.path == "/favicon.ico":
            return "image/svg+xml", ICON
        if address.path == "/picture":
            fields = {name: values[0] for name, values in parse_qs(address.query).items()}
            question = self._question(fields)
            return "image/jpeg", read_parts(question.place.shard, (question.place.picture,))[0]
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self) -> tuple[str, bytes]:
        body = self._body()
        host = self._check_host()
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Refusal(HTTPStatus.FORBIDDEN, "another page may not send this")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        fields, path = _fields(body), urlsplit(self.path).path
        annotator = _annotator(fields.get("annotator"))
        if path == "/next":
            return _json(_told(self.server.desk.next(annotator)))
        if path == "/vote":
            pair = self._question(fields).pair
            return _json(_told(self.server.desk.vote(pair, annotator, _nearer(fields), _seconds(fields))))
        if path == "/undo":
            return _json(_told(self.server.desk.undo(self._question(fields).pair, annotator)))
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _body(self) -> bytes:
        """What was sent."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if len(length) > 9 or int(length) > LARGEST_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {LARGEST_BODY} bytes")
        try:
            return self.rfile.read(int(length))
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the request never ended") from None

    def _check_host(self) -> str:
        """The one Host of the request. A page of another domain that resolves to this machine calls us by that."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not OURS.fullmatch(hosts[0]):
            raise Refusal(HTTPStatus.FORBIDDEN, f"call this page by the name {HOST} or localhost")
        return hosts[0]

    def _question(self, fields: dict[str, Any]) -> Question:
        names = [fields.get(key) for key in Pair._fields]
        if not all(isinstance(name, str) for name in names):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"give {', '.join(Pair._fields)}")
        question = self.server.desk.question(Pair(*map(str, names)))
        if question is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "this pair is not asked for; the server may have been started anew")
        return question


def _page(delay_s: float) -> bytes:
    body = _resource("page.html").decode().replace("{{delay_s}}", f"{delay_s:g}")
    return framed(TITLE, body, _resource("page.css").decode(), SOURCES).encode()


def _resource(name: str) -> bytes:
    return (resources.files("harvest.annotate") / name).read_bytes()


def _json(content: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()


def _told(state: State) -> dict[str, Any]:
    """What the page is told."""
    question = state.question
    asked = question and {**question.pair._asdict(), "uv_px": question.uv_px.round(2).tolist()}
    numbers = {key: getattr(state, key) for key in ("waiting", "done", "left", "votes", "wanted")}
    return {"question": asked, "last": state.last and state.last._asdict(), **numbers}


def _fields(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body.decode())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "send a JSON object")
    return content


def _annotator(name: object) -> str:
    """A name as it is stored: composed characters, one space between words."""
    text = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    if not text.isprintable() or not 1 <= len(text) <= LONGEST_NAME:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"give your name, of up to {LONGEST_NAME} characters")
    return text


def _nearer(fields: dict[str, Any]) -> int:
    nearer = fields.get("nearer")
    if type(nearer) is not int or nearer not in ANSWERS:
        raise Refusal(HTTPStatus.BAD_REQUEST, "nearer must be -1, 0 or 1")
    return nearer


def _seconds(fields: dict[str, Any]) -> float:
    seconds = fields.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_S:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"seconds must lie from 0 to {LONGEST_S:g}")
    return float(seconds)
