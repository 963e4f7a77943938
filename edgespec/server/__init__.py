"""`edgespec serve`: OpenAI-compatible HTTP over completers."""

from edgespec.server.access import read_keys
from edgespec.server.app import build_app
from edgespec.server.models import Models, Ready, Source
from edgespec.server.run import bind, serve
from edgespec.server.settings import ServerSettings

__all__ = [
    "Models",
    "Ready",
    "ServerSettings",
    "Source",
    "bind",
    "build_app",
    "read_keys",
    "serve",
]
