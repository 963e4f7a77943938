"""A drafter that is trained, in torch: factors beside its matrices, and Adam that moves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgespec.learning.corpus import NO_TOKEN
from edgespec.learning.decoder import Decoder
from edgespec.learning.lessons import Lesson
from edgespec.learning.lora import Lora, LowRank
from edgespec.learning.soft import Soft
from edgespec.learning.training import Arrays, Judged, TuningOptions

_UNKNOWN = -1
_ROWS_AT_ONCE = 128
"""Positions whose logits are in memory at a time."""


class TorchPupil:
    """Implements `edgespec.learning.training.Pupil` over a decoder."""

    def __init__(
        self,
        decoder: Decoder,
        kept: NDArray[np.int32],
        num_tokens: int,
        options: TuningOptions,
    ) -> None:
        """`kept` are the tokens of the head's rows, of `num_tokens` in the vocabulary."""
        self._decoder = decoder
        self._options = options
        self._row_of = np.full(num_tokens, _UNKNOWN, np.int64)
        self._row_of[kept] = np.arange(len(kept))
        random = torch.Generator().manual_seed(0)
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (num_out, num_in) in decoder.matrices.items():
            down = torch.randn(options.rank, num_in, generator=random) * num_in**-0.5
            up = torch.zeros(num_out, options.rank)
            self._factors[name] = (down.requires_grad_(), up.requires_grad_())
        self._optimizer = torch.optim.Adam(
            [factor for pair in self._factors.values() for factor in pair],
            lr=options.learning_rate,
            betas=(0.9, 0.99),
        )
        self._scale = options.alpha / options.rank
        self._num_steps = 0
        self._means = {
            name: (down.detach().clone(), up.detach().clone())
            for name, (down, up) in self._factors.items()
        }

    def study(self, lesson: Lesson) -> float:
        """Add one lesson's gradients; the mean negative log-likelihood of what it teaches."""
        targets = self._targets(lesson)
        count = int((targets != _UNKNOWN).sum())
        if not count:
            return 0.0
        likely = self._likely(lesson.soft)
        total = 0.0

        def learn(hidden: Tensor) -> Tensor:
            nonlocal total
            gradients = []
            for start in range(0, len(targets), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                rows = hidden[part].clone().requires_grad_()
                logprobs = functional.log_softmax(self._decoder.logits(rows), dim=-1)
                loss = said = _surprise(logprobs, targets[part])
                if likely is not None:
                    loss = self._mixed(logprobs, said, *(each[part] for each in likely))
                (loss.sum() / self._options.tokens_a_step).backward()
                total += float(said.detach().sum())
                assert rows.grad is not None
                gradients.append(rows.grad)
            return torch.cat(gradients)

        told = lesson.tokens[:-1], lesson.first - 1
        self._decoder.study(*told, self._factors, self._scale, learn)
        return total / count

    def step(self) -> None:
        """Change the factors by what was added up since the last step."""
        self._num_steps += 1
        warm = min(1.0, self._num_steps / self._options.num_warm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.learning_rate * warm
        factors = [factor for pair in self._factors.values() for factor in pair]
        torch.nn.utils.clip_grad_norm_(factors, self._options.most_gradient)
        self._optimizer.step()
        self.forget()
        options = self._options
        span = min(options.share_of_mean * self._num_steps, options.most_in_mean)
        with torch.no_grad():
            for name, pair in self._factors.items():
                for mean, factor in zip(self._means[name], pair, strict=True):
                    mean.lerp_(factor, 1.0 / max(span, 1.0))

    def forget(self) -> None:
        """Drop what was added up."""
        self._optimizer.zero_grad(set_to_none=True)

    def judge(self, lessons: Sequence[Lesson]) -> Judged:
        """How well it guesses lessons now."""
        num_tokens, num_known, num_right, total = 0, 0, 0, 0.0
        with torch.no_grad():
            for lesson in lessons:
                targets = self._targets(lesson)
                told = lesson.tokens[:-1], lesson.first - 1
                hidden = self._decoder.hidden(*told, self._means, self._scale)
                for start in range(0, len(targets), _ROWS_AT_ONCE):
                    part = slice(start, start + _ROWS_AT_ONCE)
                    logits, wanted = self._decoder.logits(hidden[part]), targets[part]
                    num_right += int((logits.argmax(dim=-1) == wanted).sum())
                    known = wanted != _UNKNOWN
                    total += float(
                        functional.cross_entropy(logits[known], wanted[known], reduction="sum")
                    )
                    num_known += int(known.sum())
                num_tokens += len(targets)
        return Judged(num_tokens, num_right, total / max(num_known, 1))

    def state(self) -> Arrays:
        """All that it needs to go on, by name."""
        arrays: dict[str, NDArray[np.float32]] = {
            "num_steps": np.array([self._num_steps], np.float32)
        }
        for name, pair in self._factors.items():
            for part, factor, mean in zip(_PARTS, pair, self._means[name], strict=True):
                arrays[f"{name}.{part}"] = _array(factor)
                arrays[f"{name}.{part}.{_MEAN}"] = _array(mean)
                moments = self._optimizer.state.get(factor, {})
                for moment in _MOMENTS:
                    if moment in moments:
                        arrays[f"{name}.{part}.{moment}"] = _array(moments[moment])
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Go on from a state; raises ValueError, and changes nothing, if it is of another form."""
        for name, pair in self._factors.items():
            for part, factor in zip(_PARTS, pair, strict=True):
                key = f"{name}.{part}"
                for known in (key, *(f"{key}.{each}" for each in (_MEAN, *_MOMENTS))):
                    found = arrays.get(known)
                    if found is not None and found.shape != tuple(factor.shape):
                        raise ValueError(f"{known} is of another form")
                if not {key, f"{key}.{_MEAN}"} <= arrays.keys():
                    raise ValueError(f"{name} is missing")
        self._num_steps = int(arrays["num_steps"][0])
        for name, pair in self._factors.items():
            for part, factor, mean in zip(_PARTS, pair, self._means[name], strict=True):
                key = f"{name}.{part}"
                with torch.no_grad():
                    factor.copy_(_tensor(arrays[key]))
                    mean.copy_(_tensor(arrays[f"{key}.{_MEAN}"]))
                if f"{key}.{_MOMENTS[0]}" in arrays:
                    self._optimizer.state[factor] = {
                        "step": torch.tensor(float(self._num_steps)),
                        **{moment: _tensor(arrays[f"{key}.{moment}"]) for moment in _MOMENTS},
                    }

    def adopt(self, lora: Lora) -> None:
        """Begin with what was learned before; raises ValueError if that is of another form."""
        shapes = {name: (len(c.up), c.down.shape[1]) for name, c in lora.changes.items()}
        ranks = {len(change.down) for change in lora.changes.values()}
        if shapes != self._decoder.matrices or ranks != {self._options.rank}:
            raise ValueError("it changes other matrices, or by another rank")
        ratio = lora.alpha / self._options.alpha
        with torch.no_grad():
            for name, change in lora.changes.items():
                values = _tensor(change.down), _tensor(change.up) * ratio
                for own in (self._factors[name], self._means[name]):
                    for factor, value in zip(own, values, strict=True):
                        factor.copy_(value)

    def lora(self) -> Lora:
        """What it learned: the mean over its latest steps, which guesses better than the last."""
        changes = {
            name: LowRank(_array(down), _array(up)) for name, (down, up) in self._means.items()
        }
        return Lora(self._options.alpha, changes)

    def _targets(self, lesson: Lesson) -> Tensor:
        """Rows of the head that are to be guessed, _UNKNOWN where it has none."""
        return torch.from_numpy(self._row_of[np.array(lesson.tokens[lesson.first :])])

    def _likely(self, soft: Soft | None) -> tuple[Tensor, Tensor] | None:
        """Rows of the head that the target held likely, and how likely: (n, NUM_TOP) each.

        None where the head has no row, or nothing is told, is of probability 0.
        """
        if soft is None:
            return None
        rows = np.where(soft.tokens == NO_TOKEN, _UNKNOWN, self._row_of[soft.tokens])
        known = np.where(rows == _UNKNOWN, 0.0, soft.probabilities).astype(np.float32)
        return torch.from_numpy(rows.clip(0)), torch.from_numpy(known)

    def _mixed(self, logprobs: Tensor, said: Tensor, rows: Tensor, chances: Tensor) -> Tensor:
        """Losses (n,): cross-entropy to what the target held likely, and to what it said.

        What is not told of the target's distribution counts for what it said.
        """
        shares = self._options.soft * chances
        return (1 - shares.sum(-1)) * said - (shares * logprobs.gather(-1, rows)).sum(-1)


def _surprise(logprobs: Tensor, rows: Tensor) -> Tensor:
    """Negative log-probabilities (n,) of one row each, 0 where it is unknown."""
    return functional.nll_loss(logprobs, rows, ignore_index=_UNKNOWN, reduction="none")


_PARTS = ("down", "up")
_MEAN = "mean"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy().copy()
    return array


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
