"""The generator itself: known numbers, rates, independence, and where seeds come from."""

import pytest
import torch

from bigfast.ops import dropout, dropout_seed, layer_norm_ref


def philox_scalar(counter, key):
    """Philox4x32-7 in Python's integers, straight from the paper."""
    c, k = list(counter), list(key)
    for _ in range(7):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_known_answer():
    """Random123's kat_vectors, philox4x32 7: all zeros."""
    assert philox_scalar((0, 0, 0, 0), (0, 0)) == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
def test_numbers_are_the_papers(seed):
    word0, row, plane = (
        torch.tensor([5, 2**31]),
        torch.tensor([0, -1]),
        torch.tensor([7, 2**32 - 1]),
    )
    got = dropout.philox(word0, row, plane, torch.tensor([seed])).tolist()
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    for i in range(2):
        counter = (int(word0[i]), int(row[i]) & 0xFFFFFFFF, int(plane[i]), 0)
        words = philox_scalar(counter, key)
        assert got[i] == [half for w in words for half in (w & 0xFFFF, w >> 16)]


def test_layouts():
    """Element by element, as the module's docstring states them."""
    seed, p = dropout_seed(), 0.5
    rows = dropout.keep_rows(seed, torch.arange(3), 21, p)
    scores = dropout.keep_scores(seed, torch.arange(2), 3, 70, p)
    one = lambda w, r, plane: dropout.philox(*(torch.tensor(v) for v in (w, r, plane)), seed[0])
    for row in range(3):
        for col in range(21):
            assert rows[row, col] == (one(col // 8, row, 0)[col % 8] >= 32768)
        for col in range(70):
            numbers = one(4 * (col // 32) + (col // 2) % 4, row, 1)
            assert scores[1, row, col] == (numbers[2 * ((col // 8) % 4) + col % 2] >= 32768)


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.1, 0.5, 0.9, 1.0])
def test_rate(p):
    keep = dropout.keep_rows(dropout_seed(), torch.arange(500), 800, p).double()
    exact = 1 - dropout.threshold(p) / 65536
    assert abs(keep.mean() - exact) <= 5 * (exact * (1 - exact) / keep.numel()) ** 0.5
    assert dropout.keep_scale(p) * exact == pytest.approx(float(p < 1))


def test_rows_planes_and_seeds_are_uncorrelated():
    a = dropout.keep_scores(torch.tensor([1]), torch.arange(2), 200, 512, 0.5).double() - 0.5
    b = dropout.keep_scores(torch.tensor([2]), torch.arange(2), 200, 512, 0.5).double() - 0.5
    pairs = [(a[0], a[1]), (a[0], b[0]), (a[0, 1:], a[0, :-1]), (a[0, :, 1:], a[0, :, :-1])]
    for x, y in pairs:
        assert abs((x * y).mean() * 4) < 5 / x.numel() ** 0.5


def test_seed_follows_torchs_generator():
    torch.manual_seed(5)
    first = dropout_seed()
    assert not torch.equal(first, dropout_seed())
    torch.manual_seed(5)
    assert torch.equal(first, dropout_seed())
    assert first.dtype == torch.int64 and first.shape == (1,)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_calls_draw_different_masks(backend):
    """Eager's masks, and one for each call: passes that merge equal calls must not merge these."""
    x, weight = torch.randn(7, 40, requires_grad=True), torch.ones(40)

    def twice(x):
        return tuple(
            layer_norm_ref(
                x, weight, dropout_p=0.5, seed=dropout_seed(x.device), return_residual=True
            )[1]
            for _ in range(2)
        )

    compiled, results = torch.compile(twice, fullgraph=True, backend=backend), []
    for fn in (twice, compiled):
        torch.manual_seed(3)
        a, b = fn(x)
        results.append((a != 0, b != 0, *torch.autograd.grad((a + 2 * b).sum(), x)))
    assert not torch.equal(results[0][0], results[0][1])
    for eager, got in zip(*results):
        assert torch.equal(eager, got)
