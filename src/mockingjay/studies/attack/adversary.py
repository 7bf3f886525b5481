"""Attacks that a listener would not notice: the small change, bounded in every value, that misleads a network most.

FGSM (I. Goodfellow, J. Shlens, C. Szegedy, 2015, arXiv 1412.6572) takes one step along the gradient's sign; PGD
(A. Madry et al., 2018, arXiv 1706.06083) many, each time back into the bounds, from several random starts.

Differs from the code of arXiv 1910.08716: networks are in evaluation mode, every example has a loss of its own, and so
the start that it keeps. What the losses are given to be is the caller's: the negated log odds of what is true have the
sign of cross-entropy's gradient, and do not vanish where a network is very sure.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# Altered examples and the number of the call → a loss each, to be raised; the number addresses what is random.
Losses = Callable[[Tensor, int], Tensor]
Bounds = tuple[float, float]  # least and most that a value may be, but for what lies beyond them already


def fast_gradient_sign(
    losses: Losses, clean: Float[Tensor, "batch ..."], epsilon: float, bounds: Bounds | None = None
) -> Float[Tensor, "batch ..."]:
    """Step once, by the whole bound, along the sign of the gradient.

    Args:
        losses: What is to be raised.
        clean: Examples.
        epsilon: The most by which any value changes.
        bounds: What values may be.
    """
    return within(clean, clean + epsilon * _gradient(losses, clean, 0).sign(), epsilon, bounds)


def projected_gradient(
    losses: Losses,
    clean: Float[Tensor, "batch ..."],
    epsilon: float,
    *,
    steps: int = 10,
    step: float | None = None,
    restarts: int = 5,
    generator: torch.Generator | None = None,
    bounds: Bounds | None = None,
) -> Float[Tensor, "batch ..."]:
    """Step many times; of several starts each example keeps the one with its highest loss.

    Args:
        losses: What is to be raised.
        clean: Examples.
        epsilon: The most by which any value changes.
        steps: Steps from each start; 10 as published.
        step: Length of a step; none: a tenth of the bound as published, or more where fewer steps would not cross it.
        restarts: Starts; 5 as published.
        generator: Draws the starts; none: a single start, from the examples themselves.
        bounds: What values may be.
    """
    length = epsilon * max(0.1, 1 / steps) if step is None else step
    best, highest, calls = clean, None, steps + 1
    for start in range(restarts if generator is not None else 1):
        altered = clean
        if generator is not None:
            noise = torch.rand(clean.shape, generator=generator).to(clean.device, clean.dtype)
            altered = within(clean, clean + epsilon * (2 * noise - 1), epsilon, bounds)
        for number in range(steps):
            direction = _gradient(losses, altered, start * calls + number).sign()
            altered = within(clean, altered + length * direction, epsilon, bounds)
        if generator is None or restarts == 1:
            return altered
        with torch.no_grad():
            reached = losses(altered, start * calls + steps)
        better = torch.ones_like(reached, dtype=torch.bool) if highest is None else reached > highest
        chosen = better.view(-1, *[1] * (clean.dim() - 1))
        best = torch.where(chosen, altered, best)
        highest = reached if highest is None else torch.maximum(reached, highest)
    return best


def random_signs(
    clean: Float[Tensor, "batch ..."], epsilon: float, generator: torch.Generator, bounds: Bounds | None = None
) -> Float[Tensor, "batch ..."]:
    """Move every value up or down by the whole bound, by chance: FGSM's energy without its knowledge."""
    signs = 2.0 * torch.randint(2, clean.shape, generator=generator) - 1
    return within(clean, clean + epsilon * signs.to(clean.device, clean.dtype), epsilon, bounds)


def within(
    clean: Float[Tensor, "batch ..."],
    altered: Float[Tensor, "batch ..."],
    epsilon: float,
    bounds: Bounds | None = None,
) -> Float[Tensor, "batch ..."]:
    """Bring altered examples back: no value is further than the bound from where it was, exactly, rounding included.

    What lies beyond the bounds already may stay where it is, and goes no further: a file may hold samples above full
    scale, and pulling them back would change them by more than is allowed.
    """
    most = torch.tensor(epsilon, dtype=clean.dtype)
    if float(most) > epsilon:
        most = torch.nextafter(most, torch.zeros_like(most))
    altered = clean + (altered - clean).clamp(-float(most), float(most))
    if bounds is not None:
        low, high = bounds
        altered = altered.clamp(clean.clamp(max=low), clean.clamp(min=high))
    beyond = (altered.double() - clean.double()).abs() > epsilon
    return torch.where(beyond, torch.nextafter(altered, clean), altered)


def signal_to_noise(
    clean: Float[Tensor, "batch time dim"], altered: Float[Tensor, "batch time dim"]
) -> Float[Tensor, " batch"]:
    """Compare what varies over time with what was changed, in decibels."""
    signal = (clean - clean.mean(1, keepdim=True)).square().sum((1, 2))
    return 10 * (signal / (altered - clean).square().sum((1, 2)).clamp(min=1e-30)).clamp(min=1e-30).log10()


def _gradient(losses: Losses, altered: Float[Tensor, "batch ..."], call: int) -> Float[Tensor, "batch ..."]:
    with torch.enable_grad():
        given = altered.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(losses(given, call).sum(), given)
    return gradient
