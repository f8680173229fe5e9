"""What proxies attend to: runs of tokens, pooled."""

import pytest
import torch

from caching.group import LocalGroup
from caching.proxies.context import Context
from caching.shards import ShardMap


@pytest.mark.parametrize(("num_tokens", "max_runs"), [(720, 6), (719, 6), (719, 5), (24, 8), (719, 719), (719, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_is_the_mean_of_its_tokens_but_for_one_rounding(num_tokens, max_runs, dtype):
    """Shards of 240 or 239 tokens in runs of one to 240, the last of them shorter."""
    shards = ShardMap(num_tokens=num_tokens, num_shards=3)
    context = Context(shards, max_runs, torch.device("cpu"))
    key, value, text = (4 + torch.randn(1, 2, count, 6).to(dtype) for count in (num_tokens, num_tokens, 5))
    context.record(key, value, text, text)
    context.commit(0.5, LocalGroup())
    recorded = context.newest[0][0]
    assert recorded.dtype == dtype and torch.equal(recorded[:, :, -5:], text)
    for run in range(recorded.shape[2] - 5):
        mean = key[:, :, context.run_of == run].double().mean(2)
        rounding = torch.finfo(dtype).eps / 2 if dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(recorded[:, :, run].double(), mean, rtol=rounding, atol=0.0)
