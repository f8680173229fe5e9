"""Which layouts fit which models, and what the errors tell."""

import pytest

from parallel.layout import Layout, choose, divisors


def test_world_size_is_the_product_of_the_degrees():
    assert Layout().world_size == 1
    assert Layout(ulysses=4, ring=2).world_size == 8


@pytest.mark.parametrize("degree", [0, -2, 1.5, True, "2"])
@pytest.mark.parametrize("name", ["ulysses", "ring"])
def test_degrees_are_whole_numbers_of_at_least_one(name, degree):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not {degree!r}"):
        Layout(**{name: degree})


@pytest.mark.parametrize("layout", [Layout(), Layout(ulysses=8), Layout(ring=5), Layout(ulysses=3, ring=4)])
def test_layouts_that_divide_the_heads_pass(layout):
    layout.check(heads=24, tokens=20_400 * layout.world_size)


def test_ulysses_splits_heads():
    with pytest.raises(ValueError) as error:
        Layout(ulysses=5).check(heads=24, tokens=20_400)
    assert "ulysses=5 does not divide the model's 24 attention heads" in str(error.value)
    assert "valid degrees are 1, 2, 3, 4, 6, 8, 12, 24" in str(error.value)


def test_ring_need_not_divide_the_heads():
    Layout(ring=5).check(heads=24, tokens=20_400)


def test_every_rank_needs_a_token():
    Layout(ulysses=4, ring=8).check(heads=24, tokens=33)
    with pytest.raises(ValueError) as error:
        Layout(ulysses=4, ring=8).check(heads=24, tokens=31)
    assert "ulysses=4 x ring=8 makes 32 ranks, more than the 31 tokens" in str(error.value)


@pytest.mark.parametrize("number", [1, 2, 24, 49, 20_400])
def test_divisors_are_all_divisors_in_order(number):
    assert divisors(number) == [candidate for candidate in range(1, number + 1) if number % candidate == 0]


@pytest.mark.parametrize(
    ("slots", "wishes", "expected"),
    [
        ([8], {}, (8, 1)),
        ([8, 8], {}, (8, 2)),
        ([8, 8], {"gangs": 2}, (8, 1)),
        ([8], {"gangs": 2}, (4, 1)),
        ([8, 8], {"gangs": 3}, (1, 5)),
        ([5], {}, (1, 5)),  # 5 does not divide 24 heads; 4 would leave a GPU idle
        ([6, 6], {}, (6, 2)),
        ([8, 4], {}, (4, 3)),
        ([8, 8], {"most": 8}, (8, 1)),
        ([8, 8], {"most": 3}, (3, 1)),
        ([8, 8], {"most": 1}, (1, 1)),
        ([8, 8], {"ulysses": 2}, (2, 8)),
        ([8, 8], {"ring": 1}, (8, 1)),
        ([8, 8], {"ring": 4}, (4, 4)),
        ([1, 1], {"ulysses": 1, "ring": 2}, (1, 2)),
        ([1, 1], {}, (1, 2)),
        ([8], {"ulysses": 8, "most": 2}, (8, 1)),
    ],
)
def test_auto_keeps_ulysses_on_a_node_and_uses_every_gpu_that_it_can(slots, wishes, expected):
    layout = choose(heads=24, slots=slots, **{"most": 100, **wishes})
    assert (layout.ulysses, layout.ring) == expected


@pytest.mark.parametrize("wishes", [{"ulysses": 8}, {"ring": 9}, {"gangs": 9}, {"ulysses": 2, "ring": 5}])
def test_auto_says_what_fits_nowhere(wishes):
    with pytest.raises(ValueError, match=r"no layout of .* fits .* times on nodes with room for 4, 4 ranks"):
        choose(heads=24, slots=[4, 4], most=100, **wishes)
