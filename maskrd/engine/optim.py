"""Adam and SGD with torch's fused kernels, but without torch's optimizer classes.

Building one of torch's optimizers imports torch._dynamo and sympy, and no setting prevents it. A process then takes
4.0 s of CPU; importing torch alone takes 2.3 s (torch 2.13, 24 November 2026). There are hundreds of short processes.
The update is torch's own functional one: weights are the same to the last bit, and states have torch's entries.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from maskrd.config.settings import GradientTraining


class Optimizer:
    """Updates `parameters` in place from their gradients; those without a gradient stay as they are."""

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.state: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        self.settings = {"lr": learning_rate, "weight_decay": weight_decay, "maximize": False, "fused": True}

    def step(self) -> None:
        raise NotImplementedError

    def with_gradients(self) -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
        """Parameters that have a gradient, their gradients and their states."""
        kept = [(p, p.grad, state) for p, state in zip(self.parameters, self.state, strict=True) if p.grad is not None]
        parameters, gradients, states = (list(column) for column in zip(*kept, strict=True)) if kept else ([], [], [])
        return parameters, gradients, states

    def state_dict(self) -> dict:
        """The tensors themselves, not copies, by the parameters' positions."""
        return {"state": {position: dict(state) for position, state in enumerate(self.state) if state}}

    def load_state_dict(self, saved: dict) -> None:
        """Also reads what torch.optim's optimizer of the same name saved; its settings are left unread."""
        for position, (parameter, state) in enumerate(zip(self.parameters, self.state, strict=True)):
            state.clear()
            tensors = saved["state"].get(position, {})
            state.update((name, tensor.to(parameter.device)) for name, tensor in tensors.items())


class Adam(Optimizer):
    """torch.optim.Adam(fused=True); `weight_decay` is an L2 term in the gradient."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.settings.update(beta1=betas[0], beta2=betas[1], eps=epsilon, amsgrad=False)

    @torch.no_grad()
    def step(self) -> None:
        parameters, gradients, states = self.with_gradients()
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        moments = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        adam(parameters, gradients, *moments, [], [state["step"] for state in states], **self.settings)


class SGD(Optimizer):
    """torch.optim.SGD(fused=True); `weight_decay` is an L2 term in the gradient."""

    def __init__(
        self, parameters: Iterable[Tensor], learning_rate: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.settings.update(momentum=momentum, dampening=0, nesterov=False)

    @torch.no_grad()
    def step(self) -> None:
        parameters, gradients, states = self.with_gradients()
        buffers = [state.get("momentum_buffer") for state in states]
        sgd(parameters, gradients, buffers, **self.settings)
        for state, buffer in zip(states, buffers, strict=True):
            if buffer is not None:
                state["momentum_buffer"] = buffer


def build_optimizer(settings: GradientTraining, parameters: Iterable[Tensor]) -> Optimizer:
    """The optimizer that a recipe names, with its settings (Section 4.2)."""
    if settings.optimizer == "sgd":
        return SGD(parameters, settings.learning_rate, settings.momentum, settings.weight_decay)
    return Adam(parameters, settings.learning_rate, settings.betas, settings.weight_decay)
