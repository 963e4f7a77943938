"""What is recorded of an answer: messages of unnamed conversations, tokens unless forbidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from token_support import VOCABULARY, count

from edgespec.cache.database import open_database
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.runtime.recording import Remembering
from edgespec.types import (
    Completion,
    CompletionRequest,
    EncodedPrompt,
    Message,
    Prompt,
    SpeculationStats,
    Timings,
)

ANSWER = Completion("Wet.", (7, 8, 9), "stop", Timings(0, 0, 0, 0, 0, 0), SpeculationStats())
ASKED: Prompt = (Message("user", "Rain?"),)


@pytest.mark.parametrize(
    ("request_", "num_messages", "num_sequences", "owner"),
    [
        (CompletionRequest(ASKED), 2, 1, "journal"),
        (CompletionRequest(ASKED, conversation="c"), 0, 1, "c"),
        (CompletionRequest("Rain"), 0, 1, None),
        (CompletionRequest(ASKED, record=False), 0, 0, None),
        (CompletionRequest(ASKED, owner="a"), 0, 1, None),
        (CompletionRequest(ASKED, conversation="c", record=False), 0, 0, None),
    ],
)
def test_a_named_conversation_is_written_down_by_whoever_named_it(
    tmp_path: Path,
    request_: CompletionRequest,
    num_messages: int,
    num_sequences: int,
    owner: str | None,
) -> None:
    with open_database(tmp_path / "edgespec.db") as database:
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with Remembering(memory, print) as remembering:
            remembering.asked(request_)
            remembering.open(request_, EncodedPrompt((1, 2, 3))).close(ANSWER)
        connection = database.connection
        assert count(connection, "messages") == num_messages
        owners = [name for (name,) in connection.execute("SELECT conversation FROM sequences")]
        assert len(owners) == num_sequences
        if owner == "journal":
            assert owners == [
                name for (name,) in connection.execute("SELECT id FROM conversations")
            ]
        elif owners:
            assert owners == [owner]


def test_what_is_said_to_one_is_found_for_this_one_alone(tmp_path: Path) -> None:
    with open_database(tmp_path / "edgespec.db") as database:
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with Remembering(memory, print) as remembering:
            prompt = EncodedPrompt((1, 2, 3, 4))
            request = CompletionRequest("Rain", owner="a")
            remembering.open(request, prompt).close(ANSWER)
            assert remembering.flush()
            for owner in ("", "a", "b"):
                model, _ = remembering.tiers_of(owner)
                assert (model.lookup((1, 2, 3, 4)) is not None) is (owner == "a")
