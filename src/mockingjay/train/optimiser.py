"""Fused AdamW whose gradients live in one buffer and whose state is named tensors."""

import itertools
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.optim.adamw import adamw

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import CheckpointError, ConfigError

_ALIGN = 64  # elements; the fused kernels read aligned gradients in vectors
_Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimiser:
    """AdamW over every trainable parameter of a module.

    All gradients are views into one flat buffer. Clearing, summing over ranks, measuring and scaling them is then one
    operation each, without copies, and a parameter that took no part in a loss has the gradient zero on every rank.
    """

    class Config(Table):
        """Defaults are the published code's: BERT's Adam with decoupled weight decay."""

        betas: tuple[_Beta, _Beta] = (0.9, 0.999)
        """Decay of the gradient's first and second moment per step."""
        eps: float = Field(default=1e-6, gt=0)
        """Added to the root of the second moment."""
        weight_decay: float = Field(default=0.01, ge=0)
        """Decoupled decay of matrices; biases and norms, which have one axis, are not decayed."""

    def __init__(self, module: nn.Module, config: Config) -> None:
        self.parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        if not self.parameters:
            raise ConfigError(
                "train: the learner has no trainable parameter, expected at least one; unfreeze a part of it"
            )
        values = list(self.parameters.values())
        ends = list(itertools.accumulate(-(-each.numel() // _ALIGN) * _ALIGN for each in values))
        self.gradients: Float[Tensor, " all"] = values[0].new_zeros(ends[-1])
        starts = [0, *ends[:-1]]
        self._gradients = {
            name: self.gradients[at : at + each.numel()].view_as(each)
            for at, (name, each) in zip(starts, self.parameters.items())
        }
        self._states = {  # under the names that torch's own AdamW gives them
            "step": {name: torch.zeros((), device=each.device) for name, each in self.parameters.items()},
            "exp_avg": {name: torch.zeros_like(each) for name, each in self.parameters.items()},
            "exp_avg_sq": {name: torch.zeros_like(each) for name, each in self.parameters.items()},
        }
        self._config = config

    def clear(self) -> None:
        """Set all gradients to zero; backward passes add to them from here."""
        self.gradients.zero_()
        for name, parameter in self.parameters.items():
            parameter.grad = self._gradients[name]

    @torch.no_grad()
    def step(self, lr: float, skip: Float[Tensor, ""] | None = None) -> None:
        """Take one step.

        Args:
            lr: Learning rate.
            skip: On CUDA, 1 keeps weights and moments as they are without the host having to know.
        """
        for decay, decayed in ((self._config.weight_decay, True), (0.0, False)):
            names = [name for name, each in self.parameters.items() if (each.ndim > 1) == decayed]
            # The function and not the class, which would import torch's compiler for two seconds.
            adamw(
                [self.parameters[name] for name in names],
                [self._gradients[name] for name in names],
                [self._states["exp_avg"][name] for name in names],
                [self._states["exp_avg_sq"][name] for name in names],
                [],
                [self._states["step"][name] for name in names],
                fused=True,
                found_inf=skip,
                amsgrad=False,
                beta1=self._config.betas[0],
                beta2=self._config.betas[1],
                lr=lr,
                weight_decay=decay,
                eps=self._config.eps,
                maximize=False,
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments and step counters as `<parameter>.<moment>`."""
        return {f"{name}.{kind}": self._states[kind][name] for name in self.parameters for kind in self._states}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            CheckpointError: A tensor belongs to no parameter of this shape.
        """
        ours = self.tensors()
        for key, value in tensors.items():
            if key not in ours or value.shape != ours[key].shape:
                raise CheckpointError(
                    f"optimizer.safetensors: {key} {tuple(value.shape)} fits no trainable parameter, expected the "
                    "saved run's model; "
                    "use the config in the run's folder"
                )
        for key, value in tensors.items():
            ours[key].copy_(value)
