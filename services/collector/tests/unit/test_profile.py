"""What exchanges can be relied on for, and that the page about it is true."""

from pathlib import Path

import pytest

from vegamite_collector.core.profile import ExchangeProfile, known_profiles, profile_for
from vegamite_common.domain.time import SECOND

README = Path(__file__).parents[2] / "README.md"


def row(profile: ExchangeProfile) -> str:
    resolution = (
        "1 s" if profile.time_resolution == SECOND else f"{profile.time_resolution // 1000} ms"
    )
    cells = (
        profile.exchange,
        profile.id_space,
        "yes" if profile.ids_numeric else "no",
        "yes" if profile.ids_contiguous else "no",
        resolution,
        profile.backfill.replace("_", " "),
        str(profile.page_limit),
    )
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("profile", known_profiles(), ids=lambda profile: profile.exchange)
def test_the_readme_tells_each_profile(profile: ExchangeProfile) -> None:
    assert row(profile) in README.read_text(encoding="utf-8").splitlines()


def test_the_readme_tells_no_other() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("| exchange |")) + 2
    rows = [line.split("|")[1].strip() for line in lines[begin:] if line.startswith("|")]
    assert rows[: len(known_profiles())] == [profile.exchange for profile in known_profiles()]
    assert len(rows) == len(known_profiles())


def test_an_unknown_exchange_gets_a_cautious_profile() -> None:
    profile = profile_for("nowhere")
    assert profile.exchange == "nowhere"
    assert (profile.backfill, profile.ids_numeric, profile.ids_contiguous) == ("none", False, False)
    assert profile.time_resolution == SECOND
    assert profile.acknowledgement == "ping"


@pytest.mark.parametrize("profile", known_profiles(), ids=lambda profile: profile.exchange)
def test_profiles_hold_together(profile: ExchangeProfile) -> None:
    assert profile.ids_numeric or not profile.ids_contiguous
    assert profile.ids_numeric or profile.backfill != "by_id"
    assert profile.time_resolution in (1, 1000, SECOND)
    assert profile.page_limit > 0
    assert profile.settling_seconds > 0
