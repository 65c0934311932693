from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import Connected, Publish, Started
from fleet_sim.agent.model import Mlp, ModelError
from fleet_sim.world import applications
from fleet_sim.world.applications import APPLICATIONS, FEATURES, VERSIONS, class_means, fitted
from fleet_sim.world.hardware import FIRMWARE, HARDWARE, SITES
from fleet_sim.world.population import CATALOGUE, COLUMNS, make
from fleetui.common.domain.errors import ConfigError, FilterError
from fleetui.common.domain.values import is_id
from fleetui.common.link import codec
from fleetui.common.link.topics import Up


@pytest.fixture(scope="module")
def fleet():
    return make(2000, 5, "plant")


def same(a, b, n) -> bool:
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            if not np.array_equal(left[:n], right[:n], equal_nan=left.dtype.kind == "f"):
                return False
        elif isinstance(left, tuple) and left[:n] != right[:n]:
            return False
    return True


def test_a_device_is_the_same_in_a_fleet_of_any_size(fleet):
    assert same(make(70, 5), fleet, 70)
    assert not same(make(70, 6), fleet, 70)


def test_every_kind_occurs_about_as_often_as_it_should(fleet):
    for column, shares in (
        (fleet.site, [s.share for s in SITES]),
        (fleet.hardware, [h.share for h in HARDWARE]),
        (fleet.firmware, [share for _, share in FIRMWARE]),
        (fleet.version, [share for _, share, _ in VERSIONS]),
    ):
        assert sum(shares) == pytest.approx(1.0)
        found = np.bincount(column, minlength=len(shares)) / fleet.n
        assert np.abs(found - shares).max() < 0.05
        assert found.min() > 0


def test_devices_are_fit_for_the_wire(fleet):
    assert len(set(fleet.ids)) == len(set(fleet.names)) == fleet.n
    for i in range(0, fleet.n, 97):
        assert is_id(fleet.ids[i])
        core = AgentCore(fleet.config(i, beat_s=30, window_s=300), fleet.boot(i, 0), [fleet.running(i)])
        core.step(Started(), 1e9)
        effects = [e for e in core.step(Connected(), 1e9) if isinstance(e, Publish)]
        birth = codec.decode_up(Up.BIRTH, codec.encode(effects[0].message), fleet.ids[i])
        assert float(birth.tags["lat"]) == pytest.approx(SITES[fleet.site[i]].latitude, abs=0.1)
        assert float(birth.tags["lon"]) == pytest.approx(SITES[fleet.site[i]].longitude, abs=0.1)
        assert birth.models[0].variant == f"{birth.target}/fp32"
        assert birth.memory_bytes in HARDWARE[fleet.hardware[i]].memory_bytes


def test_no_two_boots_have_the_same_id(fleet):
    boots = {
        fleet.boot(i, number, stream) for i in range(200) for number in range(20) for stream in ("live", "past")
    }
    assert len(boots) == 200 * 20 * 2
    assert all(len(boot) <= 64 for boot in boots)


def test_selecting_by_filter_and_by_id(fleet):
    chosen = fleet.select("site:turin and target:(rpi4-64,rpi5-64) and ram>=4GiB")
    assert len(chosen) > 20
    for i in chosen:
        assert SITES[fleet.site[i]].name == "Turin"
        assert HARDWARE[fleet.hardware[i]].target.startswith("rpi")
        assert fleet.memory_bytes[i] >= 4 << 30
    assert fleet.select("", [fleet.ids[7], fleet.ids[3]]).tolist() == [3, 7]
    assert len(fleet.select("")) == fleet.n
    assert len(fleet.select("firmware<2.4 tag.line:1 handle:leak")) > 5
    with pytest.raises(ConfigError, match="no simulated device 'nobody'"):
        fleet.select("", ["nobody"])
    with pytest.raises(FilterError):
        fleet.select("status:offline")  # not known before it runs


def test_every_field_that_can_be_asked_for_has_a_column(fleet):
    columns = fleet.columns()
    assert set(COLUMNS) <= set(columns)
    for field in CATALOGUE.fields:
        assert len(columns[field.column]) == fleet.n


@pytest.mark.parametrize("devices", [0, -1, 100_001])
def test_impossible_fleets_are_refused(devices):
    with pytest.raises(ConfigError, match="cannot be simulated"):
        make(devices, 1)


@pytest.mark.parametrize("app", range(len(APPLICATIONS)))
def test_models_have_learnt_the_truth(app):
    application = APPLICATIONS[app]
    classes = len(application.classes)
    rng = np.random.default_rng(3)
    truth = rng.choice(classes, 5000, p=application.priors)
    rows = (class_means(app, 1)[truth] + rng.standard_normal((5000, FEATURES))).astype(np.float32)
    answers = fitted(app, 0, 1).predict(rows)
    assert answers.shape == (5000, classes)
    assert np.allclose(answers.sum(axis=1), 1.0, atol=1e-5)
    assert answers.dtype == np.float32
    accuracy = (answers.argmax(axis=1) == truth).mean()
    assert accuracy > 0.85
    moved = [fitted(app, 0, 1).predict(rows + np.float32(shift)).argmax(axis=1) for shift in (1.5, -1.5)]
    assert min((m == truth).mean() for m in moved) < accuracy - 0.03  # drift hurts


def test_versions_and_seeds_are_different_models():
    digests = {fitted(a, v, s).digest for a in range(len(APPLICATIONS)) for v in range(2) for s in (1, 2)}
    assert len(digests) == len(APPLICATIONS) * 4
    assert applications.fitted(0, 0, 1) is fitted(0, 0, 1)  # weights are shared


def test_a_model_refuses_what_it_cannot_take():
    model = Mlp.from_seed("m", "1", "host", seed=1, features=4, hidden=8, classes=3)
    assert (model.features, model.classes) == (4, 3)
    with pytest.raises(ModelError, match="rows of 4 features"):
        model.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(ModelError, match="finite"):
        model.predict(np.full((2, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        Mlp("m", "1", "", (np.zeros((4, 8)), np.zeros(7), np.zeros((8, 3)), np.zeros(3)))
