"""microGPT in plain Python floats: what the tests hold every backend against.

It shares nothing with tfx and imports no library: no arrays, no broadcasting, no fused
formula. One tape differentiates numbers one at a time, and the model is written over it
position by position.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from operator import mul

Row = Sequence[int]
Matrix = list[Row]


class Tape:
    """Reverse-mode differentiation of scalars; a number is its place on the tape.

    For every place the tape keeps the value, the places it was computed from, and the
    partial derivative ("slope") towards each. A place refers to earlier places only, so one
    walk from the result back to the start is the chain rule.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self.sources: list[Sequence[int]] = []
        self.slopes: list[Sequence[float]] = []

    def put(self, value: float, sources: Sequence[int] = (), slopes: Sequence[float] = ()) -> int:
        """Append a number and return its place; without sources it is an input."""
        self.values.append(value)
        self.sources.append(sources)
        self.slopes.append(slopes)
        return len(self.values) - 1

    def cut(self, length: int) -> None:
        """Forget everything but the first `length` numbers."""
        del self.values[length:], self.sources[length:], self.slopes[length:]

    def read(self, places: Iterable[int]) -> list[float]:
        values = self.values
        return [values[place] for place in places]

    def gradients(self, result: int) -> list[float]:
        """The derivative of `result` with respect to every number up to it, by place."""
        grads = [0.0] * (result + 1)
        grads[result] = 1.0
        for place in range(result, -1, -1):
            grad = grads[place]
            if grad != 0.0:
                for source, slope in zip(self.sources[place], self.slopes[place], strict=True):
                    grads[source] += grad * slope
        return grads

    def add(self, x: int, y: int) -> int:
        return self.put(self.values[x] + self.values[y], (x, y), (1.0, 1.0))

    def mul(self, x: int, y: int) -> int:
        a, b = self.values[x], self.values[y]
        return self.put(a * b, (x, y), (b, a))

    def affine(self, x: int, scale: float, shift: float = 0.0) -> int:
        """x * scale + shift, for two constants."""
        return self.put(self.values[x] * scale + shift, (x,), (scale,))

    def total(self, xs: Sequence[int]) -> int:
        return self.put(sum(self.read(xs)), xs, [1.0] * len(xs))

    def dot(self, xs: Row, ys: Row) -> int:
        """The sum of products, pair by pair."""
        a, b = self.read(xs), self.read(ys)
        return self.put(sum(map(mul, a, b)), [*xs, *ys], b + a)

    def power(self, x: int, exponent: float) -> int:
        a = self.values[x]
        return self.put(a**exponent, (x,), (exponent * a ** (exponent - 1.0),))

    def exp(self, x: int) -> int:
        a = math.exp(self.values[x])
        return self.put(a, (x,), (a,))

    def log(self, x: int) -> int:
        a = self.values[x]
        return self.put(math.log(a), (x,), (1.0 / a,))

    def relu(self, x: int) -> int:
        a = self.values[x]
        return self.put(max(a, 0.0), (x,), (1.0 if a > 0.0 else 0.0,))


