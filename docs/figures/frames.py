"""Pixel frame and sky frame: positive g1 and g2, and where the position angle is counted from."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Arc, Ellipse

from galshape_cnn.geometry import axis_ratio, position_angle

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.45"


def galaxy(axis, center, g1, g2, size=0.62, **style):
    """Ellipse of a sheared circle, drawn from its axis ratio and angle."""
    q = float(axis_ratio(g1, g2))
    angle = float(np.degrees(np.arctan2(g2, g1)) / 2)
    axis.add_patch(Ellipse(center, 2 * size / np.sqrt(q), 2 * size * np.sqrt(q), angle=angle, **style))


def arrow(axis, start, end, text, offset=(0, 0)):
    """A coordinate axis with its name at the tip."""
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.3})
    axis.text(end[0] + offset[0], end[1] + offset[1], text, color=GREY, ha="center", va="center")


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for axis in (left, right):
    axis.set(aspect="equal", xlim=(-3.6, 3.6), ylim=(-3.1, 4.0), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)

left.text(0, 3.75, "pixel frame (no WCS)", ha="center", va="center", fontsize=12)
arrow(left, (-3.3, -2.8), (-1.9, -2.8), "x", (0.2, 0))
arrow(left, (-3.3, -2.8), (-3.3, -1.4), "y", (0, 0.2))
for center, g1, g2 in [((1.9, 0), 0.3, 0), ((0, 2.1), 0, 0.3), ((-1.9, 0), -0.3, 0), ((0, -1.8), 0, -0.3)]:
    galaxy(left, center, g1, g2, facecolor=BLUE, alpha=0.25, edgecolor=BLUE)
    name = f"$g_{1 if g1 else 2} {'>' if g1 + g2 > 0 else '<'} 0$"
    left.text(center[0], center[1], name, ha="center", va="center")
left.text(0, 0.15, "round:\n$g = 0$", ha="center", va="center", color=GREY, fontsize=9)

right.text(0, 3.75, "sky frame (with a WCS)", ha="center", va="center", fontsize=12)
arrow(right, (3.2, -2.8), (1.8, -2.8), "east", (-0.1, 0.28))
arrow(right, (3.2, -2.8), (3.2, -1.4), "north", (-0.1, 0.25))
arrow(right, (-3.3, -2.8), (-1.9, -2.8), "u (west)", (0.1, 0.28))
arrow(right, (-3.3, -2.8), (-3.3, -1.4), "v (north)", (0.3, 0.25))
g1, g2 = -0.2, -0.3
angle = float(position_angle(g1, g2))
galaxy(right, (0, 0.6), g1, g2, size=1.5, facecolor=ORANGE, alpha=0.25, edgecolor=ORANGE)
axis_end = 2.3 * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
right.plot([0, 0], [0.6, 2.9], color=GREY, ls="--", lw=1)
right.plot([-axis_end[0], axis_end[0]], [0.6 - axis_end[1], 0.6 + axis_end[1]], color=ORANGE, lw=1)
right.add_patch(Arc((0, 0.6), 3.2, 3.2, theta1=90, theta2=90 + angle, color="k", lw=1.3))
right.text(-1.65, 2.65, f"pa = {angle:.0f}°", ha="right", va="center")
right.text(0, 3.1, "N", ha="center", va="center", color=GREY)
right.text(1.25, 1.9, f"$g_1={g1}$\n$g_2={g2}$", ha="left", va="center", color=ORANGE)
