"""Several sources of one drafter as one: at each place the surest of those that agreed so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgespec.passes import Proposal


def surest(sources: Iterable[Iterator[Proposal]]) -> Iterator[Proposal]:
    """Yield guess after guess, each the likeliest of all; sources that guessed otherwise are out.

    Of equals, the first source's. Lazy: a source is asked for its next guess when that is wanted.

    >>> one = iter([Proposal(7, 0.5), Proposal(8, 0.9)])
    >>> two = iter([Proposal(7, 0.6), Proposal(9, 0.2), Proposal(3, 0.3)])
    >>> [(guess.token, guess.acceptance) for guess in surest([one, two])]
    [(7, 0.6), (8, 0.9)]
    """
    alive = list(sources)
    while True:
        heads = [(source, guess) for source in alive if (guess := next(source, None))]
        if not heads:
            return
        best = max((guess for _, guess in heads), key=lambda guess: guess.acceptance)
        yield best
        alive = [source for source, guess in heads if guess.token == best.token]