class ScalarMicroGPT:
    """The model, its training loop and its sampling, all from one stream of random numbers.

    The stream is used in the original's order: shuffle the documents, draw the parameters,
    then (after training) choose the samples' tokens.

    Attributes:
        docs: the documents in training order.
        characters: the vocabulary; token i is `characters[i]`, the last token is `bos`.
        losses: the loss of every step taken so far.
        gradients: of the latest step, by parameter name, as rows of floats.
    """

    def __init__(
        self,
        docs: Sequence[str],
        *,
        seed: int = 42,
        num_steps: int = 1000,
        n_layer: int = 1,
        n_embd: int = 16,
        n_head: int = 4,
        block_size: int = 16,
    ) -> None:
        self.n_layer, self.n_embd, self.n_head = n_layer, n_embd, n_head
        self.block_size, self.num_steps = block_size, num_steps
        self.random = random.Random(seed)
        self.docs = list(docs)
        self.random.shuffle(self.docs)
        self.characters = sorted(set("".join(self.docs)))
        self.bos = len(self.characters)
        self.vocab_size = self.bos + 1

        self.tape = Tape()
        self.weights: dict[str, Matrix] = {}
        self._draw("wte", self.vocab_size, n_embd)
        self._draw("wpe", block_size, n_embd)
        self._draw("lm_head", self.vocab_size, n_embd)
        for layer in range(n_layer):
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
                self._draw(f"layer{layer}.{name}", n_embd, n_embd)
            self._draw(f"layer{layer}.mlp_fc1", 4 * n_embd, n_embd)
            self._draw(f"layer{layer}.mlp_fc2", n_embd, 4 * n_embd)

        self.num_params = len(self.tape.values)
        self.mean_grad = [0.0] * self.num_params
        self.mean_square_grad = [0.0] * self.num_params
        self.losses: list[float] = []
        self.gradients: dict[str, list[list[float]]] = {}

    def _draw(self, name: str, rows: int, columns: int) -> None:
        self.weights[name] = [
            [self.tape.put(self.random.gauss(0, 0.08)) for _ in range(columns)] for _ in range(rows)
        ]

    def _by_name(self, flat: Sequence[float]) -> dict[str, list[list[float]]]:
        return {
            name: [[flat[place] for place in row] for row in matrix]
            for name, matrix in self.weights.items()
        }

    @property
    def parameters(self) -> dict[str, list[list[float]]]:
        """The parameters as they are now, by name, as rows of floats."""
        return self._by_name(self.tape.values)

    # The model

    def _matvec(self, name: str, xs: Row) -> Row:
        return [self.tape.dot(row, xs) for row in self.weights[name]]

    def _plus(self, xs: Row, ys: Row) -> Row:
        return [self.tape.add(x, y) for x, y in zip(xs, ys, strict=True)]

    def _rms_norm(self, xs: Row) -> Row:
        mean_square = self.tape.affine(self.tape.dot(xs, xs), 1.0 / len(xs), 1e-5)
        scale = self.tape.power(mean_square, -0.5)
        return [self.tape.mul(x, scale) for x in xs]

    def _softmax(self, xs: Row) -> Row:
        peak = max(self.tape.read(xs))
        exps = [self.tape.exp(self.tape.affine(x, 1.0, -peak)) for x in xs]
        inverse_total = self.tape.power(self.tape.total(exps), -1.0)
        return [self.tape.mul(e, inverse_total) for e in exps]

    def _attend(self, q: Row, keys: list[Row], values: list[Row]) -> Row:
        size = self.n_embd // self.n_head
        mixed: list[int] = []
        for start in range(0, self.n_embd, size):
            head = slice(start, start + size)
            scores = [self.tape.affine(self.tape.dot(q[head], k[head]), size**-0.5) for k in keys]
            shares = self._softmax(scores)
            columns = zip(*(v[head] for v in values), strict=True)
            mixed += [self.tape.dot(shares, column) for column in columns]
        return mixed

    def _logits(self, token: int, position: int, cache: list[tuple[list[Row], list[Row]]]) -> Row:
        """Logits of the next token; `cache` holds each layer's keys and values so far."""
        x = self._plus(self.weights["wte"][token], self.weights["wpe"][position])
        x = self._rms_norm(x)
        for layer, (keys, values) in enumerate(cache):
            name = f"layer{layer}."
            normed = self._rms_norm(x)
            q = self._matvec(name + "attn_wq", normed)
            keys.append(self._matvec(name + "attn_wk", normed))
            values.append(self._matvec(name + "attn_wv", normed))
            x = self._plus(self._matvec(name + "attn_wo", self._attend(q, keys, values)), x)
            hidden = self._matvec(name + "mlp_fc1", self._rms_norm(x))
            hidden = [self.tape.relu(h) for h in hidden]
            x = self._plus(self._matvec(name + "mlp_fc2", hidden), x)
        return self._matvec("lm_head", x)

    def _empty_cache(self) -> list[tuple[list[Row], list[Row]]]:
        return [([], []) for _ in range(self.n_layer)]

    def _loss(self, doc: str) -> int:
        tokens = [self.bos, *map(self.characters.index, doc), self.bos]
        positions = min(self.block_size, len(tokens) - 1)
        cache = self._empty_cache()
        surprises: list[int] = []
        for position in range(positions):
            probabilities = self._softmax(self._logits(tokens[position], position, cache))
            surprises.append(self.tape.log(probabilities[tokens[position + 1]]))
        return self.tape.affine(self.tape.total(surprises), -1.0 / positions)

    # What the tests call

    def loss(self, doc: str) -> float:
        """The mean loss over the positions of `doc`; changes nothing."""
        loss = self.tape.values[self._loss(doc)]
        self.tape.cut(self.num_params)
        return loss

    def step(self) -> float:
        """One document, one Adam update; returns the loss before the update."""
        step = len(self.losses)
        place = self._loss(self.docs[step % len(self.docs)])
        grads = self.tape.gradients(place)
        self.losses.append(self.tape.values[place])
        self.gradients = self._by_name(grads)
        self.tape.cut(self.num_params)
        self._adam(step, grads)
        return self.losses[-1]

    def _adam(self, step: int, grads: Sequence[float]) -> None:
        """Adam with bias correction, a rate falling to zero, and epsilon outside the root."""
        beta1, beta2, epsilon = 0.85, 0.99, 1e-8
        rate = 0.01 * (1.0 - step / self.num_steps)
        correction1 = 1.0 - beta1 ** (step + 1)
        correction2 = 1.0 - beta2 ** (step + 1)
        m, v, values = self.mean_grad, self.mean_square_grad, self.tape.values
        for i in range(self.num_params):
            m[i] = beta1 * m[i] + (1.0 - beta1) * grads[i]
            v[i] = beta2 * v[i] + (1.0 - beta2) * grads[i] ** 2
            values[i] -= rate * (m[i] / correction1) / (math.sqrt(v[i] / correction2) + epsilon)

    def sample(self, temperature: float = 0.5) -> str:
        """One document from the model, at most `block_size` characters."""
        cache = self._empty_cache()
        token, text = self.bos, ""
        for position in range(self.block_size):
            logits = self._logits(token, position, cache)
            weights = self.tape.read(
                self._softmax([self.tape.affine(x, 1.0 / temperature) for x in logits])
            )
            token = self.random.choices(range(self.vocab_size), weights=weights)[0]
            if token == self.bos:
                break
            text += self.characters[token]
        self.tape.cut(self.num_params)
        return text
