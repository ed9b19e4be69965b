from vegamite_common.runtime.health import Health, JointHealth


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_service_lives_while_its_loop_moves() -> None:
    seconds = Seconds()
    health = Health("collector", live_seconds=10, monotonic=seconds)
    seconds.now += 10
    assert health.live().ok
    seconds.now += 0.5
    assert not health.live().ok
    assert health.live().reason == "collector: the loop has not moved for 10 s"
    health.beat()
    assert health.live().ok
    assert not health.live(now=seconds.now + 11).ok


def test_a_service_is_ready_when_it_says_so_and_tells_why_when_not() -> None:
    health = Health("api")
    assert (health.ready().ok, health.ready().reason) == (False, "api: starting")
    health.set_ready(True)
    assert (health.ready().ok, health.ready().reason) == (True, "")
    health.set_ready(False, "draining")
    assert (health.ready().ok, health.ready().reason) == (False, "api: draining")
    health.set_ready(False)
    assert health.ready().reason == "api: not ready"


def test_a_silent_loop_does_not_make_a_service_unready_nor_the_other_way_round() -> None:
    seconds = Seconds()
    health = Health(live_seconds=10, monotonic=seconds)
    health.set_ready(True)
    seconds.now += 60
    assert health.ready().ok
    health.beat()
    health.set_ready(False, "x")
    assert health.live().ok


def test_several_services_are_healthy_only_together() -> None:
    seconds = Seconds()
    first = Health("first", live_seconds=10, monotonic=seconds)
    second = Health("second", live_seconds=10, monotonic=seconds)
    joint = JointHealth([first, second])
    first.set_ready(True)
    assert joint.live().ok
    assert joint.ready().reason == "second: starting"
    second.set_ready(True)
    assert joint.ready().ok
    seconds.now += 11
    second.beat()
    assert joint.live().reason == "first: the loop has not moved for 11 s"
