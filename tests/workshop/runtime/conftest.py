from __future__ import annotations

import pytest

from fleetui.workshop import targets
from tests.helpers.compiled import build, mlp


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A model with its weights in a file of their own."""
    graph = mlp()
    return graph, build(graph, tmp_path_factory.mktemp("small") / "v", targets.find("host")).dir


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """One that is worth splitting over threads, with inputs and outputs too big to be copied."""
    graph = mlp((12_000, 256, 9_000), name="wide")
    return graph, build(graph, tmp_path_factory.mktemp("wide") / "v", targets.find("host")).dir
