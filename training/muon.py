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

    MOMENTS = ("exp_avg",)  # of each kernel's state, as `checkpoints.load_optimizer` checks them

    def __init__(self, kernels: list[nn.Parameter], lr: float):
        super().__init__(kernels, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
            if kernels:
                self._update(kernels, group["lr"])

    def _update(self, kernels: list[nn.Parameter], lr: Float[Tensor, ""] | float) -> None:
        momenta = [self._momentum(kernel) for kernel in kernels]
        gradients = [kernel.grad for kernel in kernels]
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:  # in a skipped step the momentum stays
            skipped = found_inf.bool()
            gradients = [
                torch.where(skipped, momentum, gradient)
                for momentum, gradient in zip(momenta, gradients, strict=True)
            ]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterovs = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        size = STEP * lr if found_inf is None else STEP * lr * (1 - found_inf)
        torch._foreach_sub_(kernels, orthogonalized(list(nesterovs), size))

    def _momentum(self, kernel: nn.Parameter) -> Tensor:
        state = self.state[kernel]
        if not state:
            state["exp_avg"] = torch.zeros_like(kernel)
        return state["exp_avg"]


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


def orthogonalized(kernels: list[Tensor], size: Float[Tensor, ""] | float) -> list[Tensor]:
    """Kernels of the same shapes with all singular values about the same. size: about their root
    mean square.

    kernels: (rows, ...) each, seen as matrices of that many rows, U S V^T. The results are U p(S)
    V^T times size and the root of the longer side, since an orthogonal matrix has a root mean
    square of one over that root. p(S) lies between 0.68 and 1.21, but is less for singular values
    below a fiftieth of the Frobenius norm. On CUDA the arithmetic is bfloat16, as the authors' is:
    the results differ from those of float32 by some hundredths.

    The iteration runs on each matrix's Gram matrix, the smaller of M M^T and M^T M; then M is
    multiplied by the result. This is less work than iterating on M. Matrices of one shape are
    multiplied as one batch, and so are Gram matrices of one size; the size is multiplied into what
    the iteration gives, which has fewer numbers than M.
    """
    orders = [_order_in_memory(kernel) for kernel in kernels]
    matrices = [
        _wide(kernel.permute(order).flatten(1))
        for kernel, order in zip(kernels, orders, strict=True)
    ]
    by_shape: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(index)
    stacks = {
        shape: _stacked([matrices[index] for index in same]) for shape, same in by_shape.items()
    }
    results: dict[int, Tensor] = {}
    for rows in {rows for rows, _ in stacks}:  # those whose Gram matrices have one size
        shapes = [shape for shape in stacks if shape[0] == rows]
        grams = torch.cat([stacks[shape] @ stacks[shape].mT for shape in shapes])
        roots = inverse_roots(grams).split([len(stacks[shape]) for shape in shapes])
        for shape, root in zip(shapes, roots, strict=True):
            root.mul_(size * shape[1] ** 0.5)
            products = (root @ stacks.pop(shape)).to(kernels[0].dtype)
            results |= zip(by_shape[shape], products, strict=True)
    return [
        _as_kernel(results[index], kernel.permute(order).shape, order)
        for index, (kernel, order) in enumerate(zip(kernels, orders, strict=True))
    ]


def _order_in_memory(kernel: Tensor) -> list[int]:
    """A kernel's dimensions, the first before the others, these as they lie in memory: so it is
    seen as a matrix without a copy. The order of its columns changes no singular value."""
    return [0, *sorted(range(1, kernel.ndim), key=lambda dim: -kernel.stride(dim))]


def _wide(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "_ _"]:
    """A matrix or its transpose, which has at least as many columns as rows."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _as_kernel(wide: Float[Tensor, "_ _"], shape: torch.Size, order: list[int]) -> Tensor:
    """The kernel of which `_wide` made a matrix. shape: of its dimensions in this order."""
    matrix = wide if wide.shape[0] == shape[0] else wide.T
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return matrix.reshape(shape).permute(inverse)


def _stacked(matrices: list[Tensor]) -> Float[Tensor, "matrices rows columns"]:
    """A copy of matrices of one shape, in the type of the arithmetic."""
    first = matrices[0]
    dtype = torch.bfloat16 if first.is_cuda else first.dtype
    stack = first.new_empty((len(matrices), *first.shape), dtype=dtype)
    torch._foreach_copy_(list(stack), matrices)
    return stack


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
