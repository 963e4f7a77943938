"""POST /v1/responses, stateless: each request brings the whole conversation."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from edgespec.server.errors import ApiError
from edgespec.server.openai.response_body import ResponseBody
from edgespec.server.openai.response_form import ResponseForm
from edgespec.server.service import Endpoint, Service, in_thread


class Responses:
    """The endpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def respond(self, request: Request) -> Response:
        """The assistant's next turn, as items of output."""
        body = await self._service.read(request, ResponseBody)
        served = await self._service.models.acquire(body.model)
        tools = body.toolbox(served)
        question = await in_thread(body.asked, self._service.settings.default_sampling, tools)
        form = ResponseForm(served, tools, body)
        return self._service.respond(served, [question], form, stream=body.stream is True)

    async def kept(self, request: Request) -> Response:
        """Responses are not stored."""
        raise ApiError(
            404,
            f"the response {request.path_params['id']!r} is not stored: no response is",
            code="response_not_found",
        )


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    responses = Responses(service)
    return [
        Endpoint(
            "POST",
            ("/v1/responses", "/responses"),
            responses.respond,
            "Answer a conversation.",
            ResponseBody,
            streams="text/event-stream",
        ),
        Endpoint("GET", ("/v1/responses/{id}",), responses.kept, "Nothing: none is stored."),
    ]
