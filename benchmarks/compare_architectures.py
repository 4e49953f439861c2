# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Networks of other shapes, trained at equal cost on the mocks of the network that ships.

::

    python benchmarks/compare_architectures.py --seconds 120 -o architectures.ecsv

Each network is trained for the same processor time on one schedule length (so that a larger one sees fewer
galaxies), and judged by the negative ln posterior density of the truth of the same held-out mocks.
"""

import argparse
import os
import tempfile
import time

from astropy.table import Table

from galshape_cnn.study.simulate.config import load_config
from galshape_cnn.study.train.training import Training

CHANGES = {
    "as shipped": {},
    "half as wide": {"patch_width": 32, "middle_width": 48, "deep_width": 64, "dense": [128, 96]},
    "one and a half as wide": {
        "patch_width": 96, "middle_width": 144, "deep_width": 192, "dense": [384, 288],
    },
    "one component": {"components": 1},
    "six components": {"components": 6},
    "one deep block": {"deep_blocks": 1},
    "no block at 8 x 8": {"middle_blocks": 0},
    "narrow context": {"context": [32]},
}  # fmt: skip
_PROBE = 4  # steps that tell the time of one


def train(config, folder):
    """Loss of a training on held-out mocks, its steps done."""
    training = Training(config, os.path.join(folder, "checkpoint.npz"))
    training.run(report=lambda line: None)
    return training


def steps_in(seconds, config, folder):
    """Steps that fit into a time of the processor, from the cost of a few after compilation."""
    training = Training(config | {"training": config["training"] | {"steps": 10**6}}, folder + "/probe.npz")
    batch = training.stream.batch(0, training.size)
    training.model.train_on_batch(batch[0], batch[1], sample_weight=batch[2])
    started = time.process_time()
    for number in range(_PROBE):
        inputs, targets, weights = training.stream.batch(number, training.size)
        training.model.train_on_batch(inputs, targets, sample_weight=weights)
    return max(int(seconds * _PROBE / (time.process_time() - started)), 10)


def main():
    """Train every variant and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="processor time of each training")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    rows = []
    for name, change in CHANGES.items():
        config = load_config()
        config["network"] = config["network"] | change
        config["training"] |= {"validation_size": 4096, "learning_rate": 2e-3}
        with tempfile.TemporaryDirectory() as folder:
            steps = steps_in(args.seconds, config, folder)
            config["training"] |= {"steps": steps, "validation_every": steps}
            started = time.perf_counter()
            training = train(config, folder)
            seconds = time.perf_counter() - started
        rows.append(
            {
                "network": name, "weights": training.model.count_params(), "galaxies": steps * training.size,
                "seconds": round(seconds), "validation_loss": round(training.history[-1][2], 3),
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    table = Table(rows=rows)
    table.meta["cores"] = len(os.sched_getaffinity(0))
    table.pprint_all()
    if args.output:
        table.write(args.output, format="ascii.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
