"""Looking up the longest recorded suffix of a text, and following what came after it.

Theory of operation. Recorded contexts that end like the text are neighbours of the text's key
(`edgespec.cache.tokens.suffix_keys`): NEIGHBOURS rows on either side of it are read, and of the
occurrences that they name, those with the longest match count. What followed them is a vote: the
token that most of them had next, supported by so many of so many.

Following one continuation asks the database nothing new. Blocks hold what follows, up to BLOCK
tokens at once. And an occurrence that matches the longest suffix goes on to do so as long as it
agrees with what is said: a longer match of the longer text would have been a longer match before.

Where more than NEIGHBOURS occurrences share the fields of a key, the ones that count are the latest
of an equal context, else some of those nearest in key order.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgespec.cache.database import DAMAGE
from edgespec.cache.tokens.codec import BLOCK, BLOCK_BITS, unpack
from edgespec.cache.tokens.sequences import FIND_SCOPE, MAX_CONTEXT, Tier, VocabularyKey
from edgespec.cache.tokens.suffix_keys import num_shared, suffix_key

NEIGHBOURS = 8
"""Rows read on either side of a key, and occurrences that vote."""

MIN_LENGTH = 3
"""Shorter matches are no evidence among millions of tokens: what follows is right once in ten."""

MAX_LENGTH = MAX_CONTEXT
"""Longer matches are not told apart."""

MAX_CACHED_BLOCKS = 1024
"""Blocks kept in memory: at most half a megabyte."""

_NEIGHBOURS_SQL = (
    "SELECT * FROM (SELECT key, position FROM grams WHERE scope = ? AND key <= ?"
    " ORDER BY key DESC, position DESC LIMIT ?)"
    " UNION ALL SELECT * FROM (SELECT key, position FROM grams WHERE scope = ? AND key > ?"
    " ORDER BY key, position LIMIT ?)"
)
_BLOCKS_SQL = "SELECT block, sequence, tokens FROM blocks WHERE block IN ({})"
_AT_ONCE = 8
_BLOCKS_SQLS = tuple(_BLOCKS_SQL.format(", ".join("?" * count)) for count in range(_AT_ONCE + 1))
"""By number of blocks: few statements, so that SQLite keeps them prepared."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that followed the match: `support` of the `total` occurrences had it next.

    `length` is how many tokens before it match the text.
    """

    token: int
    length: int
    support: int
    total: int


class Block(NamedTuple):
    """Tokens of one block of a sequence."""

    sequence: int
    tokens: memoryview


class Place(NamedTuple):
    """A place in a recorded sequence: the next token is number `offset` of block `number`.

    A named tuple, because a lookup makes dozens.
    """

    number: int
    offset: int
    block: Block

    @property
    def token(self) -> int:
        """The next token."""
        return self.block.tokens[self.offset]


class TokenReader:
    """Looks up one tier of one vocabulary; a database that fails gives no matches, never an error.

    Not for several threads at once. Token ids run from 0 to `num_tokens`, exclusive. `problem` is
    empty, or one line on why nothing is found; `used` holds the sequences that drafts were kept
    from.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        vocabulary: VocabularyKey,
        tier: Tier,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        """`connection` stays the caller's; the tier may be empty and filled later."""
        self._connection = connection
        self._vocabulary = vocabulary
        self._tier = tier
        self._scope: int | None = None
        self.num_tokens = vocabulary.num_tokens  # a damaged file may hold any number
        self._neighbours = neighbours
        self._blocks: dict[int, Block] = {}
        self.used: set[int] = set()
        self.problem = ""

    def lookup(self, suffix: Sequence[int]) -> Cursor | None:
        """What followed the longest recorded suffix of a text that ends with `suffix`."""
        text = list(suffix[-MAX_LENGTH:])
        key = suffix_key(text)
        scope, most = self._find_scope(), self._neighbours
        # Equal keys are on the lower side, so half as many of the upper side will do.
        rows = self._query(_NEIGHBOURS_SQL, (scope, key, most, scope, key, most // 2))
        near: dict[int, list[int]] = {}
        for found, position in rows:
            if type(found) is int and type(position) is int:  # a damaged file may hold anything
                shared = num_shared(key, found)
                if shared >= MIN_LENGTH:
                    near.setdefault(shared, []).append(position)
        best: list[Place] = []
        length = MIN_LENGTH
        for shared in sorted(near, reverse=True):
            if shared < length:  # what shares fewer fields matches no longer
                break
            for place in self._places(near[shared][:most]):
                measured = self._match_length(place, text)
                if measured > length:
                    best, length = [place], measured
                elif measured == length:
                    best.append(place)
        return Cursor.at(self, best, length)

    def standing(self, places: Sequence[Place]) -> list[Place]:
        """Places that have a next token, those at the end of a block moved to the next block."""
        over = [place.number + 1 for place in places if place.offset == BLOCK]
        if over:
            self._load(over)
        return [moved for place in places if (moved := self._moved(place)) is not None]

    def _moved(self, place: Place) -> Place | None:
        if place.offset == BLOCK:
            block = self._blocks.get(place.number + 1)
            if block is None or block.sequence != place.block.sequence:
                return None
            place = Place(place.number + 1, 0, block)
        if place.offset >= len(place.block.tokens) or place.token >= self.num_tokens:
            return None
        return place

    def _places(self, positions: Sequence[int]) -> list[Place]:
        """The recorded places at these positions; those that are gone meanwhile are left out."""
        self._load([position >> BLOCK_BITS for position in positions])
        places = []
        for position in positions:
            number = position >> BLOCK_BITS
            block = self._blocks.get(number)
            if block is not None:
                places.append(Place(number, position & (BLOCK - 1), block))
        return places

    def _match_length(self, place: Place, suffix: list[int]) -> int:
        """How many tokens before `place` equal the end of `suffix` (at most MAX_LENGTH tokens)."""
        most = len(suffix)
        number, offset, block = place
        tokens = block.tokens
        if offset > len(tokens):
            return 0
        if offset >= most and tokens[offset - most : offset].tolist() == suffix:
            return most
        length = 0
        while length < most:
            if offset == 0:
                number -= 1
                self._load([number])
                before = self._blocks.get(number)
                if before is None or before.sequence != block.sequence:
                    break
                tokens = before.tokens
                offset = len(tokens)
            offset -= 1
            if tokens[offset] != suffix[-1 - length]:
                break
            length += 1
        return length

    def _load(self, numbers: Sequence[int]) -> None:
        """Bring blocks into memory."""
        missing = [number for number in dict.fromkeys(numbers) if number not in self._blocks]
        if len(self._blocks) + len(missing) > MAX_CACHED_BLOCKS:
            missing = list(dict.fromkeys(numbers))
            self._blocks.clear()
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            for number, sequence, tokens in self._query(_BLOCKS_SQLS[len(some)], some):
                if isinstance(tokens, bytes) and tokens:  # a damaged file may hold anything
                    self._blocks[number] = Block(sequence, unpack(tokens))

    def _find_scope(self) -> int:
        """Number of the tier; 0, which no tier has, while nothing was recorded in it."""
        if self._scope is None:
            rows = self._query(FIND_SCOPE, (self._vocabulary.fingerprint, self._tier))
            self._scope = int(rows[0][0]) if rows else None
        return self._scope or 0

    def _query(self, statement: str, values: Sequence[int | str]) -> list[tuple[Any, ...]]:
        if self.problem:
            return []
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError:  # locked for a moment: no match this time
            return []
        except DAMAGE as error:
            self.problem = f"the database is damaged ({error}); run `edgespec db check`"
            return []


class Cursor:
    """A place after the text in all recorded sequences that match it best; never changes."""

    __slots__ = ("_reader", "_votes", "length", "places")

    def __init__(self, reader: TokenReader, places: Sequence[Place], length: int) -> None:
        """Use `TokenReader.lookup`; `places` all have a next token."""
        self._reader = reader
        self.places = places
        self.length = length
        self._votes: dict[int, list[Place]] = {}
        for place in places:
            self._votes.setdefault(place.token, []).append(place)

    @staticmethod
    def at(reader: TokenReader, places: Sequence[Place], length: int) -> Cursor | None:
        """A cursor at those of `places` that have a next token; None if none has."""
        standing = reader.standing(places)
        return Cursor(reader, standing, length) if standing else None

    def best(self) -> Candidate:
        """The token that came next most often; of equals, the latest."""
        token, votes = max(self._votes.items(), key=_rank)
        return Candidate(token, self.length, len(votes), len(self.places))

    def after(self, token: int) -> Cursor | None:
        """The cursor after `token`, among the occurrences that had it next; None if none had."""
        votes = self._votes.get(token)
        if votes is None:
            return None
        moved = [Place(place.number, place.offset + 1, place.block) for place in votes]
        return Cursor.at(self._reader, moved, min(self.length + 1, MAX_LENGTH))

    def ahead(self, count: int) -> list[int]:
        """At most `count` tokens that follow in one recorded sequence, a most supported one."""
        _token, votes = max(self._votes.items(), key=_rank)
        place: Place | None = votes[-1]
        found: list[int] = []
        while place is not None and len(found) < count:
            rest = place.block.tokens[place.offset : place.offset + count - len(found)].tolist()
            found += rest
            moved = Place(place.number, place.offset + len(rest), place.block)
            place = next(iter(self._reader.standing([moved])), None)
        known = self._reader.num_tokens
        return list(itertools.takewhile(lambda token: token < known, found))

    def confirm(self) -> None:
        """Note that a guess from here was kept: its sequences are of use."""
        self._reader.used.update(place.block.sequence for place in self.places)


def _rank(item: tuple[int, list[Place]]) -> tuple[int, int, int]:
    votes = item[1]
    latest = max((place.number, place.offset) for place in votes)
    return len(votes), *latest
