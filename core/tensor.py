"""`Tensor`: an array with a backend and, while a derivative is recorded, a past.

Every computation of tfx passes through `apply`: it finds the backend in the arguments, calls the
primitive on raw arrays, and notes the call on the tape. The methods here are the primitives,
checked, and what can be said in a line of them; richer operations are in `tfx.core.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from tfx.core.backend import Array, Backend, HostArray
from tfx.core.checks import (
    boolean,
    check_capability,
    check_dtypes,
    check_number,
    has_gradients,
    index,
    one_backend,
    one_dtype,
    shape_misfit,
)
from tfx.core.dtypes import HALVES, DType, as_dtype
from tfx.core.errors import DTypeError, GradientError, ShapeError
from tfx.core.shapes import Axis, complete_shape, normal_axes, parse_index, shape_argument
from tfx.core.tape import Leaf, Node, nodes_behind, oldest, recording, walk_back
from tfx.core.vjps import DIFFERENTIABLE

Number = int | float


class Tensor:
    """An array of a backend. Immutable: operations give new tensors.

    Made by `tfx.core.creation` and by operations, not by its constructor. Arithmetic is
    between tensors of one backend and one dtype, broadcast as in NumPy; Python numbers take the
    dtype of the tensor beside them.

    Attributes:
        data: the backend's raw array.
        backend: the backend it belongs to.
        node: its place on the tape, or None for a constant.
    """

    __slots__ = ("backend", "data", "node")
    __array_ufunc__ = None

    def __init__(self, data: Array, backend: Backend, node: Node | None = None) -> None:
        self.data = data
        self.backend = backend
        self.node = node

    # ---- what it is ------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.backend.shape(self.data)

    @property
    def dtype(self) -> DType:
        return self.backend.dtype(self.data)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a 0-d tensor has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        recorded = ", recorded" if self.node is not None else ""
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(")
        return f"Tensor({values}, {self.dtype}, {self.backend}{recorded})"

    # ---- to the host and across ------------------------------------------------------------

    def __array__(self, *_: object, **__: object) -> HostArray:
        raise TypeError("NumPy takes no tensor by itself; x.numpy() copies one to the host")

    def numpy(self) -> HostArray:
        """A copy on the host, as NumPy array. bfloat16, which NumPy lacks, comes as float32."""
        if self.dtype is DType.bfloat16:
            return self.cast(DType.float32).numpy()
        return self.backend.to_numpy(self.data)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """For other libraries: `torch.from_dlpack(x)` shares the memory. See `tfx.core.dlpack`."""
        from tfx.core.dlpack import exported

        return exported(
            self, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.backend.dlpack_device()

    def item(self) -> Any:
        """The one element, as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element; the shape is {self.shape}")
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def to(self, backend: Backend) -> Tensor:
        """A copy on another backend, through the host: the only way across.

        Raises:
            GradientError: the tensor is being recorded; a tape does not cross backends.
        """
        if backend is self.backend:
            return self
        if self.node is not None:
            raise GradientError(f"a recorded tensor cannot move to {backend}; detach() it first")
        check_capability(backend, self.dtype)
        host = self.backend.to_numpy(self.data)
        return Tensor(backend.asarray(host, dtype=self.dtype), backend)

    # ---- the past --------------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same value as a constant."""
        data = self.backend.stop_gradient(self.data) if recording.native else self.data
        return Tensor(data, self.backend)

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    def requires_grad_(self) -> Tensor:
        """Make this tensor a leaf: operations on it are recorded, `backward` sets its `grad`."""
        if not has_gradients(self):
            raise DTypeError(f"only floats have gradients; this tensor is {self.dtype}: cast it")
        if self.node is None:
            self.node = Leaf()
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left on this leaf; assign None to forget it."""
        return self.node.grad if isinstance(self.node, Leaf) else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not isinstance(self.node, Leaf):
            raise GradientError("only leaves keep a gradient; requires_grad_() makes one")
        self.node.grad = value

    def backward(self, gradient: Tensor | None = None) -> None:
        """Add to `grad` of every leaf the gradient of this scalar (or of `sum(self * gradient)`).

        Always walks the tape. For functions of parameters, `tfx.value_and_grad` reads better and
        may use the backend's own autograd.
        """
        if self.node is None:
            raise GradientError("nothing was recorded: no tensor that led here requires_grad_()")
        leaves = [node for node in nodes_behind(self.node) if isinstance(node, Leaf)]
        for leaf, g in zip(leaves, gradients(self, leaves, gradient), strict=True):
            if g is not None:
                leaf.grad = g if leaf.grad is None else leaf.grad + g

    # ---- elementwise -----------------------------------------------------------------------

    def cast(self, dtype: DType | str) -> Tensor:
        """The same numbers as `dtype`; see `Backend.cast` for rounding."""
        dtype = as_dtype(dtype)
        if dtype is self.dtype:
            return self
        if dtype not in self.backend.dtypes | self.backend.storage_dtypes:
            raise DTypeError(f"backend {self.backend} has no {dtype}")
        if self.node is not None and dtype in self.backend.storage_dtypes:
            raise GradientError(f"{self.backend} has no gradients in {dtype}; detach() first")
        source = self if dtype.is_float else self.detach()
        return apply("cast", source, dtype=dtype)

    astype = cast

    def widened(self) -> Tensor:
        """Halves as float32, everything else as it is: where sums of squares need the range."""
        return self.cast(DType.float32) if self.dtype in HALVES else self

    def __neg__(self) -> Tensor:
        return apply("neg", self)

    def exp(self) -> Tensor:
        return apply("exp", self)

    def log(self) -> Tensor:
        return apply("log", self)

    def tanh(self) -> Tensor:
        return apply("tanh", self)

    def sqrt(self) -> Tensor:
        return apply("sqrt", self)

    def __add__(self, other: Tensor | Number) -> Tensor:
        return apply("add", self, other)

    def __radd__(self, other: Number) -> Tensor:
        return apply("add", other, self)

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return apply("sub", self, other)

    def __rsub__(self, other: Number) -> Tensor:
        return apply("sub", other, self)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return apply("mul", self, other)

    def __rmul__(self, other: Number) -> Tensor:
        return apply("mul", other, self)

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return apply("div", self, other)

    def __rtruediv__(self, other: Number) -> Tensor:
        return apply("div", other, self)

    def __pow__(self, exponent: Number) -> Tensor:
        if not isinstance(exponent, int | float):
            raise TypeError("the exponent must be a number; use exp(log(x) * y)")
        return apply("pow", self, exponent=float(exponent))

    def maximum(self, other: Tensor | Number) -> Tensor:
        return apply("maximum", self, other)

    # ---- comparison: bool tensors ----------------------------------------------------------

    def __lt__(self, other: Tensor | Number) -> Tensor:
        return apply("less", self, other)

    def __gt__(self, other: Tensor | Number) -> Tensor:
        return apply("less", other, self)

    def __le__(self, other: Tensor | Number) -> Tensor:
        return (self < other) | (self == other)

    def __ge__(self, other: Tensor | Number) -> Tensor:
        return (self > other) | (self == other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return apply("equal", self, cast(Any, other))

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ~(self == other)

    __hash__ = object.__hash__

    def __invert__(self) -> Tensor:
        return apply("equal", boolean(self), False)

    def __and__(self, other: Tensor) -> Tensor:
        return apply("where", boolean(self), boolean(other), False)

    def __or__(self, other: Tensor) -> Tensor:
        return apply("where", boolean(self), True, boolean(other))

    # ---- reductions ------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis` (all by default) in the tensor's dtype; bool is refused: cast it."""
        return apply("sum", self, axis=normal_axes(axis, self.ndim), keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The arithmetic mean over `axis` (all by default), of floats."""
        dtype, shape = self.dtype, self.shape
        if not dtype.is_float:
            raise DTypeError(f"mean is for floats, not {dtype}; cast first")
        axes = normal_axes(axis, len(shape))
        count = math.prod(shape[i] for i in axes)
        total = apply("sum", self.widened(), axis=axes, keepdims=keepdims)
        return (total * (1 / count if count else math.nan)).cast(dtype)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The largest over `axis` (all by default); equals share the gradient."""
        axes = normal_axes(axis, self.ndim)
        if any(self.shape[i] == 0 for i in axes):
            raise ShapeError(f"max over an empty axis of shape {self.shape}")
        return apply("max", self, axis=axes, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The smallest over `axis` (all by default); equals share the gradient."""
        return _reversed(_reversed(self).max(axis, keepdims))

    def argmax(self, axis: int | None = None) -> Tensor:
        """Where the largest stands, the first of equals; without `axis`, among all elements."""
        x = self.reshape(-1) if axis is None else self
        (where,) = normal_axes(0 if axis is None else axis, x.ndim)
        if x.shape[where] == 0:
            raise ShapeError(f"argmax over an empty axis of shape {x.shape}")
        return apply("argmax", x, axis=where)

    # ---- matmul ----------------------------------------------------------------------------

    def __matmul__(self, other: Tensor) -> Tensor:
        """NumPy's product: vectors count as a row on the left and as a column on the right."""
        if not isinstance(other, Tensor):
            raise TypeError(f"@ takes two tensors, not {type(other).__name__}")
        left, right = self.shape, other.shape
        if len(left) == 2 and len(right) == 2:
            return apply("matmul", self, other)
        if not left or not right:
            raise ShapeError("@ takes tensors of at least one axis")
        if len(left) == 1:
            return (self.reshape(1, -1) @ other).reshape(*right[:-2], *right[1:][-1:])
        if len(right) == 1:
            return (self @ other.reshape(-1, 1)).reshape(left[:-1])
        if len(right) == 2 and left[-1] == right[0]:
            # One large product, forward and back, instead of a small one for each leading index.
            rows = self.reshape(math.prod(left[:-1]), left[-1])
            return apply("matmul", rows, other).reshape(*left[:-1], right[1])
        return apply("matmul", self, other)

    # ---- shape -----------------------------------------------------------------------------

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in C order; one length may be -1."""
        old = self.shape
        new = complete_shape(shape_argument(shape), old)
        return self if new == old else apply("reshape", self, shape=new)

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """Axis i of the result is axis axes[i]; without arguments, all axes in reverse."""
        ndim = self.ndim
        order = normal_axes(shape_argument(axes), ndim) if axes else tuple(range(ndim))[::-1]
        if len(order) != ndim:
            raise ShapeError(f"transpose of {ndim} axes got {axes}")
        return apply("transpose", self, axes=order)

    @property
    def T(self) -> Tensor:
        """All axes in reverse."""
        return self.transpose()

    def swapaxes(self, a: int, b: int) -> Tensor:
        (a,), (b,) = normal_axes(a, self.ndim), normal_axes(b, self.ndim)
        order = list(range(self.ndim))
        order[a], order[b] = b, a
        return apply("transpose", self, axes=tuple(order))

    def broadcast_to(self, *shape: int | Sequence[int]) -> Tensor:
        new = shape_argument(shape)
        ends = new[max(0, len(new) - self.ndim) :]
        fits = all(n in (1, end) for n, end in zip(self.shape, ends, strict=False))
        if not fits or len(ends) < self.ndim or min(new, default=0) < 0:
            raise ShapeError(f"broadcast_to of {self.shape} cannot give {new}")
        return apply("broadcast_to", self, shape=new)

    def pad(self, widths: Sequence[tuple[int, int]], value: Number = 0) -> Tensor:
        """`widths[i]` = (before, after) cells of `value` around axis i."""
        pairs = tuple((int(a), int(b)) for a, b in widths)
        if len(pairs) != self.ndim or any(a < 0 or b < 0 for a, b in pairs):
            raise ShapeError(f"pad of {self.ndim} axes got widths {pairs}")
        if self.dtype not in self.backend.dtypes:
            raise DTypeError(f"{self.backend} does not compute with {self.dtype}; cast first")
        check_number("pad", (value,), self.dtype)
        value = float(value) if isinstance(value, float) else value
        return apply("pad", self, widths=pairs, value=value)

    # ---- index -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Tensor:
        """Integers, slices with a positive step, `...`, None, and one integer tensor."""
        shape = self.shape
        starts, stops, steps, wanted, pick = parse_index(key, shape)
        x = self
        if stops != shape or any(starts) or max(steps, default=1) > 1:
            x = apply("slice", self, starts=starts, stops=stops, steps=steps)
        if x is self or x.shape != wanted:
            x = x.reshape(wanted)
        return x if pick is None else x.take(pick[1], pick[0])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Tensor, axis: int = 0) -> Tensor:
        """x[..., indices, ...]: the shape of `indices` in place of `axis`. Unchecked range."""
        (where,) = normal_axes(axis, self.ndim)
        return apply("take", self, index(indices), axis=where)

    def scatter_add(self, indices: Tensor, updates: Tensor, axis: int = 0) -> Tensor:
        """This tensor plus `updates` at `indices` along `axis`; repeated indices add up."""
        (where,) = normal_axes(axis, self.ndim)
        check_dtypes("scatter_add", self, updates)
        one_dtype("scatter_add", "numbers", None, self)
        taken = self.shape[:where] + index(indices).shape + self.shape[where + 1 :]
        if updates.shape != taken:
            raise ShapeError(f"scatter_add wants updates of {taken}, not {updates.shape}")
        return apply("scatter_add", self, indices, updates, axis=where)

    def write(self, slab: Tensor, start: Tensor | int, axis: int = 0) -> Tensor:
        """This tensor with `slab` at `start` along `axis`. Consumes this one: see `Backend.write`.

        While derivatives are recorded, the buffer is copied first and so stays as it was.
        """
        shape, new = self.shape, slab.shape
        (where,) = normal_axes(axis, len(shape))
        check_dtypes("write", self, slab)
        if len(new) != len(shape) or new != (*shape[:where], new[where], *shape[where + 1 :]):
            raise ShapeError(f"write of {new} into {shape} along axis {where}")
        room = shape[where] - new[where]
        if isinstance(start, int | np.integer):
            start = int(start)
            if not 0 <= start <= room:
                raise ShapeError(f"write of {new} at {start} does not fit {shape}")
        else:
            position: Tensor = index(start).cast(self.backend.index_dtype)
            if position.shape or room < 0:
                at = f"a start of {position.shape}"
                raise ShapeError(f"write of {new} at {at} does not fit {shape}")
            start = position
        recorded = recording.depth or self.node is not None or slab.node is not None
        buffer = apply("concat", self, axis=where) if recorded else self
        return apply("write", buffer, slab, start, axis=where)


def _reversed(x: Tensor) -> Tensor:
    """The smaller the larger, and its own inverse; -x of integers may overflow, -x - 1 does not."""
    return -x if x.dtype.is_float else -x - 1


# ---- dispatch --------------------------------------------------------------------------


# Operations that compute with their tensors' one dtype, and on what they are defined; the others
# move elements about, and take whatever dtypes their methods let through.
_DOMAIN = (
    dict.fromkeys(("neg", "add", "sub", "mul", "maximum", "less"), "numbers")
    | dict.fromkeys(("sum", "max", "argmax"), "numbers")
    | dict.fromkeys(("exp", "log", "tanh", "sqrt", "div", "pow", "matmul"), "floats")
    | {"equal": "values"}
)


def apply(op: str, *args: Tensor | Number, **params: Any) -> Tensor:
    """Call a primitive on tensors (and weak Python numbers), and record it where a gradient asks.

    Raises:
        BackendMismatch: the tensors are of two backends.
        DTypeError: the tensors are of two dtypes, or of one the primitive does not compute with.
        ShapeError: the primitive refused the shapes.
    """
    domain = _DOMAIN.get(op)
    backend: Any = None
    dtype: DType | None = None
    raw = []
    parents = []
    weak = False
    for i, x in enumerate(args):
        if isinstance(x, Tensor):
            data = x.data
            if x.backend is not backend:
                backend = one_backend(op, backend, x.backend)
            if domain is not None and dtype is not backend.dtype(data):
                dtype = one_dtype(op, domain, dtype, x)
            if x.node is not None:
                parents.append((i, x.node))
            raw.append(data)
        else:
            weak = True
            raw.append(float(x) if isinstance(x, float) else x)  # NumPy's floats are not weak
    if weak and domain is not None:
        check_number(op, args, dtype)
    try:
        data = getattr(backend, op)(*raw, **params)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        misfit = shape_misfit(op, args)
        if misfit is None:
            raise  # out of memory, not implemented, a fault of the device: not for us to rename
        raise misfit from error
    if recording.paused:
        if recording.native:
            data = backend.stop_gradient(data)
    elif parents and op in DIFFERENTIABLE:
        return Tensor(data, backend, Node(op, args, raw, parents, params, data))
    return Tensor(data, backend)


class RecordingOps:
    """A backend's primitives on tensors: what rules run on when their walk is itself recorded."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, op: str) -> Any:
        return partial(apply, op)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return x.shape

    def dtype(self, x: Tensor) -> DType:
        return x.dtype

    def full(self, **params: Any) -> Tensor:
        return Tensor(self.backend.full(**params), self.backend)

    def arange(self, **params: Any) -> Tensor:
        return Tensor(self.backend.arange(**params), self.backend)


def gradients(
    output: Tensor,
    targets: Sequence[Node],
    seed: Tensor | None = None,
    create_graph: bool = False,
    order: Sequence[Node] | None = None,
) -> list[Tensor | None]:
    """The gradient of `output` by each target node, from the tape; None where there is none.

    Args:
        output: a float tensor with one element, or of any shape together with `seed`.
        targets: nodes of recorded tensors.
        seed: the gradient by `output`, of its shape and dtype; 1 by default.
        create_graph: record the walk, so that its results can be differentiated again.
        order: `nodes_behind` the output back to the oldest target, where it is known already.
    """
    backend = output.backend
    if seed is None:
        if output.size != 1:
            raise GradientError(f"only a single number has a gradient; the shape is {output.shape}")
        ones = backend.full(shape=output.shape, value=1.0, dtype=output.dtype)
        seed = Tensor(ones, backend)
    elif seed.backend is not backend:
        one_backend("backward", backend, seed.backend)
    elif seed.shape != output.shape or seed.dtype is not output.dtype:
        raise GradientError(
            f"the gradient is {seed.dtype}{seed.shape}, the value {output.dtype}{output.shape}"
        )
    if order is None:
        order = nodes_behind(cast(Node, output.node), oldest(targets))
    if create_graph:
        ops = RecordingOps(backend)
        return walk_back(
            order, seed, targets, ops, lambda node: (node.inputs, Tensor(node.out, backend, node))
        )
    found = walk_back(order, seed.data, targets, backend, lambda node: (node.raw, node.out))
    return [g if g is None else Tensor(g, backend) for g in found]
