"""The types of request fields, and how bodies are read.

Types are strict (no "0.5" for 0.5); null means that the field was left out. A field that no dialect
knows is ignored, as clients send many that are for others. One that would change the meaning of an
answer and is not served is refused by name, unless it has a value that changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from edgespec.server.errors import ApiError, from_validation

Json = dict[str, Any]


def _text_of(content: object) -> object:
    """Join a list of text parts by newlines, as llama-server and vLLM do; leave all else."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        is_text = isinstance(part, dict) and part.get("type") in _TEXT_PARTS
        text = part.get("text", part.get("refusal")) if is_text else None
        if not isinstance(text, str):
            raise PydanticCustomError("unsupported", "Input should be text parts only")
        texts.append(text)
    return "\n".join(texts)


_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


MAX_CHOICES = 16
"""Most answers to one request: choices times prompts."""

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Limit = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES)]
NotEmpty = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]
StopStrings = Annotated[list[NotEmpty], Field(max_length=16), BeforeValidator(_as_list)]
Content = Annotated[str | None, BeforeValidator(_text_of)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]


class Strict(BaseModel):
    """No coercion: "0.5" is not 0.5, true is not 1; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class Body(Strict):
    """The whole of a request's body: of the fields that it does not know, some are refused."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, frozen=True, populate_by_name=True
    )

    def check_unknown(self) -> None:
        """Raise ApiError where a field is not served that would change the answer."""
        refuse_meaningful(self.model_extra or {})


HARMLESS = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "request_id"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation"),
        *("parallel_tool_calls", "guided_decoding_backend", "priority", "id_slot", "include"),
        *("keep_alive", "reasoning_format", "verbose", "return_tokens", "n_keep", "reasoning"),
        *("context_management", "betas", "client_metadata", "num_ctx", "stream_options"),
    }
)
"""Fields of some dialect that change nothing of the answer's meaning here: they are ignored."""

_NEVER: tuple[object, ...] = ()

MEANINGFUL: Mapping[str, tuple[object, ...]] = {
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "bad_words_ids": ([],),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    "prompt_logprobs": (0, False),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "truncate_prompt_tokens": _NEVER,
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "add_special_tokens": _NEVER,
    "chat_template": ("",),
    "documents": ([],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": _NEVER,
    "web_search_options": _NEVER,
    "verbosity": ("medium",),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "dynatemp_range": (0,),
    "xtc_probability": (0,),
    "top_n_sigma": (-1, 0),
    "top_a": (0,),
    "tfs_z": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "smoothing_factor": (0,),
    "samplers": _NEVER,
    "dry_sequence_breakers": _NEVER,
    "min_keep": (0, 1),
    "n_probs": (0,),
    "n_indent": (0,),
    "post_sampling_probs": (False,),
    "t_max_predict_ms": (0,),
    "lora": ([],),
    "grammar_lazy": (False,),
    "multimodal_data": ([],),
    "image_data": ([],),
    "images": ([],),
    "thinking_budget_tokens": (-1,),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "n": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "prediction": _NEVER,
    "response_format": ({"type": "text"},),
    "background": (False,),
    "conversation": _NEVER,
    "previous_response_id": ("",),
    "prompt": _NEVER,
    "max_tool_calls": _NEVER,
    "mcp_servers": ([],),
    "container": _NEVER,
    "thinking": ({"type": "disabled"},),
    "output_config": ({},),
    "output_format": _NEVER,
    "think": (False,),
    "context": ([],),
    "template": ("",),
    "raw": (False,),
    "encoding_format": ("float",),
    "dimensions": _NEVER,
    "truncate": (True,),
    **dict.fromkeys(("temperature", "max_completion_tokens", "max_output_tokens"), _NEVER),
    **dict.fromkeys(("max_tokens", "n_predict", "num_predict", "seed"), (-1,)),
    **dict.fromkeys(("top_p", "typical_p", "repeat_penalty", "repetition_penalty"), (1,)),
    **dict.fromkeys(("min_p", "frequency_penalty", "presence_penalty", "dry_multiplier"), (0,)),
    **dict.fromkeys(("stop", "stop_sequences"), ([], "")),
    **dict.fromkeys(("json_schema", "guided_json", "guided_regex", "guided_choice"), _NEVER),
    **dict.fromkeys(
        ("guided_grammar", "structured_outputs", "grammar", "reasoning_effort"), _NEVER
    ),
    **dict.fromkeys(("system", "instructions", "format"), ("",)),
    **dict.fromkeys(("options", "chat_template_kwargs"), ({},)),
    **dict.fromkeys(("cache_prompt", "speculate"), (True,)),
    **dict.fromkeys(("ignore_eos", "continue_final_message"), (False,)),
    "top_k": (0, -1),
    "tool_choice": ("none", "auto"),
}
"""Fields that would change the answer, with the values that they may have all the same.

A body whose dialect serves a field knows it, so that this table is not asked: the fields that are
served here are those of another dialect there.
"""


def refuse_meaningful(extra: Mapping[str, object], where: str = "") -> None:
    """Raise ApiError 400 for the first field of `extra` that cannot be left out of account."""
    for name, value in extra.items():
        allowed = MEANINGFUL.get(name)
        if value is None or allowed is None or any(_is_same(value, each) for each in allowed):
            continue
        raise unsupported(where + name, f"{where}{name} is not supported")


def _is_same(value: object, allowed: object) -> bool:
    """Equality that tells true from 1."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def unsupported(param: str, message: str) -> ApiError:
    """What is refused because it is not served."""
    return ApiError(400, message, param=param, code="unsupported_parameter")


def invalid(param: str, message: str) -> ApiError:
    """What is refused because it makes no sense."""
    return ApiError(400, message, param=param, code="invalid_value")


AnyBody = TypeVar("AnyBody", bound=Body)


def parse_body(kind: type[AnyBody], raw: bytes) -> AnyBody:
    """Read a request body; raises ApiError 400 for anything but a valid one."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"the body is not UTF-8: {error.reason} at byte {error.start}", code="invalid_json"
        ) from error
    try:
        body = kind.model_validate_json(text)
    except ValidationError as error:
        raise from_validation(error) from error
    body.check_unknown()
    return body
