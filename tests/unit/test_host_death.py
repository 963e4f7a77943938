"""How a host died, in one line for a person."""

from __future__ import annotations

import signal

import pytest

from edgespec.errors import HostDied
from edgespec.runtime.host_death import Death, num_killed_for_memory

ASSERTION = ["loading", "\x1b[31m/src/ggml.c:12: GGML_ASSERT(n > 0) failed\x1b[0m"]


@pytest.mark.parametrize(
    ("status", "said", "ran_out", "words", "is_its_own"),
    [
        (-signal.SIGSEGV, ASSERTION, False, "crashed on a wrong memory address;", True),
        (-signal.SIGABRT, ASSERTION, False, "gave up (ggml.c:12: GGML_ASSERT(n > 0)", True),
        (-signal.SIGABRT, [], False, "the engine died: it gave up;", True),
        (-signal.SIGBUS, [], False, "was its file cut short", True),
        (-signal.SIGILL, [], False, "does not have", True),
        (-signal.SIGFPE, [], True, "wrong calculation", True),
        (-signal.SIGKILL, [], True, "memory ran out; close other programs", True),
        (-signal.SIGKILL, [], False, "killed by SIGKILL", False),
        (-signal.SIGTERM, [], False, "killed by SIGTERM", False),
        (128 + signal.SIGTERM, ["edgespec: stopped"], False, "killed by SIGTERM", False),
        (-60, [], False, "killed by signal 60", False),
        (1, ["ImportError: no numpy"], False, "(exit status 1: ImportError: no numpy)", True),
        (0, [], False, "(exit status 0)", True),
    ],
)
def test_one_line_says_what_happened(
    status: int, said: list[str], ran_out: bool, words: str, is_its_own: bool
) -> None:
    death = Death.of(7, status, said, ran_out_of_memory=ran_out)
    error = death.error()
    assert isinstance(error, HostDied)
    assert words in str(error)
    assert str(error).isprintable()
    assert error.remedy
    assert (death.pid, death.is_its_own) == (7, is_its_own)


def test_what_the_library_says_is_cut_short() -> None:
    death = Death.of(7, -signal.SIGABRT, ["x" * 5000], ran_out_of_memory=False)
    assert len(str(death.error())) < 300


def test_workers_that_are_gone_are_told_and_no_file_is_blamed() -> None:
    death = Death.of(7, -signal.SIGABRT, ASSERTION, ran_out_of_memory=False)
    told = death.through_workers(["10.0.0.2:50052", "10.0.0.3:50052"])
    assert "the worker 10.0.0.2:50052 is gone" in str(told.error())
    assert "edgespec worker" in told.remedy
    cut_off = death.through_workers([])
    assert str(cut_off.error()) == str(death.error())
    assert (told.is_its_own, cut_off.is_its_own) == (False, False)


def test_the_kernel_counts_or_does_not_tell() -> None:
    assert num_killed_for_memory() >= 0
