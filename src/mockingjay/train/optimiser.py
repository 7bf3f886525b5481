"""Fused AdamW whose gradients live in one buffer and whose state is named tensors."""

import itertools
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

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
        self._views = [self.gradients[at : at + each.numel()].view_as(each) for at, each in zip(starts, values)]
        decayed = [each for each in values if each.ndim > 1]
        plain = [each for each in values if each.ndim <= 1]
        groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=0.0,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._names = [
            name for wanted in (True, False) for name, each in self.parameters.items() if (each.ndim > 1) == wanted
        ]

    def clear(self) -> None:
        """Set all gradients to zero; backward passes add to them from here."""
        self.gradients.zero_()
        for parameter, view in zip(self.parameters.values(), self._views):
            parameter.grad = view

    def step(self, lr: float, skip: Float[Tensor, ""] | None = None) -> None:
        """Take one step.

        Args:
            lr: Learning rate.
            skip: On CUDA, 1 keeps weights and moments as they are without the host having to know.
        """
        for group in self._adam.param_groups:
            group["lr"] = lr
        # The hook by which torch.amp.GradScaler skips a fused step.
        self._adam.found_inf = skip  # pyright: ignore[reportAttributeAccessIssue]
        self._adam.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments and step counters as `<parameter>.<moment>`."""
        states = self._adam.state_dict()["state"]
        return {
            f"{name}.{key}": value
            for index, name in enumerate(self._names)
            for key, value in states.get(index, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            CheckpointError: A tensor belongs to no parameter of this shape.
        """
        indices = {name: index for index, name in enumerate(self._names)}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, moment = key.rpartition(".")
            fits = name in indices and (moment == "step" or value.shape == self.parameters[name].shape)
            if not fits:
                raise CheckpointError(
                    f"optimizer.safetensors: {key} {tuple(value.shape)} fits no trainable parameter, expected the "
                    "saved run's model; "
                    "use the config in the run's folder"
                )
            states.setdefault(indices[name], {})[moment] = value
        self._adam.load_state_dict({"state": states, "param_groups": self._adam.state_dict()["param_groups"]})
