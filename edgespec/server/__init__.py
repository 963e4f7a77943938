"""`edgespec serve`: OpenAI-compatible HTTP over one completer."""

from edgespec.server.app import build_app
from edgespec.server.run import bind, serve
from edgespec.server.settings import ServerSettings

__all__ = ["ServerSettings", "bind", "build_app", "serve"]
