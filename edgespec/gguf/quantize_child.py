"""Re-typing in a child process, which can be ended at any moment: llama.cpp's quantizer cannot.

A kill leaves nothing but a scratch file, which whoever comes next deletes. The child ends when its
stdin does, which is a pipe that the parent holds: no parent, no child.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from edgespec.errors import EdgeSpecError, ModelFileError
from edgespec.pauses import Pause

_POLL_S = 0.01


def retype_apart(
    source: Path, destination: Path, type_name: str, num_threads: int, pause: Pause
) -> None:
    """`edgespec.gguf.quantize.retype`, which is ended by what `pause` raises.

    Raises ModelFileError with the child's reason if it fails.
    """
    for left in destination.parent.glob(f".{destination.name}.*"):  # of one that was killed
        left.unlink(missing_ok=True)
    arguments = [str(source), str(destination), type_name, str(num_threads)]
    child = subprocess.Popen(
        [sys.executable, "-m", "edgespec.gguf.quantize_child", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with child:
        try:
            while child.poll() is None:
                pause()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_POLL_S)
        finally:
            child.kill()
        assert child.stderr is not None
        lines = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    if child.returncode != 0:
        problem = lines[-1] if lines else f"the quantizer ended with status {child.returncode}"
        raise ModelFileError(f"cannot make {type_name} of {source.name}: {problem}")


def main(arguments: list[str]) -> int:
    """`arguments`: source, destination, type, number of threads."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from edgespec.gguf.quantize import retype  # loads the native library, which may hang

    source, destination, type_name, num_threads = arguments
    try:
        retype(Path(source), Path(destination), type_name, int(num_threads))
    except EdgeSpecError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
