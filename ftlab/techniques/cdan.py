from __future__ import annotations

import torch
from torch import Tensor

from ftlab.data.base import DataModule
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.domain_adversary import DomainAdversary
from ftlab.techniques.domain_features import probabilities, require_classes


class CDAN(DomainAdversary):
    """Learn features by which no discriminator tells domains apart, class by class (a wrapper).

    Conditional domain-adversarial training is that of DANN, but the discriminator reads the outer
    product of the features with the probabilities of the classes, through which no gradient flows,
    and an example with entropy H counts 1 + exp(-H). Take it instead of DANN where there are several
    classes, which a discriminator of all features may mix. It reads classes times features numbers:
    with hundreds of classes the discriminator is larger than the model.

    Long, Cao, Wang, Jordan (2018), https://arxiv.org/abs/1705.10667

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
        self.classes = 1  # until the data are known

    def prepare(self, data: DataModule) -> None:
        super().prepare(data)
        require_classes(data, "CDAN")
        self.classes = data.task.outputs

    def width(self, features: int) -> int:
        return features * self.classes

    def read(self, features: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        p = probabilities(outputs)
        return outer(features, p), certainty(p)


def outer(features: Tensor, probabilities: Tensor) -> Tensor:
    """The outer product of each example's probabilities and features, (B, C D).

    Args:
        features: (B, D).
        probabilities: (B, C).
    """
    return (probabilities[:, :, None] * features[:, None, :]).flatten(start_dim=1)


def certainty(probabilities: Tensor) -> Tensor:
    """Weights 1 + exp(-H) of examples (B,), of mean 1; H is the entropy.

    Args:
        probabilities: (B, C).
    """
    weights = 1 + torch.exp(-torch.special.entr(probabilities).sum(dim=1))
    return weights / weights.mean()
