"""The table of the methods' benchmark."""

from benchmarks.methods import COLUMNS, METHODS, rows
from rlhfctl.sweep.methods_plan import read_methods


def test_a_row_has_each_mean_with_its_interval_where_there_is_one():
    method = {"method": "ppo", "gain_at_kl": 1.5, "gain_at_kl_low": 1.0, "gain_at_kl_high": 2.0}
    ((name, *cells),) = rows({"methods": [method | {"seconds": 90.0}]})
    assert name == "ppo"
    assert dict(zip(COLUMNS, cells, strict=True)) == dict.fromkeys(COLUMNS, "") | {
        "gain_at_kl": "1.50 (1.00 to 2.00)",
        "seconds": "90.00",
    }


def test_its_methods_are_those_of_the_command():
    assert read_methods(METHODS)
