"""What a job is called here: a name is one job's, and what a second market sends under it is a job of its own."""

from collections.abc import Iterable, Mapping

from vegamite_aggregator.core.rows import Job
from vegamite_common.domain.market import Market


class JobNames:
    """Gives each market's jobs names that no other market's job has; owners are told by their markets' keys.

    `assumed` has the names whose owner neither the open jobs nor `owners` told, with the market that came first.
    """

    def __init__(self, open_jobs: Iterable[Job], owners: Mapping[str, str]) -> None:
        self._owners = {**owners, **{job.job: job.market.key for job in open_jobs}}
        self.assumed: dict[str, str] = {}

    def name_of(self, job: str, market: Market) -> str:
        """Return the name itself, or with the market's key behind it where the name is another market's."""
        key = market.key
        while (self._owners.get(job) or self.assumed.setdefault(job, key)) != key:
            job = f"{job} {key}"
        return job


def mistaken(assumed: Mapping[str, str], owners: Mapping[str, str]) -> bool:
    """Whether a name was taken for one market's that is another's."""
    return any(owners.get(job, key) != key for job, key in assumed.items())
