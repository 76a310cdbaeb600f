from pathlib import Path

from rlhfctl.report.blocks import Table
from rlhfctl.report.sections.stages import blocks
from rlhfctl.report.sources import read_run


def test_every_stage_has_its_key_metrics(finished_run: Path) -> None:
    (table,) = blocks(read_run(finished_run))
    assert isinstance(table, Table)
    sft, rm, ppo, evaluation = table.groups
    assert (sft.heading, sft.note) == ("SFT", "1 min 1 s")
    assert sft.rows[0] == ("Held-out loss, nats per token", "2.40 → 1.10", "")
    assert rm.rows[0] == ("Held-out accuracy", "0.76", "0.74 to 0.78")
    assert [row[0] for row in ppo.rows][:2] == ["Episodes", "Score, last rollout"]
    assert evaluation.rows[-1][:2] == ("Held-out prompts", "60")
