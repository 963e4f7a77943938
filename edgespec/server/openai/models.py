"""GET /v1/models: what can be asked for."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec.errors import EdgeSpecError
from edgespec.protocols import TextCompleter
from edgespec.server.fields import Json
from edgespec.server.models import Offer
from edgespec.server.service import Endpoint, Service, in_thread


class ModelList:
    """The models of a server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, _request: Request) -> Response:
        """Those that can be asked for."""
        drafters = await self._drafters()
        data = [self._model(offer, drafters) for offer in self._service.models.list()]
        return JSONResponse({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        """The one of this name."""
        offer = self._service.models.named(request.path_params["name"])
        return JSONResponse(self._model(offer, await self._drafters()))

    async def _drafters(self) -> dict[str, str]:
        """What drafts for each loaded model now: it may have changed since it was loaded."""
        models = self._service.models
        loaded = {offer.model.name for offer in models.list() if offer.model and offer.is_loaded}
        return {
            served.name: await in_thread(_drafter_of, served.completer)
            for served in models.loaded()
            if served.name in loaded  # one that was let go would come back to be asked
        }

    def _model(self, offer: Offer, drafters: Mapping[str, str]) -> Json:
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
                "drafter": drafters.get(model.name, model.drafter),
                "exactness": model.exactness,
                "n_ctx_train": model.details.num_context_train,
                "n_embd": model.details.num_embedding,
                "n_params": model.details.num_parameters,
                "n_vocab": model.details.num_vocab,
            }
        return told


def _drafter_of(completer: TextCompleter) -> str:
    try:
        names = [each.name for each in completer.insight().drafters]
    except EdgeSpecError:  # its process just died
        return completer.model.drafter
    return "+".join(names) or completer.model.drafter


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    models = ModelList(service)
    return [
        Endpoint("GET", ("/v1/models", "/models"), models.all, "List the models."),
        Endpoint("GET", ("/v1/models/{name:path}",), models.one, "Tell of one model."),
    ]
