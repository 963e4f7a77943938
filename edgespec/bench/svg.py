"""Figures drawn by matplotlib as SVG that suits the page around it: text, light and dark.

Colours are those of the page. Where matplotlib writes a colour of the palette, a class takes its
place, and the style sheet knows both of its values; nothing is left in `style` attributes, so a
page can forbid them. The light colours stay as attributes for what knows no style sheets.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = Literal[
    "ground",
    "raised",
    "line",
    "text",
    "muted",
    "accent",
    "context",
    "model",
    "statistics",
    "drafter",
    "grammar",
]

PALETTE: Mapping[Colour, tuple[str, str]] = {
    "ground": ("#fbfaf8", "#16171a"),
    "raised": ("#f0eee9", "#222429"),
    "line": ("#dedbd4", "#34373d"),
    "text": ("#22242a", "#e4e4e0"),
    "muted": ("#666a73", "#969aa3"),
    "accent": ("#0b6e62", "#5cc8b6"),
    "context": ("#1c7a34", "#79d18c"),
    "model": ("#8a5300", "#e5b567"),
    "statistics": ("#7a3fa0", "#c79be6"),
    "drafter": ("#1b5fb8", "#7fb4f5"),
    "grammar": ("#b0316e", "#f096bf"),
}
"""Light and dark; as the chat in the browser has them."""

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_NAMES = {light: name for name, (light, _) in PALETTE.items()}
SIZE = 12
"""Of all letters, in pixels."""


def colour(name: Colour) -> str:
    """What matplotlib is told; the light one."""
    return PALETTE[name][0]


class Canvas:
    """A figure of some pixels, whose axes are placed by pixels from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        """Draws nothing yet."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with nothing but a thin line below."""
        place = (left / self.width, 1 - (top + height) / self.height)
        axes = self.figure.add_axes((*place, width / self.width, height / self.height))
        axes.patch.set_visible(False)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(colour("line"))
        axes.tick_params(colors=colour("muted"), labelsize=SIZE, length=0, pad=5)
        return axes

    def text(
        self,
        left: float,
        top: float,
        text: str,
        name: Colour = "text",
        *,
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
    ) -> None:
        """A line of text whose middle is `top` pixels from the upper edge."""
        self.figure.text(
            left / self.width,
            1 - top / self.height,
            text.replace("$", r"\$"),
            color=colour(name),
            fontsize=SIZE,
            fontweight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
        )

    def svg(self, label: str, style: str = "") -> str:
        """The whole as an element `svg`, told as `label`; `style` is a style sheet of its own."""
        import matplotlib

        out = io.StringIO()
        with matplotlib.rc_context(
            {"svg.fonttype": "none", "svg.hashsalt": f"{label} {self.width}"}
        ):
            metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            self.figure.savefig(out, format="svg", transparent=True, metadata=metadata)
        return _cleaned(out.getvalue(), self.width, self.height, label, style)


def classes() -> str:
    """The style sheet of a page: each colour of a drawing is one of the page's variables."""
    rules = [
        f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in PALETTE
    ]
    return "".join(rules)


def own_style() -> str:
    """The style sheet of a drawing that stands alone, as in a README."""

    def rules(index: int) -> str:
        return "".join(
            f".f-{name}{{fill:{pair[index]}}}.s-{name}{{stroke:{pair[index]}}}"
            for name, pair in PALETTE.items()
        )

    return f"{rules(0)}@media(prefers-color-scheme:dark){{{rules(1)}}}"


def _cleaned(text: str, width: float, height: float, label: str, style: str) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK[1:].partition("}")[0])
    root = ElementTree.fromstring(text[text.index("<svg") :])
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    _prune(root)
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        element.text = (element.text or "").strip()
        element.tail = ""
        _unstyle(element)
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "role": "img",
            "aria-label": label,
            "font-family": "system-ui, sans-serif",
            "stroke-linejoin": "round",
        }
    )
    if style:
        sheet = ElementTree.Element(f"{{{_SVG}}}style")
        sheet.text = style
        root.insert(0, sheet)
    return ElementTree.tostring(root, encoding="unicode")


def _prune(parent: ElementTree.Element) -> None:
    """Leave out what says nothing: metadata, a style sheet for all, groups without children."""
    for child in list(parent):
        _prune(child)
        tag = child.tag.rpartition("}")[2]
        if tag in ("metadata", "style") or (tag in ("defs", "g") and not len(child)):
            parent.remove(child)


def _unstyle(element: ElementTree.Element) -> None:
    """Attributes and classes instead of `style`."""
    named = []
    for rule in filter(None, (element.attrib.pop("style", "")).split(";")):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name not in ("font-family", "white-space"):
            element.set(name, value)
    for name, letter in (("fill", "f"), ("stroke", "s")):
        known = _NAMES.get(element.get(name, "").lower())
        if known:
            named.append(f"{letter}-{known}")
    if named:
        element.set("class", " ".join(named))
