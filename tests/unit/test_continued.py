"""An answer that was cut goes on as if it never had been: the same tokens, the same bytes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from completers import AB, BRIDGE, LEAD, SPACE, TRAIL, A, B, Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.types import Completion, CompletionRequest, Message

QUESTION = CompletionRequest((Message("user", "abc"),), max_tokens=30)


def going_on(request: CompletionRequest, cut: Completion) -> CompletionRequest:
    """Asks for the rest of an answer that was cut."""
    assert not isinstance(request.prompt, str)
    said = Message("assistant", cut.text)
    return dataclasses.replace(
        request,
        prompt=(*request.prompt, said),
        continue_final_message=True,
        max_tokens=None,
    )


def num_whole(tokens: Sequence[int]) -> int:
    """How many tokens end with a whole character."""
    return len(tokens) - (tokens[-1:] == (LEAD,))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([(A,), (B,), (SPACE,), (AB,), (LEAD, TRAIL)]), min_size=5, max_size=9),
    st.integers(2, 4),
    st.integers(1, 3),
)
def test_what_is_cut_twice_and_continued_is_what_was_never_cut(
    letters: list[tuple[int, ...]], first: int, second: int
) -> None:
    script = (*itertools.chain(*letters), BRIDGE.END)
    whole = Rig(script=script).answer(dataclasses.replace(QUESTION, max_tokens=None))
    rig = Rig(script=script)
    cut = rig.answer(dataclasses.replace(QUESTION, max_tokens=first))
    assert whole.text.startswith(cut.text), "no half of a character is told"
    known = num_whole(cut.token_ids)
    rig.script = script[known:]
    again = rig.answer(dataclasses.replace(going_on(QUESTION, cut), max_tokens=second))
    text, known = cut.text + again.text, known + num_whole(again.token_ids)
    rig.script = script[known:]
    rest = rig.answer(going_on(QUESTION, dataclasses.replace(again, text=text)))
    assert text + rest.text == whole.text
    assert rig.target.cells[-len(script) + 1 :] == list(script[:-1])


def test_a_character_that_was_cut_comes_whole() -> None:
    rig = Rig(script=[A, LEAD])
    question = dataclasses.replace(QUESTION, max_tokens=2)
    cut = rig.answer(question)
    assert (cut.text, cut.token_ids) == ("a", (A, LEAD))
    rig.script = [LEAD, TRAIL, B, BRIDGE.END]
    assert rig.answer(going_on(question, cut)).text == "éb"
    assert rig.target.cells[-3:] == [LEAD, TRAIL, B], "and none of its tokens twice"


def test_it_goes_on_in_the_tokens_that_were_said_not_in_those_of_its_text() -> None:
    rig = Rig(script=[A, B, A])
    question = dataclasses.replace(QUESTION, max_tokens=3)
    cut = rig.answer(question)
    assert BRIDGE.encode("aba") == [AB, A]
    rig.script = [B, BRIDGE.END]
    rest = rig.answer(going_on(question, cut))
    assert rest.timings.num_prompt_tokens - rest.timings.num_cached_tokens == 1
    assert rig.target.cells[-4:] == [A, B, A, B]


def test_an_answer_that_is_known_no_more_goes_on_from_its_text() -> None:
    rig = Rig(script=[A, B, A])
    question = dataclasses.replace(QUESTION, max_tokens=3)
    cut = rig.answer(question)
    for letters in ("a", "b", "c", "ab"):
        rig.answer(dataclasses.replace(question, prompt=(Message("user", letters),)))
    rig.script = [B, BRIDGE.END]
    assert rig.answer(going_on(question, cut)).text == "b"
    assert rig.target.cells[-3:] == [AB, A, B]


def test_one_that_ended_by_itself_and_a_plain_prompt_are_not_remembered() -> None:
    rig = Rig(script=[A, BRIDGE.END])
    assert rig.answer(QUESTION).finish_reason == "stop"
    rig.answer(CompletionRequest("abc", max_tokens=1))
    assert not rig.completer._cut


def test_a_cancelled_answer_goes_on_too() -> None:
    rig = Rig(script=[A, B] * 20)
    answer = rig.ask(dataclasses.replace(QUESTION, max_tokens=None))
    some = [chunk.text for chunk in itertools.islice(answer, 6)]
    answer.cancel()
    *_, last = answer
    assert last.completion is not None and last.completion.finish_reason == "cancelled"
    assert last.completion.text == "".join(some)
    rig.script = [BRIDGE.END]
    rest = rig.answer(going_on(QUESTION, last.completion))
    assert rest.timings.num_prompt_tokens - rest.timings.num_cached_tokens == 1
