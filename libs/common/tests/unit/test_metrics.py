import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from vegamite_common.runtime.metrics import BUILD, from_zero, replace_values, tell_build


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_series_that_are_known_before_begin_at_zero(registry: CollectorRegistry) -> None:
    counter = Counter("vegamite_test_things_total", "Things", ["kind", "end"], registry=registry)
    assert from_zero(counter, ("one", "good"), ("one", "bad")) is counter
    counter.labels("one", "bad").inc()
    from_zero(counter, ("one", "bad"))

    assert registry.get_sample_value(
        "vegamite_test_things_total", {"kind": "one", "end": "good"}
    ) == (0)
    assert registry.get_sample_value(
        "vegamite_test_things_total", {"kind": "one", "end": "bad"}
    ) == (1)


def test_values_that_are_replaced_leave_none_of_the_others(registry: CollectorRegistry) -> None:
    gauge = Gauge("vegamite_test_things", "Things", ["kind", "number"], registry=registry)
    replace_values(gauge, {("a", 1): 1.5, ("b", 2): 2})
    replace_values(gauge, {("b", 2): 3, ("c", 4): 5})

    samples = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    assert sorted(samples) == [
        'vegamite_test_things{kind="b",number="2"} 3.0',
        'vegamite_test_things{kind="c",number="4"} 5.0',
    ]


def test_a_counter_brings_no_second_series_with_its_birth(registry: CollectorRegistry) -> None:
    Counter("vegamite_test_things_total", "Things", registry=registry).inc()

    assert "_created" not in generate_latest(registry).decode()


def test_the_build_of_a_service_is_told_with_its_version() -> None:
    tell_build("collector")
    tell_build("collector", component="collector-of-another-kind")
    tell_build("nothing-of-this-name")

    told = {
        sample.labels["component"]: (sample.labels["version"], sample.value)
        for family in BUILD.collect()
        for sample in family.samples
    }
    version, value = told["collector"]
    assert version[0].isdigit()
    assert told["collector-of-another-kind"] == (version, value)
    assert value == 1
    assert told["nothing-of-this-name"] == ("unknown", 1)
