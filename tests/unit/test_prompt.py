"""A request's prompt as token ids: what fits, what is dropped, what is refused."""

from __future__ import annotations

import pytest
from fakes import TinyBridge
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.engine.prompt import encode_prompt
from edgespec.errors import ContextOverflowError, UsageError
from edgespec.types import CompletionRequest, Message, Overflow, Role

BRIDGE = TinyBridge()  # a message takes two tokens and one for each letter, the prompt one more


def say(role: Role, length: int) -> Message:
    return Message(role, "c" * length)


def conversation(*turns: Message) -> tuple[Message, ...]:
    return turns


SYSTEM = say("system", 3)  # 5 tokens
LONG_TALK = conversation(
    SYSTEM,
    say("user", 8),  # 10 tokens
    say("assistant", 18),  # 20
    say("user", 8),
    say("assistant", 18),
    say("user", 8),
)  # 76 tokens with the assistant's turn


def request(
    prompt: tuple[Message, ...] | str, overflow: Overflow = "error", max_tokens: int | None = None
) -> CompletionRequest:
    return CompletionRequest(prompt, overflow=overflow, max_tokens=max_tokens)


def test_text_is_encoded_as_it_stands() -> None:
    encoded = encode_prompt(request("ab c"), BRIDGE, 100)
    assert list(encoded.tokens) == BRIDGE.encode("ab c")
    assert encoded.num_dropped_messages == 0


def test_a_conversation_is_encoded_with_its_template() -> None:
    assert list(encode_prompt(request(LONG_TALK), BRIDGE, 100).tokens) == BRIDGE.encode_chat(
        LONG_TALK
    )


@pytest.mark.parametrize("overflow", ["error", "drop-oldest"])
@pytest.mark.parametrize(
    "prompt", ["c" * 100, LONG_TALK[-1:] * 2 + (say("user", 97),)], ids=["t", "c"]
)
def test_what_does_not_fit_is_an_error_that_tells_the_numbers(
    prompt: str | tuple[Message, ...], overflow: Overflow
) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        encode_prompt(request(prompt, overflow), BRIDGE, 100)
    assert "prompt is too long: 1" in str(caught.value), "words that clients know"
    assert "context holds 100" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_token_must_be_left_for_the_answer() -> None:
    assert len(encode_prompt(request("c" * 99), BRIDGE, 100).tokens) == 99
    with pytest.raises(ContextOverflowError):
        encode_prompt(request("c" * 100), BRIDGE, 100)


def test_the_oldest_turns_go_first_and_the_system_message_stays() -> None:
    encoded = encode_prompt(request(LONG_TALK, "drop-oldest"), BRIDGE, 80)
    kept = conversation(LONG_TALK[0], *LONG_TALK[3:])
    assert list(encoded.tokens) == BRIDGE.encode_chat(kept)
    assert encoded.num_dropped_messages == 2
    encoded = encode_prompt(request(LONG_TALK, "drop-oldest"), BRIDGE, 50)
    assert list(encoded.tokens) == BRIDGE.encode_chat(conversation(LONG_TALK[0], LONG_TALK[-1]))
    assert encoded.num_dropped_messages == 4


def test_no_more_is_dropped_than_the_answer_needs() -> None:
    """76 tokens of 80 leave room for four: enough if no more are asked for."""
    encoded = encode_prompt(request(LONG_TALK, "drop-oldest", max_tokens=4), BRIDGE, 80)
    assert encoded.num_dropped_messages == 0
    encoded = encode_prompt(request(LONG_TALK, "drop-oldest", max_tokens=5), BRIDGE, 80)
    assert encoded.num_dropped_messages == 2


def test_a_last_turn_that_leaves_little_room_is_still_answered() -> None:
    talk = conversation(SYSTEM, say("user", 5), say("user", 80))
    encoded = encode_prompt(request(talk, "drop-oldest"), BRIDGE, 90)
    assert list(encoded.tokens) == BRIDGE.encode_chat(conversation(talk[0], talk[2]))
    assert len(encoded.tokens) == 88
    assert encoded.num_dropped_messages == 1


def test_a_tool_and_its_answer_belong_to_the_question_before() -> None:
    talk = conversation(
        say("user", 9), say("assistant", 9), say("tool", 9), say("assistant", 9), say("user", 9)
    )
    encoded = encode_prompt(request(talk, "drop-oldest", max_tokens=1), BRIDGE, 40)
    assert list(encoded.tokens) == BRIDGE.encode_chat(talk[-1:])
    assert encoded.num_dropped_messages == 4


def test_a_system_message_in_the_middle_stays_too() -> None:
    talk = conversation(say("user", 9), say("assistant", 9), SYSTEM, say("user", 9))
    encoded = encode_prompt(request(talk, "drop-oldest", max_tokens=1), BRIDGE, 30)
    assert list(encoded.tokens) == BRIDGE.encode_chat(talk[2:])
    assert encoded.num_dropped_messages == 2


def test_a_message_to_be_continued_stays_open_whatever_is_dropped() -> None:
    talk = (*LONG_TALK, say("assistant", 4))
    asked = CompletionRequest(talk, overflow="drop-oldest", continue_final_message=True)
    for num_context, kept in ((200, talk), (50, (talk[0], *talk[-2:]))):
        encoded = encode_prompt(asked, BRIDGE, num_context)
        assert encoded.prompt == kept
        assert [*encoded.tokens, BRIDGE.END] == BRIDGE.encode_chat(kept)[:-1]


ROLES: list[Role] = ["system", "user", "assistant", "tool"]


@settings(max_examples=300)
@given(
    st.lists(st.builds(say, st.sampled_from(ROLES), st.integers(0, 9)), min_size=1, max_size=9),
    st.integers(2, 60),
    st.none() | st.integers(1, 40),
)
def test_dropping_drops_as_few_whole_turns_as_will_do(
    messages: list[Message], num_context: int, max_tokens: int | None
) -> None:
    asked = request(tuple(messages), "drop-oldest", max_tokens)
    first = next((i for i, m in enumerate(messages) if m.role != "system"), 0)
    starts = [first] + [i for i, m in enumerate(messages) if m.role == "user" and i > first]
    choices = [
        [m for i, m in enumerate(messages) if i >= start or m.role == "system"] for start in starts
    ]
    room = max(min(max_tokens or num_context, num_context // 4), 1)
    roomy = [kept for kept in choices if len(BRIDGE.encode_chat(kept)) <= num_context - room]
    kept = roomy[0] if roomy else choices[-1]
    tokens = BRIDGE.encode_chat(kept)
    if len(tokens) >= num_context:
        with pytest.raises(ContextOverflowError):
            encode_prompt(asked, BRIDGE, num_context)
        return
    encoded = encode_prompt(asked, BRIDGE, num_context)
    assert list(encoded.tokens) == tokens
    assert encoded.num_dropped_messages == len(messages) - len(kept)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "problem"),
    [
        ("", None, "the prompt is empty"),
        ((), None, "no messages"),
        ("c", 0, "max_tokens is 0"),
        ("c", -3, "max_tokens is -3"),
    ],
)
def test_nonsense_is_refused(prompt: str, max_tokens: int | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        encode_prompt(request(prompt, max_tokens=max_tokens), BRIDGE, 100)
