"""Random numbers of a seed and a counter: Philox 4x32 and 4x64.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011: the constants and the round. The
mapping to floats is Triton's, so that a kernel draws the same numbers.
"""

from __future__ import annotations

from patcher.tiles import types
from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.elementwise import maximum
from patcher.tiles.library.registry import function
from patcher.tiles.library.shapes import full
from patcher.tiles.program import Value
from patcher.tiles.types import DType

ROUNDS = 10

_FACTORS = {32: (0xD2511F53, 0xCD9E8D57), 64: (0xD2E7470EE14C6C93, 0xCA5A826395121157)}
_STEPS = {32: (0x9E3779B9, 0xBB67AE85), 64: (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)}

Four = tuple[Value, Value, Value, Value]


@function("philox_impl")
def rounds(
    b: Builder, c0: Value, c1: Value, c2: Value, c3: Value, k0: Value, k1: Value, n_rounds: int = ROUNDS
) -> Four:
    """``n_rounds`` rounds on a counter of four words and a key of two."""
    bits = c0.number.int_bitwidth
    (first, second), (step0, step1) = _FACTORS[bits], _STEPS[bits]

    def high(factor: int, word: Value, *others: Value) -> Value:
        product = b.map("umulhi", *b.pair(factor, word))
        for other in others:
            product = b.bits("xor", product, other)
        return product

    for _ in range(n_rounds):
        c0, c1, c2, c3 = high(second, c2, c1, k0), b.mul(second, c2), high(first, c0, c3, k1), b.mul(first, c0)
        k0, k1 = b.add(k0, step0), b.add(k1, step1)
    return c0, c1, c2, c3


@function()
def philox(
    b: Builder, seed: Operand, c0: Operand, c1: Operand, c2: Operand, c3: Operand, n_rounds: int = ROUNDS
) -> Four:
    """Four words for a seed and a counter of four words, all unsigned, of the counter's width."""
    seed = b.tensor(seed)
    if not seed.scalar.is_int():
        raise TypeError(f"a seed is a whole number, and this is {seed.type}")
    counters = [b.tensor(word) for word in (c0, c1, c2, c3)]
    bits = counters[0].number.int_bitwidth
    word = DType(f"uint{bits}")
    key = b.cast(seed, types.uint64)
    if bits == 32:
        low = b.cast(b.bits("and", key, 0xFFFFFFFF), types.uint32)
        upper = b.cast(b.bits("shr", key, 32), types.uint32)
    else:
        low, upper = key, full(b, (1,), 0, types.uint64)
    n0, n1, n2, n3 = (b.bitcast(counter, word) for counter in counters)
    return rounds(b, n0, n1, n2, n3, low, upper, n_rounds)


@function()
def randint4x(b: Builder, seed: Operand, offset: Operand, n_rounds: int = ROUNDS) -> Four:
    """Four blocks of random uint32, one for each offset."""
    counter = b.tensor(offset)
    low = b.cast(counter, types.uint32)
    zero = b.mul(low, 0)
    wide = counter.number.int_bitwidth > 32
    high = b.cast(b.bits("shr", counter, 32), types.uint32) if wide else zero
    return philox(b, seed, low, high, zero, zero, n_rounds)


@function()
def randint(b: Builder, seed: Operand, offset: Operand, n_rounds: int = ROUNDS) -> Value:
    """Random uint32, one for each offset."""
    return randint4x(b, seed, offset, n_rounds)[0]


@function("uint_to_uniform_float")
def uniform(b: Builder, x: Value) -> Value:
    """Random bits as a float in [0, 1)."""
    bits = x.number.int_bitwidth
    signed = b.bitcast(x, DType(f"int{bits}"))
    positive = b.where(b.compare("lt", signed, 0), b.invert(signed), signed)
    return b.mul(positive, 4.6566127342e-10 if bits == 32 else 1.0842020432385337e-19)


@function("pair_uniform_to_normal")
def normal(b: Builder, u1: Operand, u2: Operand) -> tuple[Value, Value]:
    """Two normal numbers of two uniform ones, by Box and Muller."""
    angle = b.mul(6.283185307179586, u2)
    radius = b.map("sqrt", b.mul(-2.0, b.map("log", maximum(b, 1.0e-7, u1))))
    return b.mul(radius, b.map("cos", angle)), b.mul(radius, b.map("sin", angle))


@function()
def rand4x(b: Builder, seed: Operand, offsets: Operand, n_rounds: int = ROUNDS) -> Four:
    """Four blocks of random fp32 in [0, 1)."""
    one, two, three, four = randint4x(b, seed, offsets, n_rounds)
    return uniform(b, one), uniform(b, two), uniform(b, three), uniform(b, four)


@function()
def rand(b: Builder, seed: Operand, offset: Operand, n_rounds: int = ROUNDS) -> Value:
    """Random fp32 in [0, 1), one for each offset."""
    return uniform(b, randint(b, seed, offset, n_rounds))


@function()
def randn4x(b: Builder, seed: Operand, offset: Operand, n_rounds: int = ROUNDS) -> Four:
    """Four blocks of fp32 from the normal distribution."""
    one, two, three, four = rand4x(b, seed, offset, n_rounds)
    return *normal(b, one, two), *normal(b, three, four)


@function()
def randn(b: Builder, seed: Operand, offset: Operand, n_rounds: int = ROUNDS) -> Value:
    """fp32 from the normal distribution, one for each offset."""
    one, two, _, _ = randint4x(b, seed, offset, n_rounds)
    return normal(b, uniform(b, one), uniform(b, two))[0]
