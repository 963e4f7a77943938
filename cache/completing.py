"""What indexes tell of rows that are lost from a damaged database.

An index repeats the columns that it is over, on pages of its own: which scope has which vocabulary,
the paths of imported files, and of a recorded sequence all but the time at which it was recorded.
All tokens of a scope depend on its one row, and all blocks of a sequence on its.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from edgespec.cache.codec import BLOCK
from edgespec.cache.fragments import Extent
from edgespec.cache.leaves import Leaves
from edgespec.cache.tokens import MAX_CONTEXT, TIERS
from edgespec.cache.wreckage import SequenceRow, Wreckage

_MOST_BLOCKS = 1 << 48
"""A damaged number may be larger than any that SQLite takes once it is multiplied."""

_TEXT_AND_NUMBER = "typeof(c0) = 'text' AND typeof(c1) = 'integer' AND typeof(c2) = 'null'"
_TEXT_BETWEEN = "typeof(c0) = 'integer' AND typeof(c1) = 'text' AND typeof(c2) = 'integer'"
_GRAMS = "typeof(c0) = 'integer' AND typeof(c1) = 'integer' AND c2 BETWEEN ? AND ?"


def complete(leaves: Leaves, wreckage: Wreckage) -> None:
    """Add to `wreckage` what indexes tell of its lost rows."""
    _complete_scopes_and_files(leaves, wreckage)
    _complete_vocabularies(leaves, wreckage)
    _complete_sequences(leaves, wreckage)
    _mend_owners(leaves, wreckage)


def _complete_scopes_and_files(leaves: Leaves, wreckage: Wreckage) -> None:
    """Both have an index of a number, a text and their own number."""
    for page in leaves.entries(_TEXT_BETWEEN):
        for first, text, number in page:
            if text in TIERS:
                row = wreckage.scopes.get(number, (0, ""))
                if row[0] not in wreckage.vocabularies:
                    wreckage.scopes[number] = (first, text)
            else:
                wreckage.files.setdefault(number, (first, text, "", 0))


def _complete_vocabularies(leaves: Leaves, wreckage: Wreckage) -> None:
    lost = {vocabulary for vocabulary, _tier in wreckage.scopes.values()}
    lost -= wreckage.vocabularies.keys()
    if not lost:
        return
    others = {"version"}  # the search index notes its own in the same form
    others |= {row[0] for row in wreckage.conversations.values()}
    others |= {row[0] for row in wreckage.messages.values()}
    others |= {row.conversation for row in wreckage.sequences.values() if row.conversation}
    for page in leaves.entries(_TEXT_AND_NUMBER):
        for fingerprint, number, _nothing in page:
            if number in lost and fingerprint not in others:
                wreckage.vocabularies.setdefault(number, (fingerprint, None))


def _complete_sequences(leaves: Leaves, wreckage: Wreckage) -> None:
    """Sequences whose rows are lost, from their blocks and indexes.

    Not those of imported files: they can be imported again, and what file they belong to is not
    to be told from an index alone.
    """
    blocks: dict[int, list[int]] = defaultdict(list)
    for block, (sequence, _packed) in wreckage.blocks.items():
        if sequence not in wreckage.sequences:
            blocks[sequence].append(block)
    if not blocks:
        return
    conversations = _conversations_of(leaves, wreckage, blocks.keys())
    places = _places(leaves, wreckage, blocks)
    for sequence, own in blocks.items():
        first, last = min(own), max(own)
        scope, first_indexed = places.get(sequence, (_only(wreckage.scopes), 0))
        if wreckage.scopes.get(scope, (0, ""))[1] != "model":
            continue
        offset = first_indexed - first * BLOCK
        num_context = offset if 1 < offset <= MAX_CONTEXT else 0
        num_tokens = (last - first) * BLOCK + len(wreckage.blocks[last][1]) // 4 - num_context
        conversation = conversations.get(sequence)
        extent = Extent(first, num_context, num_tokens)
        wreckage.sequences[sequence] = SequenceRow(scope, conversation, None, extent, None)


def _conversations_of(leaves: Leaves, wreckage: Wreckage, lost: Collection[int]) -> dict[int, str]:
    """The conversations of lost sequences.

    Three indexes hold texts and numbers: a page that the rows of the other two do not explain is of
    the sequences. Where those rows are lost, too, it must look like it: a conversation twice on the
    page, or one that is known to have another number.
    """
    numbers = {row[0]: number for number, row in wreckage.conversations.items()}
    explained = Counter(numbers.items())
    explained.update((row[0], number) for number, row in wreckage.vocabularies.items())
    known = numbers.keys() | {row[0] for row in wreckage.messages.values()}
    found: dict[int, str] = {}
    for page in leaves.entries(_TEXT_AND_NUMBER):
        entries = [(text, number) for text, number, _nothing in page]
        if 2 * sum(explained[entry] > 0 for entry in entries) > len(entries):
            explained.subtract(entries)
        elif _is_of_sequences(entries, numbers):
            found |= {number: text for text, number in entries if number in lost and text in known}
    return found


def _is_of_sequences(entries: list[tuple[str, int]], numbers: Mapping[str, int]) -> bool:
    texts = {text for text, _number in entries}
    has_another_number = any(numbers.get(text, number) != number for text, number in entries)
    return len(texts) < len(entries) or has_another_number or texts <= numbers.keys()


def _mend_owners(leaves: Leaves, wreckage: Wreckage) -> None:
    """Let indexes name the conversation of sequences whose own rows name one that is not known.

    Else forgetting the conversation would leave what was learned from it.
    """
    known = {row[0] for row in wreckage.conversations.values()}
    known |= {row[0] for row in wreckage.messages.values()}
    strange = {
        number
        for number, row in wreckage.sequences.items()
        if row.conversation is not None and row.conversation not in known
    }
    if not strange:
        return
    for number, conversation in _conversations_of(leaves, wreckage, strange).items():
        wreckage.sequences[number] = replace(wreckage.sequences[number], conversation=conversation)


def _places(
    leaves: Leaves, wreckage: Wreckage, blocks: Mapping[int, list[int]]
) -> dict[int, tuple[int, int]]:
    """Scope and first indexed position of lost sequences, from the index of tokens."""
    owned = [block for own in blocks.values() for block in own if 0 < block < _MOST_BLOCKS]
    if not owned:
        return {}
    found: dict[int, tuple[int, int]] = {}
    for page in leaves.entries(_GRAMS, (min(owned) * BLOCK, (max(owned) + 1) * BLOCK)):
        for scope, _key, position in page:
            sequence, _packed = wreckage.blocks.get(position // BLOCK, (0, b""))  # no sequence is 0
            if sequence in blocks:
                first = found.get(sequence, (scope, position))[1]
                found[sequence] = (scope, min(first, position))
    return found


def _only(scopes: Mapping[int, object]) -> int:
    """The number of the one scope; 0, which none has, if there are more or fewer."""
    return next(iter(scopes)) if len(scopes) == 1 else 0
