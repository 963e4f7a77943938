"""Makes `.venv` with a llama.cpp that is soundly built for this machine; standard library only.

Rules. A machine is described once (`machine`), from the description follows a list of builds to
try in order (`recipes`, pure), each build is looked up in or added to a cache outside the clone
(`wheels`), installed and tried in a child process (`environment`). Whatever is half made is either
in a temporary folder that nobody reads, or marked as incomplete and thrown away at the next start.
Why these builds and no others: docs/decisions/0003-sound-build.md.
"""
