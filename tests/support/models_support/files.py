"""Small GGUF files, wheels that carry them in parts, and models that name both."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from edgespec.models.registry import HubFile, KnownModel, PackageSet, numbered

VERSION = "1.2.3"
MEMBER = "*/data/part*.bin"


def tiny_gguf(
    num_floats: int = 20_000, seed: int = 0, tokens: tuple[str, ...] = ("a", "b")
) -> bytes:
    """A whole GGUF file of two tensors; its size is close to 4 * `num_floats` bytes."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_token_list(list(tokens))
        writer.add_token_scores([0.0] * len(tokens))
        first = num_floats // 3
        for name, count in (("a.weight", first), ("b.weight", num_floats - first)):
            writer.add_tensor(name, rng.standard_normal(count, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def cut_up(content: bytes, count: int) -> list[bytes]:
    """`content` in `count` parts, all but the last of equal size."""
    size = -(-len(content) // count)
    return [content[at : at + size] for at in range(0, len(content), size)]


def write_wheel(folder: Path, name: str, members: dict[str, bytes], version: str = VERSION) -> Path:
    """A wheel as pip accepts it, with the given members besides its metadata."""
    distribution = name.replace("-", "_")
    info = f"{distribution}-{version}.dist-info"
    path = folder / f"{distribution}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=99\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


def write_part_wheels(folder: Path, stem: str, parts: list[bytes]) -> None:
    """One wheel per part, laid out as the real ones: `stem_partN/data/partNN.bin`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(parts, start=1):
        name = f"{stem}-part{number}"
        package = name.replace("-", "_")
        members = {f"{package}/__init__.py": b"", f"{package}/data/part{number:02}.bin": data}
        write_wheel(folder, name, members)


def known_model(
    content: bytes,
    *,
    name: str = "tiny-model",
    num_parts: int = 3,
    repo: str = "acme/tiny-GGUF",
    terms: str | None = None,
) -> KnownModel:
    """A model of the given content, on the Hub and in packages."""
    return KnownModel(
        name=name,
        title=f"{name} for tests",
        hub=HubFile(repo, f"{name}.gguf"),
        packages=PackageSet(numbered(f"{name}-part", num_parts), VERSION, MEMBER),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        roles=("drafter",),
        terms=terms,
    )
