"""Who may use the viewer: pages that it served itself.

Any web page that is open in the same browser can send requests to this machine. So every request,
and above all the handshake of a WebSocket, must be addressed to the viewer (`Host`) and, where a
page sends it, come from a page of the viewer (`Origin`). A viewer that other machines can reach
wants a token besides, which is in the address that it prints; a browser then keeps it as a cookie.
Everything else is answered with 403, before any message.
"""

import contextlib
import hmac
import ipaddress
import re
import secrets
import socket
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Hosts that stand for all addresses of this machine, and one at which it reaches itself
ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
STRANGER = "https://stranger.invalid"
# scheme, host and port, as a browser sends them
ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?")
SECONDS = 10.0  # for the viewer to answer itself

ProcessRequest = Callable[[ServerConnection, Request], Response | None]


class Access:
    """Decides which requests a viewer at `host` takes.

    origins: more `Origin`s that its pages may have, such as a proxy's. token: what a request must
    know besides; None where only this machine can reach the viewer.
    """

    def __init__(self, host: str, origins: Sequence[str] = ()):
        self.host = host
        self.origins = frozenset(origins)
        self.token = None if is_loopback(host) else secrets.token_urlsafe(16)

    def address(self, port: int) -> str:
        """The address to open."""
        name = socket.gethostname() if self.host in ANY_ADDRESS else self.host
        query = "" if self.token is None else f"/?token={self.token}"
        return f"http://{_in_url(name)}:{port}{query}"

    def refusal(self, request: Request, ip: str, port: int) -> str | None:
        """Why a request that came to this address of the machine is refused; None if it is not."""
        hosts = self._hosts(ip, port)
        origins = {f"http://{host}" for host in hosts} | self.origins
        hosts |= {urlsplit(origin).netloc for origin in self.origins}
        host = [value.lower() for value in request.headers.get_all("Host")]
        origin = [value.lower() for value in request.headers.get_all("Origin")]
        if len(host) != 1 or host[0] not in hosts:
            return "the address is not the viewer's; --allow_origin names others"
        if origin and (len(origin) > 1 or origin[0] not in origins):
            return "the page is not the viewer's; --allow_origin names others"
        if self.token is not None and not self._knows_token(request, port):
            return "open the address that the viewer printed, with its token"
        return None

    def _hosts(self, ip: str, port: int) -> set[str]:
        names = {*LOOPBACK, self.host, ip}
        if self.token is not None:
            names.add(socket.gethostname())
        hosts = {_in_url(name.lower()) for name in names if name}
        if port == 80:  # which browsers leave out
            return hosts | {f"{host}:80" for host in hosts}
        return {f"{host}:{port}" for host in hosts}

    def _knows_token(self, request: Request, port: int) -> bool:
        told = parse_qs(request.path.partition("?")[2]).get("token", [])
        for header in request.headers.get_all("Cookie"):
            with contextlib.suppress(CookieError):
                cookie = SimpleCookie(header).get(_cookie_name(port))
                told += [cookie.value] if cookie else []
        # a stranger may send bytes that are no text
        words = [word.encode(errors="surrogateescape") for word in told]
        return any(hmac.compare_digest(word, self.token.encode()) for word in words)

    def guard(self, process_request: ProcessRequest) -> ProcessRequest:
        """What `websockets` calls before a handshake: refuses, or does what it did before."""

        def guarded(connection: ServerConnection, request: Request) -> Response | None:
            ip, port = connection.local_address[:2]
            if reason := self.refusal(request, ip, port):
                return connection.respond(HTTPStatus.FORBIDDEN, f"{reason}\n")
            response = process_request(connection, request)
            if response is not None:
                embedding = " ".join(["frame-ancestors 'self'", *sorted(self.origins)])
                response.headers["Content-Security-Policy"] = embedding
                if self.token is not None:
                    cookie = f"{_cookie_name(port)}={self.token}; HttpOnly; SameSite=Strict"
                    response.headers["Set-Cookie"] = f"{cookie}; Path=/"
            return response

        return guarded


@contextlib.contextmanager
def guarding(access: Access) -> Iterator[None]:
    """Puts a guard before the server that viser starts in this block.

    viser hands `websockets` a `process_request` of its own and lets nobody else in, so `serve` is
    another function meanwhile. `refuses_strangers` says whether it worked.
    """
    serve = websockets.asyncio.server.serve

    def serve_guarded(*args, process_request: ProcessRequest, **options):
        return serve(*args, process_request=access.guard(process_request), **options)

    websockets.asyncio.server.serve = serve_guarded
    try:
        yield
    finally:
        websockets.asyncio.server.serve = serve


def refuses_strangers(host: str, port: int) -> bool:
    """Whether the server refuses the handshake of a page that is not its own."""
    handshake = (
        f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {STRANGER}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    address = ANY_ADDRESS.get(host, host), port
    with socket.create_connection(address, SECONDS) as connection:
        connection.sendall(handshake.encode())
        return connection.makefile("rb").readline().startswith(b"HTTP/1.1 403 ")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def origin(text: str) -> str:
    """The type of `--allow_origin` for argparse."""
    parts = ORIGIN.fullmatch(text.lower())
    if not parts:
        raise ArgumentTypeError(f"{text!r} is not an origin, such as https://viewer.example:8080")
    scheme, host, port = parts.groups()
    usual = {"http": "80", "https": "443"}[scheme]  # which browsers leave out
    return f"{scheme}://{host}" + (f":{port}" if port and port != usual else "")


def _in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _cookie_name(port: int) -> str:
    return f"deepvoxels_{port}"  # cookies do not know ports
