"""Which drafts to verify, and how much of them: the one objective behind every drafter.

Verifying the first k guesses, whose acceptance estimates are a1, a2, ... (each given that those
before were kept), emits on average

    E(k) = 1 + a1 + a1*a2 + ... + a1*...*ak

tokens and costs the drafting so far plus T(k + 1). The plan is the k with the largest E(k) per
millisecond, 0 included. Answers that are computed together share one pass: E is the sum over them,
and the next row goes to the answer whose next guess is likeliest to be reached and kept.

A draft grows token by token. At each place every drafter may be asked what comes next, given the
draft so far: look-ups always, since they cost nothing; a drafter that costs time only where what it
usually gets right (`Quote.expected`) promises more than the best known, and while its `Budget`
allows it. The likeliest guess is taken, whoever made it, so sources follow one another within a
draft.

A draft must promise its answer MIN_GAIN over plain decoding, because the estimates are never exact
and a wrong "yes" costs more than a wrong "no".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgespec.passes import EMPTY_DRAFT, Draft, Guesses, Kept
from edgespec.planning.budget import MOST_LATE, Account, Budgets
from edgespec.planning.cost import CostModel
from edgespec.planning.growth import Growth, Outcome
from edgespec.protocols import FREE, Drafter, DraftSession, Matcher, Quote
from edgespec.types import (
    TARGET,
    DrafterCounts,
    DrafterInsight,
    EncodedPrompt,
    Insight,
    drafter_of,
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A drafter that follows one answer, and what it may spend on it."""

    name: str
    session: DraftSession
    account: Account


@dataclass(frozen=True, slots=True)
class Want:
    """An answer that is to be drafted: by whom, after how many cached tokens.

    It takes `num_rows` rows without a draft, and its draft may have `max_draft` tokens, which
    `matcher` must take.
    """

    contenders: Sequence[Contender]
    context: int
    max_draft: int
    num_rows: int = 1
    matcher: Matcher | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The draft to verify for one answer, and everything that was pulled to choose it.

    `predicted_ms` is what the whole pass is expected to take, `plain_ms` what one row alone;
    `drafter_ms` what each drafter took, `start_ms` what it was expected to take for reading,
    `bridge_ms` what bridges took of it.
    `speed_without` tells for each drafter that costs time the speed, in tokens per millisecond of
    the whole pass, that was expected when it was first asked.
    """

    draft: Draft = EMPTY_DRAFT
    predicted_ms: float = 0.0
    guesses: Mapping[str, tuple[Guesses, ...]] = field(default_factory=dict)
    drafter_ms: Mapping[str, float] = field(default_factory=dict)
    start_ms: Mapping[str, float] = field(default_factory=dict)
    bridge_ms: float = 0.0
    speed_without: Mapping[str, float] = field(default_factory=dict)
    plain_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How a planner chooses; as it stands, by the objective above.

    `outcome` judges how far drafts grow, of at most `most_draft` tokens if that is given. Where it
    `has_budgets` they bound what drafters may cost.
    """

    outcome: type[Outcome] = Outcome
    most_draft: int | None = None
    has_budgets: bool = True


THE_RULE = Rule()


