"""Tests that fuzz the HTTP API from its OpenAPI description."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("ACTGRID_FUZZ", "15"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
GET_PATHS = [
    "/api/model.json",
    "/api/images.json",
    "/api/images/{image}/thumbnail.jpg",
    "/api/images/{image}/picture.png",
    "/api/images/{image}/classes.json",
    "/api/images/{image}/ablation.json",
    "/api/images/{image}/layers.json",
    "/api/images/{image}/layers.png",
    "/api/images/{image}/layers/{layer}.json",
    "/api/images/{image}/layers/{layer}.png",
    "/api/images/{image}/layers/{layer}/histograms.json",
    "/api/images/{image}/layers/{layer}/difference.json",
    "/api/images/{image}/layers/{layer}/difference.png",
    "/api/images/{image}/layers/{layer}/relevance/{target}.json",
    "/api/images/{image}/layers/{layer}/attention.json",
    "/api/images/{image}/layers/{layer}/attention.bin",
    "/api/images/{image}/layers/{layer}/{normalize}/{scope}.png",
    "/api/images/{image}/layers/{layer}/{normalize}/{scope}.json",
    "/api/images/{image}/heatmaps/{method}/{target}.json",
    "/api/images/{image}/heatmaps/{method}/{target}.png",
    "/api/images/{image}/heatmaps/{method}/{target}/progress.json",
    "/api/images/{image}/scores/{method}/{target}.json",
    "/api/images/{image}/scores/{method}/{target}/progress.json",
    "/api/layers/{layer}/kernel.json",
    "/api/layers/{layer}/kernel.png",
    "/api/layers/{layer}/dataset.json",
    "/api/layers/{layer}/channels/{channel}/maximized.png",
    "/api/layers/{layer}/channels/{channel}/maximized/progress.json",
]
OPERATIONS = [
    ("POST", "/api/images"),
    ("DELETE", "/api/images/{image}"),
    *(("GET", path) for path in GET_PATHS),
    *(("HEAD", path) for path in GET_PATHS),
]


@pytest.fixture(scope="module")
def operations(client: httpx.Client) -> dict[tuple[str, str], Any]:
    """Return the operations of the OpenAPI description by method and path."""
    description = client.get("/api/openapi.json").json()
    schema: Any = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=str(client.base_url))
    results = (result.ok() for result in schema.get_all_operations())
    return {(operation.method.upper(), operation.path): operation for operation in results}


@pytest.fixture(scope="module")
def valid_parameters(client: httpx.Client) -> dict[str, Any]:
    """Return parameters of existing resources, which random values rarely match."""
    images = client.get("/api/images.json").json()["images"]
    return {"image": images[0]["id"], "layer": 1, "channel": 2, "method": "gradcam"}


def test_all_operations_are_fuzzed(operations: dict[tuple[str, str], Any]) -> None:
    assert sorted(operations) == sorted(OPERATIONS)


VALID, INVALID = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (*operation, mode)
        for operation in OPERATIONS
        for mode in (VALID, INVALID)
        # model.json has no parameter that could be invalid.
        if mode is VALID or operation[1] != "/api/model.json"
    ],
)
def test_random_parameters_cause_no_server_error(
    operations: dict[tuple[str, str], Any],
    client: httpx.Client,
    valid_parameters: dict[str, Any],
    method: str,
    path: str,
    mode: Any,
) -> None:
    headers = {"authorization": client.headers["authorization"]}

    @given(operations[method, path].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)
        # Other parameters are checked only if the path matches an existing resource.
        case.path_parameters |= {
            name: value for name, value in valid_parameters.items() if name in case.path_parameters
        }
        case.call_and_validate(headers=headers, checks=CHECKS)

    fuzz()
