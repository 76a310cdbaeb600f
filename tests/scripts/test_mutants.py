import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import mutants
from mutant_fault import Fault
from mutant_faults import FAULTS

HARMLESS = Fault("harmless", "maths/kl.py", ".square() / 2", ".square() * 0.5", "maths/test_kl.py")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_applies_to_one_place_and_has_its_tests(fault):
    assert mutants.problem(fault, mutants.ROOT) is None
    assert fault.old != fault.new


def test_names_of_faults_are_unique():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_fault_is_killed_and_a_harmless_change_survives(monkeypatch, capsys):
    fault = next(f for f in FAULTS if f.name == "k2 without the half")
    before = (mutants.ROOT / "rlhfctl" / fault.file).read_bytes()
    monkeypatch.setattr(mutants, "FAULTS", (fault, HARMLESS))
    assert mutants.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "killed     maths/kl.py: k2 without the half",
        "survived   maths/kl.py: harmless",
        "1 of 2 faults killed",
    ]
    assert (mutants.ROOT / "rlhfctl" / fault.file).read_bytes() == before


def test_a_fault_without_its_place_is_an_error(monkeypatch, capsys):
    lost = HARMLESS._replace(old="no such line")
    monkeypatch.setattr(mutants, "FAULTS", (lost,))
    assert mutants.main([]) == 1
    assert "its old text is 0 times in rlhfctl/maths/kl.py" in capsys.readouterr().out
