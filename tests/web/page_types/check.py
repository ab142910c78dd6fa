"""Check the types of the viewer's scripts with TypeScript.

The types of the server's responses come from its OpenAPI description, so that the scripts and the
server agree. TypeScript and openapi-typescript are packages of npm.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import httpx

from actgrid.web.app import make_app

FOLDER = Path(__file__).parent
PACKAGES = ("--package=typescript@5", "--package=openapi-typescript@7")


async def request_description() -> bytes:
    """Return the OpenAPI description of the server as JSON text."""
    transport = httpx.ASGITransport(make_app(Mock()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/api/openapi.json")
    return response.raise_for_status().content


def run(*command: str) -> int:
    """Run a program of the npm packages, and return its exit status."""
    return subprocess.run(
        ["npm", "exec", "--yes", *PACKAGES, "--", *command], cwd=FOLDER
    ).returncode


def main() -> int:
    """Write the types of the responses, and check the scripts; return 1 if there are errors."""
    description = FOLDER / "openapi.json"
    description.write_bytes(asyncio.run(request_description()))
    generated = run("openapi-typescript", description.name, "--output", "openapi.d.ts")
    return generated or run("tsc", "--project", "tsconfig.json")


if __name__ == "__main__":
    sys.exit(main())
