import pytest

from commentaries.cleaning.cues import Evidence
from commentaries.cleaning.job import Job, make_task


@pytest.fixture(scope="session")
def task():
    """A small task: 120 digits, two in five with wrong labels, and 40 that are trusted."""
    return make_task(Job(train=120, trusted=40, test=80))


@pytest.fixture(scope="session")
def evidence(task):
    return Evidence.gather(task)
