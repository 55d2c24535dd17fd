import pytest
import torch

from bigfast.ops import dropout_seed, layer_norm_ref


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
