from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.workshop.codegen.memory import ALIGN, Block, aligned, lower_bound, plan

BLOCKS = st.lists(
    st.builds(
        lambda size, first, life: Block(size, first, first + life),
        st.integers(1, 5000),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(BLOCKS)
def test_no_two_live_blocks_share_a_byte(blocks):
    total = plan(blocks)
    for at, one in enumerate(blocks):
        assert one.offset % ALIGN == 0
        assert one.offset >= 0
        assert one.offset + one.size <= total
        for other in blocks[at + 1 :]:
            if one.meets(other):
                assert one.offset + one.size <= other.offset or other.offset + other.size <= one.offset


@settings(max_examples=150, deadline=None)
@given(BLOCKS)
def test_a_plan_lies_between_the_bound_and_no_sharing_at_all(blocks):
    total, bound = plan(blocks), lower_bound(blocks)
    assert bound <= total <= sum(aligned(block.size) for block in blocks)


def test_the_bound_is_the_fullest_step():
    assert lower_bound([Block(64, 0, 1), Block(128, 1, 2), Block(64, 2, 2)]) == 192
    assert lower_bound([]) == 0


def test_a_chain_of_equal_steps_needs_two_buffers():
    blocks = [Block(1000, step, step + 1) for step in range(20)]
    assert plan(blocks) == 2 * aligned(1000)


def test_a_residual_network_needs_no_more_than_its_bound():
    """A block reads x, goes through two narrow steps, and adds x to the wide result."""
    blocks, step = [], 0
    for _ in range(16):
        blocks += [Block(4096, step, step + 3), Block(1024, step + 1, step + 2), Block(1024, step + 2, step + 3)]
        step += 3
    assert plan(blocks) <= 1.02 * lower_bound(blocks)
