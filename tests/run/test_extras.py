import pytest

from rlhfctl.errors import EnvironmentFault, ExitCode
from rlhfctl.run.extras import require_extra, require_harness


def test_what_is_installed_passes_and_no_tasks_need_nothing():
    require_extra("json", "json", "some", "some.key")
    require_harness([])


def test_what_is_not_installed_is_one_sentence_with_what_to_do():
    with pytest.raises(EnvironmentFault) as error:
        require_extra("no_such_module", "a package", "some", "some.key")
    assert str(error.value) == (
        "some.key: a package is not installed\n"
        "pip install 'rlhfctl[some]', or leave some.key empty."
    )
    assert error.value.exit_code == ExitCode.ENVIRONMENT
