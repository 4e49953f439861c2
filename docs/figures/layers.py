"""The layers of the package: each may import what lies below it, never what lies above."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

LAYERS = [
    ("cli", "the command line", "#56B4E9"),
    ("scale", "catalogues of any size: streams, processes, Dask", "#56B4E9"),
    ("study", "make a network; prove what it does; reports", "#56B4E9"),
    ("infer", "stamps → parameters: network, fit, posterior, bound", "#E69F00"),
    ("observe", "the user's images, cutouts and files → stamps", "#009E73"),
    ("forward", "parameters → pixels, and the derivatives", "#CC79A7"),
    ("errors flags geometry …", "exceptions, flag bits, algebra of shear (NumPy only)", "0.75"),
]

figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
for i, (name, what, color) in enumerate(LAYERS):
    bottom = len(LAYERS) - 1 - i
    axis.add_patch(
        FancyBboxPatch((0, bottom + 0.12), 10, 0.76, boxstyle="round,pad=0,rounding_size=0.12",
                       facecolor=color, alpha=0.35, edgecolor=color)
    )  # fmt: skip
    axis.text(
        0.25, bottom + 0.5, name, ha="left", va="center", family="monospace", weight="bold", fontsize=11
    )
    axis.text(3.75, bottom + 0.5, what, ha="left", va="center", fontsize=10)
arrow = {"arrowstyle": "-|>", "color": "0.35", "lw": 1.5}
axis.annotate("", (10.5, 0.3), (10.5, len(LAYERS) - 0.3), arrowprops=arrow)
axis.text(10.8, len(LAYERS) / 2, "may import", rotation=-90, ha="center", va="center", color="0.35")
axis.set(xlim=(-0.1, 11.1), ylim=(0, len(LAYERS)))
axis.axis("off")
