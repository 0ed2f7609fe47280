import lessons
import pytest


@pytest.fixture
def invented(monkeypatch):
    """Sets by name are made up, and there are few pieces of photographs."""
    lessons.invent(monkeypatch)
    lessons.few_crops(monkeypatch)
