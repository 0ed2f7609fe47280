"""What every test shares: one thread, and global state that ends where it was."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _unmoved_globals():
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


@pytest.fixture
def float64():
    """Double precision for whatever the test builds without saying a dtype."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
