"""ASGI middleware for access control, security headers and cancellation."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CONTENT_POLICY", "AccessControl", "CancelOnDisconnect"]

# The page may load its own files, resources of the HTTP API, and data that its scripts create.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
_API = "/api/"


class AccessControl:
    """Middleware that rejects forbidden requests and adds security headers.

    Parameters
    ----------
    app
        The ASGI application.
    hosts
        Allowed host names of requests, a protection against DNS rebinding; None: any host.
    token
        Token that requests to the HTTP API must contain as ``Authorization: Bearer TOKEN``; None:
        no token, but cross-origin requests are rejected. The page itself needs no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = None,
        token: str | None = None,
    ) -> None:
        self._app = app
        # Invalid names are parsed as None, which is never allowed.
        self._hosts = None if hosts is None else set(map(_parse_hostname, hosts)) - {None}
        self._token = token
        self._headers = [
            (b"content-security-policy", f"{CONTENT_POLICY}; frame-ancestors 'self'".encode()),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or respond with a client error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        refusal = next(self._find_refusals(scope), None)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, detail = refusal
        headers = [(b"content-type", b"application/json")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send_with_headers(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send_with_headers(
            {"type": "http.response.body", "body": orjson.dumps({"detail": detail})}
        )

    def _find_refusals(self, scope: Scope) -> Iterator[tuple[int, str]]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._hosts is not None and _parse_hostname(host) not in self._hosts:
            yield 400, f"the host {host!r} is not allowed; --allowed-hosts adds allowed hosts"
        if not scope["path"].startswith(_API):
            return
        if self._token is not None:
            scheme, _, token = headers.get(b"authorization", "").partition(" ")
            # Bytes, because compare_digest accepts only ASCII in str.
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                token.strip().encode("latin-1"), self._token.encode()
            ):
                yield (
                    401,
                    "the token is missing or wrong: expected Authorization: Bearer TOKEN",
                )
        # Other sites do not know the token. Without a token, browsers send the origin of a request.
        elif headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin") or (
            b"origin" in headers and urlsplit(headers[b"origin"]).netloc != host
        ):
            yield 403, "cross-origin requests are not allowed"


def _parse_hostname(host: str) -> str | None:
    """Return a host in lower case without its port, or None if it is invalid."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class CancelOnDisconnect:
    """Middleware that cancels the processing of a request when its client disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and cancel it if the client disconnects."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Holds one message, so that a client cannot send faster than the application reads.
        messages: asyncio.Queue[Message] = asyncio.Queue(1)
        task = asyncio.ensure_future(self._app(scope, messages.get, send))

        async def listen() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                await messages.put(message)
            task.cancel()

        listener = asyncio.ensure_future(listen())
        try:
            await task
        except asyncio.CancelledError:
            is_disconnected = listener.done() and not listener.cancelled()
            task.cancel()  # if this coroutine was cancelled instead
            await asyncio.wait([task])
            if not is_disconnected:
                raise
        finally:
            listener.cancel()
