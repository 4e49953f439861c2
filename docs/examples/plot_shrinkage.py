"""
A scatter below the bound is no success
=======================================

One number, measured with noise: the smallest example in which a regression shrinks, undercuts the Cramér–Rao
bound and is still the best there is on average.  The derivations are in :doc:`/science/estimators`.
"""

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(1)
TAU = 0.2  # width of the population of shears

# %%
# A linear regression learns to shrink
# ------------------------------------
#
# The true values come from a normal population, the data are the truth plus noise.  Least squares over a
# training set finds the slope that minimises the squared error.  It is less than one, and it knows how noisy
# the data are.

noise = np.array([0.05, 0.1, 0.2, 0.4])
slopes = []
for sigma in noise:
    truth = rng.normal(0, TAU, 100_000)
    data = truth + rng.normal(0, sigma, truth.size)
    slopes.append(np.sum(truth * data) / np.sum(data**2))
    expected = TAU**2 / (TAU**2 + sigma**2)
    print(f"noise {sigma:.2f}: slope learnt {slopes[-1]:.3f}, of the posterior mean {expected:.3f}")

# %%
# At one fixed truth
# ------------------
#
# Bias and scatter of that regression for a galaxy with a true value of 0.3, against the noise.  The bound of
# unbiased estimators is the noise itself; that of an estimator whose bias has the slope b' is (1 + b') times
# that.

sigma, truth = np.geomspace(0.02, 1, 100), 0.3
w = TAU**2 / (TAU**2 + sigma**2)
figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
axis.loglog(sigma, sigma, color="k", label="Cramér–Rao bound, unbiased")
axis.loglog(sigma, w * sigma, color="#0072B2", label="scatter of the regression (at its own bound)")
axis.loglog(sigma, (1 - w) * truth, color="#D55E00", label="its bias, toward zero")
axis.loglog(
    sigma, np.hypot(w * sigma, (1 - w) * truth), color="#009E73", ls="--", label="its RMS error at this truth"
)
axis.set(xlabel="noise", ylabel="error at truth = 0.3", ylim=(0.002, 1.2))
axis.legend(frameon=False, fontsize=8, loc="lower right")

# %%
# Averaged over the population
# ----------------------------
#
# No estimator has a smaller RMS error on average over the population than van Trees' bound, which counts the
# prior as data; the regression reaches it.  The unbiased estimator has the bound of Cramér and Rao at every
# truth, and a larger average error.

measured = []
for sigma_one, slope in zip(noise, slopes, strict=True):
    truth = rng.normal(0, TAU, 100_000)
    data = truth + rng.normal(0, sigma_one, truth.size)
    measured.append([np.std(data - truth), np.std(slope * data - truth)])
unbiased, regression = np.array(measured).T
figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
axis.loglog(sigma, sigma, color="k", label="Cramér–Rao")
axis.loglog(sigma, 1 / np.sqrt(1 / sigma**2 + 1 / TAU**2), color="#0072B2", label="van Trees")
axis.loglog(noise, unbiased, "ko", label="unbiased estimate")
axis.loglog(noise, regression, "o", color="#0072B2", label="regression")
axis.set(xlabel="noise", ylabel="RMS error over the population", ylim=(0.005, 1.2))
axis.legend(frameon=False, fontsize=8)

# %%
# So a scatter below the bound says how strong the prior is, and an RMS error over a population says how well
# the prior fits that population.  Neither says that an estimator extracts more from the pixels than another.
