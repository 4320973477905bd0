"""What the headers of the configs say about GPUs is what benchmarks/plan.py computes from what was measured."""

import importlib
import re
from types import ModuleType

import pytest

from igpt.model.transformer import PRESETS, parameter_count
from igpt.parsing import config_name
from tests.conftest import REPO

CONFIGS = sorted(path for path in (REPO / "configs").rglob("*.yaml") if path.parent.name != "scale")


def header(config):
    return [line for line in config.read_text().splitlines() if line.startswith("#")]


ON_GPUS = [config for config in CONFIGS if any("GPU" in line for line in header(config))]


@pytest.fixture(scope="module")
def headers() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "benchmarks")
        return importlib.import_module("headers")


@pytest.fixture(scope="module")
def plan(headers) -> ModuleType:
    return importlib.import_module("plan")


def test_a_config_says_whether_it_is_for_gpus_or_for_a_cpu():
    on_cpu = {config_name(config) for config in CONFIGS if "CPU cores" in config.read_text()}
    assert {config_name(config) for config in ON_GPUS} | on_cpu == {config_name(config) for config in CONFIGS}
    assert all(name.startswith(("digits", "families", "mnist", "photos")) for name in on_cpu)
    assert on_cpu.isdisjoint(config_name(config) for config in ON_GPUS)


@pytest.mark.parametrize("config", ON_GPUS, ids=config_name)
def test_a_header_gives_the_hours_and_the_memory_that_are_computed(config, headers):
    lines = header(config)
    for computed in headers.gpu_lines(headers.schedule_of(config)):
        assert any(line.endswith(computed) for line in lines), f"{config.name}: its header should say: {computed}"


@pytest.mark.parametrize("config", ON_GPUS, ids=config_name)
def test_the_batch_for_a_smaller_gpu_adds_up_to_that_of_the_config(config, headers):
    text = "\n".join(header(config))
    found = re.search(r"batch_size (\d+) --trainer.accumulate_grad_batches (\d+)", text)
    if found:
        devices = 1 if "On 24 GB: --trainer.devices 1" in text else headers.schedule_of(config).devices
        assert int(found[1]) * int(found[2]) * devices == headers.schedule_of(config).batch


def test_recompute_is_on_where_a_batch_fits_in_no_other_way(plan, headers):
    needs = {config_name(config) for config in ON_GPUS if plan.recomputes(headers.schedule_of(config))}
    needs -= {
        config_name(config) for config in ON_GPUS if plan.shared(headers.schedule_of(config).config)
    }  # by configs/scale
    on = {config_name(config) for config in ON_GPUS if "\n    recompute: true\n" in config.read_text()}
    assert on == needs
    assert "imagenet_ar_l_48" in on


def test_a_joint_config_is_computed_with_the_network_that_it_fine_tunes(headers):
    schedules = {config_name(config): headers.schedule_of(config) for config in ON_GPUS}
    assert schedules["imagenet_joint_l_48"].config == schedules["imagenet_ar_l_48"].config
    assert not schedules["cifar10_joint_bert_l"].causal
    assert schedules["cifar10_joint_scratch_s"].config == PRESETS["S"]
    assert schedules["cifar10_joint_l"].may_stop
    assert not schedules["imagenet_ar_l"].may_stop


def test_the_shares_of_the_peak_are_those_of_the_rule_of_six_operations_a_parameter_and_token(plan):
    for size, rate, share in (("S", 612, 0.42), ("M", 147, 0.56), ("L", 53, 0.59)):
        config = PRESETS[size]
        tokens, depth, width = config.n_positions, config.n_layers, config.d_model
        operations = 6 * parameter_count(config) * tokens + 6 * depth * width * tokens**2
        assert plan.utilisation(config) == pytest.approx(rate * operations / 795e12, rel=0.01)
        assert plan.utilisation(config) == pytest.approx(share, abs=0.005)


def test_the_hours_are_those_that_the_measured_rates_take(plan):
    small, middle, large = plan.SCHEDULES[:3]
    assert plan.h100_hours(small, 1) == pytest.approx(128e6 / 612 / 3600)
    assert plan.h100_hours(middle, 8) == pytest.approx(128e6 / 147 / 3600 / 8)
    assert plan.h100_hours(large, 1) == pytest.approx(128e6 / 53 / 3600)


def test_memory_at_one_batch_follows_from_that_at_another(plan):
    assert plan.device_bytes(PRESETS["S"], 64) / 2**30 == pytest.approx(27.3, rel=0.01)
    for step in plan.STEPS:
        measured = plan.measured_image_bytes(step) / plan.activation_bytes(PRESETS[step.size], recompute=False)
        assert 0.65 < measured < 0.8  # compiled blocks keep less than the count by hand, at every size about as much


def test_large_networks_recompute_only_where_their_batch_does_not_fit(plan):
    assert [plan.recomputes(schedule) for schedule in plan.SCHEDULES] == [False, False, False, True, True]
    assert [plan.batch_on(PRESETS[size], 24) for size in ("S", "M", "L", "XL")] == [32, 8, 0, 0]
