"""What a lesson costs elsewhere: work recorded, rates measured once, seconds by both."""

import pytest
import torch

from mimlib import places, world
from mimlib.machine import bench, costs
from mimlib.machine.costs import Rates
from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.training import log

THERE = Rates(images=900.0, views=100.0, views_together=200.0, rounds=50.0)


def receipt(**seconds):
    work = {part: {"count": 1, "seconds": seconds.get(part, 0.0)} for part in costs.PARTS}
    return {"seconds": 100.0, "work": work, "rates": THERE._asdict()}


def test_each_part_scales_with_its_own_rate():
    found = receipt(training=60.0, rendering=10.0, rendering_together=20.0)  # and 10 of the rest
    assert costs.predict(found, THERE) == pytest.approx(100)
    for rate, more in (("images", 60), ("views", 10), ("views_together", 20), ("rounds", 10)):
        slower = THERE._replace(**{rate: getattr(THERE, rate) / 2})
        assert costs.predict(found, slower) == pytest.approx(100 + more), rate
    assert costs.predict(receipt(), THERE._replace(images=1.0)) == pytest.approx(100)


def test_work_is_recorded_where_it_is_done(tmp_path, monkeypatch):
    path = tmp_path / "lesson.work"
    assert costs.read_work(path)["training"] == {"count": 0, "seconds": 0.0}
    world.views(1, 16, cache=False)  # not asked to be recorded
    monkeypatch.setenv("MIMLIB_WORK", str(path))
    world.views(2, 16, cache=False)
    meter = log.Meter(torch.device("cpu"), images_per_step=8)
    for _ in range(3):
        meter.add({"loss": torch.ones(())})
    with meter.pause():
        places.record_work("rendering_together", 5, 1.5)
    meter.read()
    parts = costs.read_work(path)
    assert parts["rendering"]["count"] == 2 and parts["rendering"]["seconds"] > 0
    assert parts["rendering_together"] == {"count": 5, "seconds": 1.5}
    assert parts["training"]["count"] == 24


def test_rates_are_measured_once_for_each_preset_and_machine(tmp_path, monkeypatch):
    asked = []

    def step_rate(run):
        asked.append(run.name)
        assert run == preset(run.name), "what is kept is of the preset itself"
        return 7.0

    def world_rates(level, size):
        asked.append((level, size))
        return [1.0, 2.0, 3.0]

    monkeypatch.setenv("MIMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "_step_rate", step_rate)
    monkeypatch.setattr(costs, "_world_rates", world_rates)
    for _ in range(2):
        changed = override(preset("mae_lesson"), {"train.batch_size": 8})
        assert costs.rates(changed) == Rates(7.0, 1.0, 2.0, 3.0)
    costs.rates(preset("convmae_lesson"))
    assert asked == ["mae_lesson", ("paper", 64), "convmae_lesson"]
    monkeypatch.setattr(costs, "hardware", lambda: "another machine on the same disk")
    costs.rates(preset("mae_lesson"))
    assert asked[3:] == ["mae_lesson", ("paper", 64)]
    (tmp_path / "cache" / "rates.json").write_text("{broken")
    assert costs.rates(preset("mae_lesson")).images == 7.0 and len(asked) == 7
    monkeypatch.setenv("MIMLIB_CACHE", "~nobody-of-this-name/cache")  # as without a home
    assert costs.rates(preset("mae_lesson")).images == 7.0 and len(asked) == 9


def test_rates_come_from_real_steps_and_views(monkeypatch):
    monkeypatch.setattr(costs, "SECONDS", 0.0)
    seen = []
    real = bench.seconds_per_step
    monkeypatch.setattr(
        bench, "seconds_per_step", lambda *given: seen.append(given) or real(*given)
    )
    state = torch.get_rng_state()
    assert costs._step_rate(preset("mae_tiny")) > 0
    assert torch.equal(torch.get_rng_state(), state), "a lesson draws what it drew before"
    assert seen[0][1] == preset("mae_tiny").train.batch_size
    views, together, rounds = costs._world_rates("easy", 16)
    assert views > 0 and rounds > 0 and together > 0


def test_processes_that_share_a_core_render_no_more_views_together(monkeypatch):
    monkeypatch.setattr(costs, "SECONDS", 0.0)
    monkeypatch.setattr(costs, "count_workers", lambda *_: 4)
    monkeypatch.setattr(costs, "_rounds", lambda processes: {1: 10.0, 4: 12.0}[processes])
    monkeypatch.setattr(bench, "times_of", lambda work, seconds: [0.5])
    views, together, rounds = costs._world_rates("easy", 16)
    assert (views, together, rounds) == (32.0, pytest.approx(38.4), 10.0)
