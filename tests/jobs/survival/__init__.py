import pytest

pytest.register_assert_rewrite("tests.jobs.survival.harness")
