"""Kinds of jobs, told by their fields."""

import pytest

from fedmpi.client.jobs import Job, job_of


@pytest.mark.parametrize("job, kind", [
    ({"block": 0, "coalitions": ["80"]}, Job.COALITIONS),
    ({"block": 0, "own": [3, 4]}, Job.OWN_TESTS),
    ({"lab": "gradient", "on": "server"}, Job.LAB),
    ({"team": [{"client": 1, "row": 0}]}, Job.TEAM),
    ({"loss": 2, "row": 0}, Job.LOSS),
    ({"client": 2, "row": 0, "share": 0.5}, Job.TRAIN),
])
def test_a_job_tells_its_kind_by_a_field(job, kind):
    assert job_of(job) is kind


def test_a_job_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match="no known kind, with the fields row"):
        job_of({"row": 1})
