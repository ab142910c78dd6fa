"""Who may ask: hosts, tokens, and pages of elsewhere. ASGI middleware around the application."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CONTENT_POLICY", "CancelWhenGone", "Guard"]

# What the page may load: what it is shipped with, what it asks the API for, and what it makes.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
_API = "/api/"


class Guard:
    """Refuses what should not be asked, and forbids browsers what the page does not need.

    Parameters
    ----------
    app
        The application.
    hosts
        Names by which the server may be addressed, against DNS rebinding; None: any.
    token
        What requests to the API must bring as ``Authorization: Bearer``; None: nothing. The page
        itself is no secret.
    framed
        Whether pages of elsewhere, such as notebooks, may show the page in a frame.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = None,
        token: str | None = None,
        framed: bool = False,
    ) -> None:
        self._app = app
        # A host that is no name is none of them.
        self._hosts = None if hosts is None else set(map(_hostname, hosts)) - {None}
        self._token = token
        ancestors = "*" if framed else "'self'"
        self._headers = [
            (b"content-security-policy", f"{CONTENT_POLICY}; frame-ancestors {ancestors}".encode()),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 4xx."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        refusal = next(self._refusals(scope), None)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, detail = refusal
        headers = [(b"content-type", b"application/json")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await guarded({"type": "http.response.body", "body": orjson.dumps({"detail": detail})})

    def _refusals(self, scope: Scope) -> Iterator[tuple[int, str]]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            yield 400, f"the server is not addressed by the name {host!r}: see --allowed-hosts"
        if not scope["path"].startswith(_API):
            return
        if self._token is not None:
            kind, _, given = headers.get(b"authorization", "").partition(" ")
            # Of bytes: of texts it takes ASCII only.
            if kind.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode("latin-1"), self._token.encode()
            ):
                yield 401, "the token is missing or wrong: give Authorization: Bearer TOKEN"
        # With a token nobody else can ask in the user's name. Else the browser tells who asks.
        elif headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin") or (
            b"origin" in headers and urlsplit(headers[b"origin"]).netloc != host
        ):
            yield 403, "pages of other sites may not ask"


def _hostname(host: str) -> str | None:
    """Return a name, or an address, without a port, and as it compares."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class CancelWhenGone:
    """Cancels what is done for a request when its client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # One message at a time: who sends much is to wait until it is read.
        messages: asyncio.Queue[Message] = asyncio.Queue(1)
        work = asyncio.ensure_future(self._app(scope, messages.get, send))

        async def listen() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                await messages.put(message)
            work.cancel()

        listener = asyncio.ensure_future(listen())
        try:
            await work
        except asyncio.CancelledError:
            gone = listener.done() and not listener.cancelled()
            work.cancel()  # where it is this one that was cancelled
            await asyncio.wait([work])
            if not gone:
                raise
        finally:
            listener.cancel()
