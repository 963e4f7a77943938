"""Stands for the process that learns: counts in a file while it may compute.

It is told a folder, then what the real one is told. The file `outcome` of the folder, once it is
there, is what came of it; with a file `unread` it is not ready to be stopped.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    folder = Path(sys.argv[1])
    (folder / "told").write_text("\n".join(sys.argv[2:]))
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    count, is_ready = 0, False
    while not (folder / "outcome").exists():
        if not is_ready and not (folder / "unread").exists():
            print("ready", flush=True)
            is_ready = True
        count += 1
        scratch = folder / "count.part"
        scratch.write_text(str(count))
        scratch.rename(folder / "count")
        time.sleep(0.002)
    print((folder / "outcome").read_text())


def end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
