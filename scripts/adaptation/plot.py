"""A learning curve as SVG: first guesses right by turn, of the drafter alone and as served."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 34, 40
_COLOURS = ("#888888", "#0a6cbd")


def learning_curve(title: str, turns: Sequence[int], lines: dict[str, Sequence[float]]) -> str:
    """One SVG; `lines` gives, by name, a value for each of `turns`. The middle is marked."""
    values = [value for line in lines.values() for value in line]
    low, high = min(values) - 0.01, max(values) + 0.01

    def x_of(turn: float) -> float:
        share = (turn - turns[0]) / max(turns[-1] - turns[0], 1)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    first, last = int(low * 50) + 1, int(high * 50)
    for step in range(first, last + 1):
        y = y_of(step / 50)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{step / 50}</text>')
    middle = x_of((turns[0] + turns[-1]) / 2)
    bottom = HEIGHT - _BOTTOM
    parts.append(
        f'<path d="M{middle:.1f} {_TOP}V{bottom}" stroke="#bbbbbb" stroke-dasharray="4 3"/>'
    )
    for turn in turns[:: max(len(turns) // 6, 1)]:
        parts.append(
            f'<text x="{x_of(turn):.1f}" y="{bottom + 16}" text-anchor="middle">{turn}</text>'
        )
    for (name, line), colour in zip(lines.items(), _COLOURS, strict=False):
        points = " ".join(
            f"{x_of(turn):.1f},{y_of(value):.1f}" for turn, value in zip(turns, line, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        x, y = x_of(turns[-1]) - 60, y_of(line[-1]) - 6
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
