"""Flower's mean of three clients' weights, for tests/techniques/test_federated.py.

    python -m venv flower && flower/bin/pip install flwr==1.42.0
    flower/bin/python tests/references/flower_aggregate.py

In an environment of its own, since Flower pins what ftlab needs in newer versions.
"""

import numpy as np
from flwr.server.strategy.aggregate import aggregate

EXAMPLES = (3, 5, 11)


def weights(client: int) -> list[np.ndarray]:
    """A matrix and a vector of a client: sines of whole numbers."""
    return [np.sin(client + np.arange(6.0)).reshape(2, 3), np.sin(10 * client + np.arange(4.0))]


if __name__ == "__main__":
    for mean in aggregate([(weights(client), n) for client, n in enumerate(EXAMPLES)]):
        print([float(f"{value:.15g}") for value in mean.ravel()])
