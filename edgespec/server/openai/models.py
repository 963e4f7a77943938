"""GET /v1/models: what can be asked for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec.server.fields import Json
from edgespec.server.models import Offer
from edgespec.server.service import Endpoint, Service


class ModelList:
    """The models of a server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, _request: Request) -> Response:
        """Those that can be asked for."""
        data = [self._model(offer) for offer in self._service.models.list()]
        return JSONResponse({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        """The one of this name."""
        return JSONResponse(self._model(self._service.models.named(request.path_params["name"])))

    def _model(self, offer: Offer) -> Json:
        told: Json = {
            "id": offer.name,
            "object": "model",
            "created": self._service.started,
            "owned_by": "edgespec",
        }
        if (model := offer.model) is not None:
            told["meta"] = {
                "description": model.description,
                "num_context": model.num_context,
                "size_bytes": model.size_bytes,
                "drafter": model.drafter,
                "exactness": model.exactness,
                "n_ctx_train": model.details.num_context_train,
                "n_embd": model.details.num_embedding,
                "n_params": model.details.num_parameters,
                "n_vocab": model.details.num_vocab,
            }
        return told


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    models = ModelList(service)
    return [
        Endpoint("GET", ("/v1/models", "/models"), models.all, "List the models."),
        Endpoint("GET", ("/v1/models/{name:path}",), models.one, "Tell of one model."),
    ]
