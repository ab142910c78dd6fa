"""Asking an ASGI application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask() -> Ask:
    """Send one request to an application."""

    def ask(
        app: Any,
        path: str,
        method: str = "GET",
        base: str = "http://localhost:8000",
        **options: Any,
    ) -> httpx.Response:
        async def main() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url=base
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(main())

    return ask
