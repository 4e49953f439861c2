"""Two half-light radii: hlr, whose circle has the area of the ellipse, and r_eff along the major axis."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, Ellipse

from galshape_cnn.geometry import axis_ratio, semi_major_radius

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"
G, HLR = 0.3, 1.0

q, r_eff = float(axis_ratio(G, 0)), float(semi_major_radius(HLR, G, 0))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=(1.15, 1))

left.add_patch(Ellipse((0, 0), 2 * r_eff, 2 * r_eff * q, facecolor=ORANGE, alpha=0.2))
left.add_patch(Ellipse((0, 0), 2 * r_eff, 2 * r_eff * q, fill=False, edgecolor=ORANGE, lw=1.5))
left.add_patch(Circle((0, 0), HLR, fill=False, edgecolor=BLUE, lw=1.5, ls="--"))
left.annotate("", (r_eff, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "color": ORANGE})
left.annotate("", HLR * np.array([-0.6, 0.8]), (0, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE})
left.text(0.5, -0.16, r"r_eff $= a$", color=ORANGE, ha="center", va="center")
left.text(-0.13, 0.5, "hlr", color=BLUE, ha="center", va="center")
left.set(aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.2, 1.55), xticks=[], yticks=[])
left.spines[:].set_visible(False)
caption = f"half of the light is inside the ellipse;\nthe circle has the same area (g = {G}, q = {q:.2f})"
left.text(0, 1.35, caption, ha="center", va="center", fontsize=10)

g = np.linspace(0, 0.7, 200)
right.plot(g, semi_major_radius(1, g, 0), color=ORANGE, label="r_eff / hlr = $1/\\sqrt{q}$")
right.plot(g, axis_ratio(g, 0), color=GREY, label="axis ratio $q = (1-|g|)/(1+|g|)$")
right.plot(
    g,
    (1 - axis_ratio(g, 0) ** 2) / (1 + axis_ratio(g, 0) ** 2),
    color=BLUE,
    ls=":",
    label="distortion $(1-q^2)/(1+q^2)$",
)
right.set(xlabel="$|g|$", xlim=(0, 0.7), ylim=(0, 2.5))
right.legend(frameon=False, fontsize=9)
