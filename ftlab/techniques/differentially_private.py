from __future__ import annotations

from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.poisson import Poisson, rate
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.freezing import trains_directly
from ftlab.techniques.head_optimum import ByEpochs, Solver
from ftlab.techniques.membership import membership
from ftlab.techniques.noisy_gradients import (
    add_noise,
    check_examples,
    clipped_sums,
    with_gradients,
)
from ftlab.techniques.privacy_accounting import (
    NOISIEST,
    VAGUE,
    Accountant,
    Steps,
    epsilon_of,
    noise_for,
)
from ftlab.techniques.wrapper import DRAWS, READS_STREAM, RESTARTS, TOGETHER, WEIGHS, Wrapper

_ONE_FIT = ("epsilon is of one fit; a search, the choice of an epoch by validation, stages before it "
            "and the course of the training loss are not private")


class DifferentiallyPrivate(Wrapper):
    """Clip each example's gradient and add noise, so that no example shows in the model (a wrapper).

    DP-SGD: each example joins a step by chance, its gradient is cut to a norm of at most `clip`,
    and their sum gets normal noise of standard deviation noise * clip. A model of (epsilon, delta)
    would have come out with about the same probability without any one of the examples: up to
    exp(epsilon), but for delta. Take it where the model leaves the place of its data. Larger
    batches, a constant schedule and 5 to 10 times the usual rate pay. Noise follows from the run's
    seed, which must then be secret. Each example has a pass of its own.

    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang (2016), https://arxiv.org/abs/1607.00133

    Args:
        technique: what adapts the model.
        epsilon: of all steps together, above 0 and at most 100; the noise is found for it. 8
            where neither it nor `noise` is given.
        noise: multiplier of the noise, in place of `epsilon`; 0 adds none and protects nothing.
        delta: chance that epsilon does not hold, below 1 over the N training examples; null for
            1 / N^1.1.
        clip: largest norm of an example's gradient.
        accountant: `rdp`, or the finer `prv`, which finds less noise for the same epsilon and takes
            seconds; both are shown.
    """

    search_space = {"clip": Choice((0.1, 0.3, 1.0, 3.0))}
    of_training = True
    never_around = frozenset({TOGETHER, WEIGHS, READS_STREAM, DRAWS, "settle"})  # which may be around it
    never_within = frozenset({"objective", RESTARTS})  # of which each fit would be counted by itself
    single_batches = True
    own_clipping = True
    sampling = Poisson()

    def __init__(self, technique: Technique, epsilon: float | None = None,
                 noise: float | None = None, delta: float | None = None, clip: float = 1.0,
                 accountant: Accountant = "rdp") -> None:
        super().__init__(technique)
        if epsilon is not None and noise is not None:
            raise ValueError("give epsilon or noise, not both: one follows from the other")
        if epsilon is not None and not 0 < epsilon <= VAGUE:
            raise ValueError(f"epsilon must be above 0 and at most {VAGUE:g}, got {epsilon}")
        if noise is not None and noise < 0:
            raise ValueError(f"noise must be 0 or more, got {noise}")
        if delta is not None and not 0 < delta < 1:
            raise ValueError(f"delta must be above 0 and below 1, got {delta}")
        if clip <= 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        if accountant not in ("rdp", "prv"):
            raise ValueError(f"accountant is rdp or prv, got {accountant!r}")
        self.epsilon = 8.0 if epsilon is None and noise is None else epsilon
        self.noise, self.delta, self.clip, self.accountant = noise, delta, clip, accountant
        self.sigma = noise or 0.0
        self.examples = self.size = self.seed = self.done = 0

    def prepare(self, data: DataModule) -> None:
        self.examples, self.size = len(data.splits["train"]), data.batch_size
        self.technique.prepare(_withheld(data))
        check_examples(data)
        if self.delta is not None and self.delta * self.examples >= 1:
            raise Incompatible(f"DifferentiallyPrivate: delta {self.delta:g} allows that one of the "
                               f"{self.examples} training examples is laid open",
                               f"set delta below {1 / self.examples:.2g}, or null")

    def foresee(self, data: DataModule, epochs: int) -> None:
        self.technique.foresee(data, epochs)
        self.examples, self.size = len(data.splits["train"]), data.batch_size
        self._find_noise(epochs * Poisson().batches(self.examples, self.size))

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        for path, module in model.named_modules():
            if isinstance(module, _NormBase) and module.track_running_stats and (
                    trains_directly(module)):
                raise Incompatible(f"DifferentiallyPrivate: {path} ({type(module).__name__}) mixes "
                                   "the examples of a batch where it trains",
                                   "take a technique that freezes batch norms (LoRA, LinearProbe), "
                                   "or another backbone")

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, _withheld(data), steps)
        self._find_noise(steps)
        self.seed, self.done = data.seed, 0
        self.notes.append(f"DifferentiallyPrivate: {_ONE_FIT}" if self.sigma else
                          "DifferentiallyPrivate: without noise nothing is private")

    def optimum(self, model: TaskModel, data: DataModule) -> Solver | None:
        if self.technique.optimum(model, data) is not None:
            raise ByEpochs("DifferentiallyPrivate adds noise to steps")
        return None

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        trained = [p for p in model.parameters() if p.requires_grad]
        sums, mean = clipped_sums(
            lambda one: self.technique.objective(model, task, one), trained, batch, self.clip)
        if self.sigma:
            # rows of one seed with another noise or clip have draws of their own: equal ones would cancel
            own = (int(1e6 * self.sigma), int(1e6 * self.clip))
            add_noise(sums, self.sigma * self.clip, (self.seed, self.done, *own))
        expected = rate(self.examples, self.size) * self.examples
        return with_gradients(trained, [total / expected for total in sums], mean)

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        self.done += 1  # of all fits within the fit

    def audit(self, model: TaskModel, data: DataModule) -> dict[str, float]:
        return self.technique.audit(model, data) | membership(model, data)

    def costs(self) -> dict[str, float]:
        own = {"noise": self.sigma}
        if self.sigma:
            steps = self._steps(self.done)
            own["epsilon_rdp"] = epsilon_of(self.sigma, steps, "rdp")
            if own["epsilon_rdp"] <= VAGUE:
                own["epsilon_prv"] = epsilon_of(self.sigma, steps, "prv")
            own["epsilon"] = own.get(f"epsilon_{self.accountant}", own["epsilon_rdp"])
        return self.technique.costs() | own

    def _steps(self, count: int) -> Steps:
        delta = self.examples**-1.1 if self.delta is None else self.delta
        return Steps(rate(self.examples, self.size), count, delta)

    def _find_noise(self, count: int) -> None:
        if self.epsilon is None:
            return
        steps = self._steps(count)
        noise = noise_for(self.epsilon, steps, self.accountant)
        if noise is None:
            least = epsilon_of(NOISIEST, steps, self.accountant)
            other = ", or take accountant: prv" if self.accountant == "rdp" else ""
            raise Incompatible(
                f"DifferentiallyPrivate: no noise gives epsilon {self.epsilon:g} with batches of "
                f"{self.size} of {self.examples} examples in {count} steps: {self.accountant} counts "
                f"{least:.3g} at least", f"set epsilon above {least:.3g}{other}")
        self.sigma = max(noise, self.sigma)  # never below what the whole fit was foreseen to need


def _withheld(data: DataModule) -> DataModule:
    return data.without_training("and DifferentiallyPrivate lets noisy steps alone see them")
