"""The layers of the package: each may import what lies below it, never what lies above."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from galshape_cnn.tests.layers import LAYERS

COLORS = {"forward": "#CC79A7", "observe": "#009E73", "infer": "#E69F00"}
FLOORS = [(name, what, COLORS.get(name, "#56B4E9")) for name, what in reversed(LAYERS.items())]
FLOORS.append(("errors flags geometry …", "exceptions, flag bits, algebra of shear, sky", "0.75"))

figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
for i, (name, what, color) in enumerate(FLOORS):
    bottom = len(FLOORS) - 1 - i
    axis.add_patch(
        FancyBboxPatch((0, bottom + 0.12), 10, 0.76, boxstyle="round,pad=0,rounding_size=0.12",
                       facecolor=color, alpha=0.35, edgecolor=color)
    )  # fmt: skip
    axis.text(
        0.25, bottom + 0.5, name, ha="left", va="center", family="monospace", weight="bold", fontsize=11
    )
    axis.text(3.75, bottom + 0.5, what, ha="left", va="center", fontsize=10)
arrow = {"arrowstyle": "-|>", "color": "0.35", "lw": 1.5}
axis.annotate("", (10.5, 0.3), (10.5, len(FLOORS) - 0.3), arrowprops=arrow)
axis.text(10.8, len(FLOORS) / 2, "may import", rotation=-90, ha="center", va="center", color="0.35")
axis.set(xlim=(-0.1, 11.1), ylim=(0, len(FLOORS)))
axis.axis("off")
