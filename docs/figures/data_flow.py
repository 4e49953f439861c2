"""How a galaxy passes through the package."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

GREEN, ORANGE, PINK, GREY = "#009E73", "#E69F00", "#CC79A7", "0.6"
BOXES = {
    "user": (0, 3.7, 2.7, "image, noise, mask,\nPSF, WCS, positions", GREY),
    "prepare": (3.5, 3.7, 2.7, "observe.prepare\ncut, recentre, flag", GREEN),
    "stamps": (7.0, 3.7, 2.7, "Stamps: data, ivar,\nPSF, Jacobian,\nsky position", GREEN),
    "network": (10.5, 3.7, 2.7, "network\nproposal q(θ | stamp)", ORANGE),
    "ml": (10.5, 1.95, 2.7, "maximum likelihood\nby Fisher scoring", ORANGE),
    "posterior": (10.5, 0.2, 2.7, "importance sampling\nweights L π / q", ORANGE),
    "judged": (5.25, 1.95, 2.7, "at the estimate:\nbound, χ², flags", ORANGE),
    "catalog": (0, 1.95, 2.7, "ShapeCatalog\nunits, sky frame", ORANGE),
    "render": (14.3, 1.95, 2.2, "renderer\nmodel and\nderivatives", PINK),
}
HEIGHT = 1.2
DOTTED = {"ls": ":", "color": PINK, "lw": 1.8}

figure, axis = plt.subplots(figsize=(10.5, 4.0), layout="constrained")
for x, y, width, text, color in BOXES.values():
    axis.add_patch(
        FancyBboxPatch((x, y), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.15",
                       facecolor=color, alpha=0.3, edgecolor=color)
    )  # fmt: skip
    axis.text(x + width / 2, y + HEIGHT / 2, text, ha="center", va="center", fontsize=9)


def edge(name, side):
    """Middle of a side of a box."""
    x, y, width, *_ = BOXES[name]
    return {
        "left": (x, y + HEIGHT / 2),
        "right": (x + width, y + HEIGHT / 2),
        "top": (x + width / 2, y + HEIGHT),
        "bottom": (x + width / 2, y),
    }[side]


def arrow(start, end, **style):
    """Arrow between two points."""
    options = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.2, "shrinkA": 1, "shrinkB": 1} | style
    axis.annotate("", end, start, arrowprops=options)


def connect(start, start_side, end, end_side, **style):
    """Arrow from the side of one box to that of another."""
    arrow(edge(start, start_side), edge(end, end_side), **style)


connect("user", "right", "prepare", "left")
connect("prepare", "right", "stamps", "left")
connect("stamps", "right", "network", "left")
connect("network", "bottom", "ml", "top")
connect("ml", "bottom", "posterior", "top")
connect("ml", "left", "judged", "right")
connect("judged", "left", "catalog", "right")
arrow((10.6, 3.7), (6.9, 3.15))
arrow((10.5, 0.8), (6.6, 1.95))
for x, y, text in ((8.9, 3.1, '"network"'), (9.2, 2.63, '"ml"'), (9.2, 1.5, '"posterior"')):
    axis.text(x, y, text, fontsize=9, ha="center", va="bottom", family="monospace")
for end in ("network", "ml", "posterior"):
    connect("render", {"network": "top", "ml": "left", "posterior": "bottom"}[end], end, "right", **DOTTED)
axis.text(14.9, 4.4, "training\nmocks", fontsize=8, color="0.3", ha="center", va="center")
axis.set(xlim=(-0.1, 16.6), ylim=(0, 5.1))
axis.axis("off")
