from __future__ import annotations

from torch import Tensor

from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.domain_adversary import DomainAdversary


class DANN(DomainAdversary):
    """Learn features by which a discriminator cannot tell two domains apart (a wrapper).

    Domain-adversarial training adds strength times the loss of a network that tells a batch's
    features from those of a stream's unlabelled examples; its gradient is reversed on the way to the
    features, and the factor of the reversal goes from 0 to 1 in the course of the fit. Take it where
    labels are of one domain, the model is for another, and both have the classes about equally often.
    The discriminator is not a part of the model, its checkpoint or an export.

    Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky (2016),
    https://arxiv.org/abs/1505.07818

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        strength: of the discriminator's loss, 0 or more; 0 is plain training.
        gamma: how fast the reversal comes in, 0 or more: its factor is 2 / (1 + exp(-gamma p)) - 1
            when a part p of all steps is done.
        hidden: width of the discriminator's two hidden layers.
        ratio: of its learning rate to the technique's highest, above 0.
    """

    search_space = {"strength": LogUniform(1e-2, 1e2)}

    def __init__(self, technique: Technique, stream: str = "target", strength: float = 1.0,
                 gamma: float = 10.0, hidden: int = 1024, ratio: float = 10.0) -> None:
        super().__init__(technique, stream, strength, gamma, hidden, ratio)

    def width(self, features: int) -> int:
        return features

    def read(self, features: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return features, None
