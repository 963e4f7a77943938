"""The OpenAPI description is true: what it allows is answered without an error of ours."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_support import EchoCompleter, Running, send

from edgespec.server.app import endpoints
from edgespec.server.models import Models, Ready
from edgespec.server.service import Service
from edgespec.server.settings import ServerSettings


@pytest.fixture(scope="module")
def api(server: Running) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"http://localhost:{server.port}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_the_description_allows(case: schemathesis.Case[Any]) -> None:
    response = case.call()
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )


def test_every_endpoint_is_described(server: Running) -> None:
    described = send(server, "GET", "/openapi.json").json["paths"]
    defaults = ServerSettings()
    served = endpoints(Service(Models([Ready(EchoCompleter())], defaults), defaults))
    assert {
        (path.replace(":path", ""), each.method.lower()) for each in served for path in each.paths
    } == {(path, method) for path, operations in described.items() for method in operations}
