"""Memory over time as an SVG drawing that needs nothing around it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from patcher.sizes import size

WIDTH, HEIGHT = 860, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 18, 34


def chart(points: Sequence[tuple[float, int]], limit: int, axis: str) -> str:
    """A line of bytes over ``axis``, and the limit where it is in sight.

    Args:
        points: (position along the axis, bytes), in order.
        limit: bytes; 0 means none. It is drawn where memory came to a quarter of it or more.
        axis: what the horizontal axis counts.
    """
    if len(points) < 2:
        return ""
    highest = max(count for _, count in points)
    shows_limit = 0 < limit <= 4 * highest
    top = _round_up(max(highest, limit if shows_limit else 0, 1))
    begin, end = points[0][0], points[-1][0]

    def x(position: float) -> float:
        return _LEFT + (position - begin) / ((end - begin) or 1) * (WIDTH - _LEFT - _RIGHT)

    def y(count: float) -> float:
        return HEIGHT - _BOTTOM - count / top * (HEIGHT - _TOP - _BOTTOM)

    line = " ".join(f"{x(position):.1f},{y(count):.1f}" for position, count in points)
    area = f"{x(begin):.1f},{y(0):.1f} {line} {x(end):.1f},{y(0):.1f}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="memory over {escape(axis)}">']
    for quarter in range(5):
        count = top * quarter / 4
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 8}" y="{y(count) + 4:.1f}">{size(count)}</text>')
    parts.append(f'<polygon class="area" points="{area}"/><polyline class="line" points="{line}"/>')
    if shows_limit:
        parts.append(
            f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
        )
        parts.append(f'<text class="end limit" x="{WIDTH - _RIGHT}" y="{y(limit) - 5:.1f}">limit {size(limit)}</text>')
    for share, anchor in ((0.0, ""), (0.5, "middle"), (1.0, "end")):
        position = begin + share * (end - begin)
        parts.append(f'<text class="{anchor}" x="{x(position):.1f}" y="{HEIGHT - 18}">{_number(position)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="middle" x="{middle}" y="{HEIGHT - 4}">{escape(axis)}</text></svg>')
    return "".join(parts)


def _round_up(count: float) -> float:
    """The next count whose quarters are whole multiples of a power of two of bytes, at most a third above."""
    step = 1
    while 4 * step < count:
        step *= 2
    for quarters in (4 * step * 5 // 8, 4 * step * 3 // 4, 4 * step * 7 // 8, 4 * step):
        if count <= quarters:
            return quarters
    return 4 * step


def _number(value: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"
