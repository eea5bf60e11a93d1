"""MUON: a step of the same size along every singular vector of a kernel (Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon).

A few singular vectors hold nearly all of a kernel's gradient; along the others, ADAM hardly moves
the kernel. MUON sets all singular values of the momentum to about 1. A step takes longer, and far
fewer are needed (docs/performance.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from custom_layers import IntegrationNet

MOMENTUM = 0.8
STEP = 0.8  # root mean square of a kernel's update, in learning rates
ITERATIONS = 3
# Of x, x^3 and x^5: this polynomial, applied repeatedly, takes (0, 1] near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Updates kernels (`kernels_of`) by their orthogonalized momentum.

    Where its attribute `found_inf`, a tensor, is 1, a step changes nothing, as with a fused
    `torch.optim.Adam`.
    """

    MOMENTS = ("exp_avg",)

    def __init__(self, kernels: list[nn.Parameter], lr: float):
        super().__init__(kernels, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            self._update(
                [kernel for kernel in group["params"] if kernel.grad is not None], group["lr"]
            )

    def _update(self, kernels: list[nn.Parameter], lr: float) -> None:
        skipped = getattr(self, "found_inf", torch.zeros(())).bool()
        directions = []
        for kernel in kernels:
            state = self.state[kernel]
            if not state:
                state["exp_avg"] = torch.zeros_like(kernel)
            momentum = state["exp_avg"]
            # In a skipped step the momentum stays.
            gradient = torch.where(skipped, momentum, kernel.grad)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            directions.append(gradient.lerp(momentum, MOMENTUM))  # Nesterov's
        for kernel, direction in zip(kernels, orthogonalized(directions), strict=True):
            size = STEP * lr * max(len(direction), direction[0].numel()) ** 0.5
            kernel.addcmul_(direction, torch.where(skipped, 0.0, size), value=-1)


def kernels_of(network: nn.Module) -> list[nn.Parameter]:
    """The kernels that MUON updates: all but two kinds.

    A kernel of one output channel has a single singular value. The GRU's kernels are left to ADAM:
    with MUON nearly all of its proposals S_t (paper, equation 4) became 0 within some hundred
    steps; photos no longer entered the volume, and it only decayed.
    """
    recurrent = {
        parameter
        for module in network.modules()
        if isinstance(module, IntegrationNet)
        for parameter in module.parameters()
    }
    return [
        parameter
        for parameter in network.parameters()
        if parameter.ndim > 1 and len(parameter) > 1 and parameter not in recurrent
    ]


def orthogonalized(kernels: list[Tensor]) -> list[Tensor]:
    """Kernels of the same shapes with all singular values about 1.

    kernels: (rows, ...) each, seen as matrices of that many rows, U S V^T. The results are U p(S)
    V^T, where p(S) lies between 0.68 and 1.21, but is less for singular values below a fiftieth of
    the Frobenius norm.

    The iteration runs on each matrix's Gram matrix, the smaller of M M^T and M^T M; then M is
    multiplied by the result. This is less work than iterating on M. Gram matrices of one size are
    computed as one batch.
    """
    matrices = [kernel.flatten(1) for kernel in kernels]
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    results: dict[int, Tensor] = {}
    for rows in {len(matrix) for matrix in wide}:
        same = [index for index, matrix in enumerate(wide) if len(matrix) == rows]
        roots = inverse_roots(torch.stack([wide[index] @ wide[index].T for index in same]))
        for index, root in zip(same, roots, strict=True):
            result = root @ wide[index]
            results[index] = result if wide[index] is matrices[index] else result.T
    return [results[index].reshape(kernel.shape) for index, kernel in enumerate(kernels)]


def inverse_roots(grams: Float[Tensor, "kernels n n"]) -> Float[Tensor, "kernels n n"]:
    """About G^(-1/2) of each symmetric G >= 0, by the iteration of Newton and Schulz with MUON's
    coefficients."""
    a, b, c = COEFFICIENTS
    norms = (
        grams.diagonal(dim1=1, dim2=2)
        .sum(1)[:, None, None]
        .clamp_min(torch.finfo(grams.dtype).tiny)
    )
    gram = grams / norms
    root = None
    for iteration in range(ITERATIONS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        root = polynomial if root is None else polynomial @ root
        if iteration < ITERATIONS - 1:
            gram = polynomial @ gram @ polynomial
    return root * norms.rsqrt()