class Planner:
    """Shares the rows of a pass among answers and drafters, and learns what passes give."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        costs: CostModel,
        clock: Callable[[], float],
        rule: Rule = THE_RULE,
    ) -> None:
        """`clock` gives seconds."""
        self.costs = costs
        self._rule = rule
        self._drafters = tuple(drafters)
        self._clock = clock
        self._budgets = Budgets(lambda: costs.pass_ms(1, 0))
        self._context = 0
        self._proposed: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._quotes: dict[str, Quote] = {}

    def open(
        self,
        prompt: EncodedPrompt,
        said: Sequence[int],
        max_tokens: int,
        matcher: Matcher | None = None,
    ) -> tuple[Contender, ...]:
        """Have every drafter follow an answer of at most `max_tokens`, of which some were said."""
        return tuple(
            Contender(
                each.name,
                each.open(prompt, said, matcher),
                self._budgets.open(each.name, max_tokens, len(said)),
            )
            for each in self._drafters
        )

    def plan(self, wants: Sequence[Want], max_rows: int) -> list[Plan]:
        """Pull from the drafters while it pays and choose how many guesses to verify of each.

        The pass that the answers share has at most `max_rows` rows.
        """
        curve = self.costs.curve_ms(_mean_context(wants))[:max_rows].tolist()
        outcome = self._rule.outcome(curve, len(wants), sum(want.num_rows for want in wants))
        growths = [self._growth(want, outcome, len(wants)) for want in wants]
        while outcome.has_room:
            able = [growth for growth in growths if growth.look_ahead()]
            if not able:
                break
            max(able, key=lambda growth: growth.next_reach).advance()
        return [
            Plan(
                growth.draft(),
                outcome.best_ms,
                growth.guesses(),
                growth.drafter_ms,
                growth.start_ms,
                growth.bridge_ms,
                outcome.speed_without,
                curve[0],
            )
            for growth in growths
        ]

    def settle(
        self, wants: Sequence[Want], plans: Sequence[Plan], kept: Sequence[Kept], target_ms: float
    ) -> None:
        """Learn what a planned pass really took and gave."""
        num_rows = sum(
            want.num_rows + len(plan.draft) for want, plan in zip(wants, plans, strict=True)
        )
        self._context = _mean_context(wants)
        self.costs.observe(num_rows, self._context, target_ms)
        num_emitted = sum(len(each.tokens) for each in kept)
        pass_ms = min(target_ms, MOST_LATE * plans[0].predicted_ms)
        total_ms = pass_ms + sum(sum(plan.drafter_ms.values()) for plan in plans)
        num_asked = Counter(name for plan in plans for name in plan.start_ms)
        for want, plan, each in zip(wants, plans, kept, strict=True):
            for contender in want.contenders:
                num_sharing = num_asked[contender.name] or 1
                contender.account.settle(
                    num_emitted=len(each.tokens),
                    pass_ms=pass_ms / len(wants),
                    total_ms=total_ms / num_sharing,
                    total_emitted=num_emitted / num_sharing,
                    start_ms=plan.start_ms.get(contender.name),
                    speed_without=plan.speed_without.get(contender.name),
                )
                contender.session.learn(each)
            self._proposed.update(each.proposed)
            self._accepted.update(drafter_of(source) for source in each.sources if source != TARGET)

    def insight(self, max_rows: int) -> Insight:
        """T(r) up to so many rows after the context of the last pass, and what drafters gave.

        From any thread.
        """
        curve = self.costs.curve_ms(self._context)[: max(max_rows, 1)].tolist()
        drafters = tuple(self._told_of(each.name) for each in self._drafters if each.name)
        return Insight(dict(enumerate(curve, start=1)), self._context, drafters)

    def close(self, contenders: Sequence[Contender]) -> None:
        """An answer is over."""
        for contender in contenders:
            contender.session.close()

    def _told_of(self, name: str) -> DrafterInsight:
        quote = self._quotes.get(name, FREE)
        return DrafterInsight(
            name,
            DrafterCounts(self._proposed[name], self._accepted[name]),
            quote.guess_ms,
            self._budgets.balance_ms(name) if quote.guess_ms else None,
            quote.guess_bytes,
        )

    def _growth(self, want: Want, outcome: Outcome, num_answers: int) -> Growth:
        able, rule = [], self._rule
        room = want.max_draft if rule.most_draft is None else min(want.max_draft, rule.most_draft)
        for each in want.contenders if room else ():
            quote = each.session.quote
            self._quotes[each.name] = quote
            if not rule.has_budgets:
                able.append((each.name, each.session, math.inf))
            elif each.account.allows(quote, num_answers):
                able.append((each.name, each.session, each.account.balance_ms))
        return Growth(able, outcome, room, self._clock, want.matcher)


def _mean_context(wants: Sequence[Want]) -> int:
    return sum(want.context for want in wants) // len(wants)
