"""Text to token ids and back, with one model's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgespec.llama.model import Model
from edgespec.llama.template import ChatTemplate
from edgespec.types import NO_TEMPLATE_VALUES, Message, TemplateValues

_GUARD = "\U0010fffc"
"""Parts what must not be read as one; a letter that nobody uses."""


class ModelBridge:
    """Implements `edgespec.protocols.TextBridge` over an open model."""

    def __init__(self, model: Model) -> None:
        """Raises UsageError when the model's chat template does not parse."""
        self._vocab = model.vocab
        self._bos = self._special_text(self._vocab.bos)
        eos = self._special_text(self._vocab.eos)
        self._template = ChatTemplate(model.chat_template, self._bos, eos)

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt; the text of control tokens is read as those tokens."""
        return self.tokenize(text, add_special=True, parse_special=True)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> list[int]:
        """Token ids of a conversation up to the assistant's turn, or to the end of its last one.

        What messages say is text, also where it reads like a control token.
        """
        first, *others = self._rendered(messages, template, continue_final_message).split(_GUARD)
        # A template that writes the BOS token itself must not get a second one.
        add_special = not (self._bos and first.startswith(self._bos))
        tokens = self.tokenize(first, add_special=add_special, parse_special=True)
        for text in others:
            tokens += self.tokenize(text, parse_special=True)
        return tokens

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> str:
        """The text whose token ids `encode_chat` gives."""
        return self._rendered(messages, template, continue_final_message).replace(_GUARD, "")

    def _rendered(
        self, messages: Sequence[Message], template: TemplateValues, is_continued: bool
    ) -> str:
        guarded = [
            replace(
                each,
                content=self._guarded(each.content),
                tool_calls=tuple(
                    replace(call, arguments=self._guarded(call.arguments))
                    for call in each.tool_calls
                ),
            )
            for each in messages
        ]
        return self._template.render(guarded, continue_final_message=is_continued, values=template)

    def _guarded(self, content: str) -> str:
        """The content, its control tokens parted after their first letter."""
        tokens = set(self.tokenize(content, parse_special=True))
        for token in filter(self._vocab.is_control, tokens):
            text = self._special_text(token)
            content = content.replace(text, text[:1] + _GUARD + text[1:])
        return content

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text."""
        # Lone surrogates (invalid UTF-8 that came through the command line) become "?".
        data = text.encode("utf-8", "replace")
        return self._vocab.tokenize(data, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token."""
        return self._vocab.piece(token, special=special)

    def is_end(self, token: int) -> bool:
        """True if `token` ends an answer."""
        return self._vocab.is_end(token)

    def _special_text(self, token: int | None) -> str:
        if token is None:
            return ""
        return self._vocab.piece(token, special=True).decode("utf-8", "replace")
