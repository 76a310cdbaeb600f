"""Held-out evaluations during PPO, every few rollouts.

Prompts and random numbers are the same each time, so evaluations are compared paired by prompt. The
proxy is the score that PPO trains on. The true reward is independent of it: the world's gold
reward, else the held-out reward model.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.alarms import AlarmLimits, active_alarms, alarms, new_alarms
from rlhfctl.evaluation.intervals import paired_bootstrap_mean
from rlhfctl.evaluation.markers import certainty, hedging
from rlhfctl.evaluation.overoptimisation import (
    best_evaluation,
    fallen_significantly,
    falls,
    fit_history,
)
from rlhfctl.evaluation.text import repeated_ngram_share, words
from rlhfctl.json_text import parse_json
from rlhfctl.ppo.checkpoint import rollout_of
from rlhfctl.ppo.hooks import HeldOutEvaluation
from rlhfctl.ppo.safe_points import stop_together
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.training import (
    AlarmAct,
    BestEvaluation,
    Change,
    HeldOutLine,
    OverOptimisation,
    ResultEvaluation,
)
from rlhfctl.run.directory import (
    BEST_FOLDER,
    BEST_MARKER_FILE,
    HELD_OUT_FILE,
    OVER_OPTIMISATION_FILE,
)
from rlhfctl.run.files import CHECKPOINTS, write_atomic, write_json
from rlhfctl.stages.ppo.observed_scores import StateReference
from rlhfctl.stages.shared.responses import generate_responses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike

    from rlhfctl.evaluation.intervals import Interval
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.recipe.ppo import PPOSection
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.ppo.held_out_set import HeldOutSet

REPEATED_NGRAM = 3
RESAMPLES = 2_000


class HeldOutEvaluator:
    """Logs held-out metrics, saves the best policy, raises alarms and decides on early stopping.

    Attributes:
        history: One line per evaluation, as in `ppo/held_out.jsonl`; see docs/reference/metrics.md.
        acts: What was done on alarms, once training has ended; None with `on_alarm: warn`.
        restored: Rollouts before the policy that an act at the end restored; None if none did.
    """

    def __init__(
        self,
        held_out_set: HeldOutSet,
        section: PPOSection,
        output: Path,
        save_policy: Callable[[Path], None],
        processes: Processes,
        monitor: Monitor,
    ) -> None:
        """Store the held-out set and the outputs.

        Args:
            held_out_set: Prompts and reward sources.
            section: Thresholds and early stopping.
            output: The stage's folder.
            save_policy: Saves the policy to a folder.
            processes: Processes that share the prompts.
            monitor: Receives alarms.
        """
        self.held_out_set = held_out_set
        self.section = section
        self.output = output
        self.save_policy = save_policy
        self.processes = processes
        self.monitor = monitor
        self.limits = AlarmLimits(**section.alarms.model_dump(), kl=section.kl_alarm)
        self.history: list[HeldOutLine] = []
        self.stopped = False
        self.states = StateReference(output)
        self.acts: list[AlarmAct] | None = None
        self.restored: int | None = None

    @property
    def returns_best(self) -> bool:
        """True if the best policy becomes the stage's result."""
        stopped = bool(self.acts) and self.acts is not None and self.acts[-1].kind == "stop"
        return self.held_out_set.true_reward is not None and (
            self.section.load_best_model_at_end or stopped
        )

    def resume_from(self, rollout: int) -> None:
        """Drop all evaluations after rollout `rollout`, from which training resumes."""
        path = self.output / HELD_OUT_FILE
        texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines = [
            from_json(HeldOutLine, parse_json(text), f"{path}:{number}")
            for number, text in enumerate(texts, 1)
        ]
        self.history = [line for line in lines if line.rollout <= rollout]
        self.processes.wait()
        if self.processes.is_main:
            self._write()

    def evaluate(self, rollout: int, episodes: int) -> HeldOutEvaluation:
        """Evaluate the policy, log the metrics, and check the history for alarms and a fall."""
        line = self._line(rollout, episodes)
        self.history.append(line)
        if self.processes.is_main:
            self._write()
            self._keep_best()
        for alarm in new_alarms(self.history, self.limits):
            self.monitor.warn(f"Alarm: {alarm.message}")
        self.stopped = self._fallen()
        shown = {"kl": line.kl, "proxy": line.proxy}
        shown |= {"objective_score": line.objective_score} if line.objective_score else {}
        shown |= {"true_reward": line.true_reward} if line.true_reward else {}
        shown["length"] = line.length
        return HeldOutEvaluation(
            {f"held_out_{name}": estimate.value for name, estimate in shown.items()},
            self.stopped,
            tuple(alarm.name for alarm in active_alarms(self.history, self.limits)),
            has_best=self.held_out_set.true_reward is not None,
        )

    def summary(self) -> OverOptimisation:
        """Return the summary of all evaluations: best checkpoint, fall, fits and alarms."""
        summary = OverOptimisation(
            evaluations=len(self.history),
            stopped_early=self.stopped,
            alarms=list(alarms(self.history, self.limits)),
            fits={
                name: fit
                for name in ("proxy", "true_reward")
                if (fit := fit_history(self.history, name))
            },
            acts=self.acts,
        )
        if self.held_out_set.true_reward is None:
            return summary
        best = self.history[best_evaluation(self.history)]
        if best.true_reward is None:
            raise ValueError(f"the evaluation after rollout {best.rollout} has no true reward")
        return replace(
            summary,
            true_reward=self.held_out_set.true_reward,
            best=BestEvaluation(best.step, best.rollout, best.kl.value, best.true_reward),
            fallen=falls(self.history),
            last_below_best=Change(self._since_best()),
        )

    def result(self) -> ResultEvaluation:
        """Return the evaluation of the result: the last one, the best, or the one restored."""
        line = self.history[-1]
        if self.returns_best:
            line = self.history[best_evaluation(self.history)]
        elif self.restored is not None:
            line = next(line for line in self.history if line.rollout == self.restored)
        return ResultEvaluation(
            step=line.step,
            kl=line.kl,
            proxy=line.proxy,
            length=line.length,
            eos_share=line.eos_share,
            objective_score=line.objective_score,
            true_reward=line.true_reward,
        )

    def finish(self) -> Path | None:
        """Write the summary and return the folder of the best policy, if there is one."""
        write_json(self.output / OVER_OPTIMISATION_FILE, to_json(self.summary()))
        folders = self._best_folders()
        if not folders:
            return None
        best = self.output / BEST_FOLDER
        folders[-1].rename(best)
        for folder in folders[:-1]:
            shutil.rmtree(folder)
        return best

    def _line(self, rollout: int, episodes: int) -> HeldOutLine:
        per_prompt = self._measured()

        def estimate(name: str) -> Interval:
            return paired_bootstrap_mean(per_prompt[name], episodes, RESAMPLES)

        def estimate_if(name: str) -> Interval | None:
            return estimate(name) if name in per_prompt else None

        def mean(name: str) -> float | None:
            return float(np.mean(per_prompt[name])) if name in per_prompt else None

        kl = estimate("kl")
        return HeldOutLine(
            step=episodes,
            rollout=rollout,
            kl=kl,
            proxy=estimate("proxy"),
            objective_score=estimate_if("objective_score"),
            true_reward=estimate_if("true_reward"),
            length=estimate("length"),
            repetition=estimate("repetition"),
            certainty=estimate("certainty"),
            hedging=estimate("hedging"),
            entropy=estimate("entropy"),
            eos_share=float(np.mean(per_prompt["ended"])),
            score_disagreement=mean("disagreement"),
            out_of_range_share=mean("out_of_range"),
            state_distance=mean("state_distance"),
            saturated_share=mean("saturated"),
            sqrt_kl=math.sqrt(max(kl.value, 0.0)),
            per_prompt=per_prompt,
        )

    def _measured(self) -> dict[str, list[float]]:
        """Return the metrics per prompt, [prompts] each, gathered over all processes."""
        prompt_set, processes = self.held_out_set.prompt_set, self.processes
        prompts = len(prompt_set.prompts)
        rows = [row % prompts for row in range(-(-prompts // processes.count) * processes.count)]
        observed = self.held_out_set.observer(self.limits)
        responses = generate_responses(
            replace(prompt_set, observe=observed),
            "policy",
            processes.share(rows),
            on_batch=lambda _done, _kl: stop_together(processes),
        )
        split = [words(text) for text in responses.texts]
        measured: dict[str, ArrayLike | None] = {
            "kl": responses.kl,
            "proxy": responses.proxy,
            "objective_score": responses.objective_score,
            "true_reward": responses.gold
            if self.held_out_set.true_reward == "gold"
            else responses.held_out_rm,
            "length": responses.lengths,
            "repetition": [repeated_ngram_share(text, REPEATED_NGRAM) for text in split],
            "certainty": [certainty(text) for text in responses.texts],
            "hedging": [hedging(text) for text in responses.texts],
            "entropy": responses.entropy,
            "ended": responses.ended,
            "disagreement": responses.disagreement,
            "out_of_range": self._out_of_range(responses.proxy),
            "saturated": self._saturated(responses.proxy),
            **(observed.contributions if observed is not None else {}),
        }
        measurements = {name: values for name, values in measured.items() if values is not None}
        columns = [np.asarray(values, np.float64).tolist() for values in measurements.values()]
        items = list(zip(*columns, strict=True))
        whole = processes.gather_items(items)[:prompts]
        per_prompt = {
            name: list(values)
            for name, values in zip(measurements, zip(*whole, strict=True), strict=True)
        }
        if observed is not None and observed.with_states:
            per_prompt["state_distance"] = self.states.distances(
                processes.gather_items(observed.states)[:prompts],
                first=not self.history,
                write=processes.is_main,
            )
        return per_prompt

    def _out_of_range(self, scores: ArrayLike | None) -> ArrayLike | None:
        """Return whether each score, [prompts], is outside the reward model's range."""
        if self.held_out_set.score_range is None or scores is None:
            return None
        low, high = self.held_out_set.score_range
        values = np.asarray(scores, np.float64)
        return ~((low <= values) & (values <= high))

    def _saturated(self, scores: ArrayLike | None) -> ArrayLike | None:
        """Return whether each score, [prompts], is at `score_clip`, where more earns nothing."""
        clip = self.section.score_clip
        if clip is None or scores is None or self.section.score_normalization == "running":
            return None
        return np.abs(np.asarray(scores, np.float64)) >= clip

    def _since_best(self) -> Interval:
        return fallen_significantly(self.history, best_evaluation(self.history))

    def _fallen(self) -> bool:
        """Warn when the true reward first falls below its best; return True to stop training."""
        if self.held_out_set.true_reward is None or self.section.early_stop == "never":
            return False
        if not falls(self.history) or falls(self.history[:-1]):
            return False
        change = self._since_best()
        best = self.history[best_evaluation(self.history)]
        message = (
            f"The true reward has fallen by {-change.value:.3g} (95 %: {-change.high:.3g} to "
            f"{-change.low:.3g}) since its best checkpoint, episode {best.step:,}"
        )
        stop = self.section.early_stop == "stop"
        self.monitor.warn(f"{message}: PPO stops early" if stop else message)
        return stop

    def _keep_best(self) -> None:
        """Save the policy if it is the best so far; delete saves that no resumed run needs."""
        if (
            self.held_out_set.true_reward is None
            or best_evaluation(self.history) != len(self.history) - 1
        ):
            return
        rollout = self.history[-1].rollout
        folder = self.output / f".{BEST_FOLDER}-{rollout:08d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.save_policy(folder)
        write_json(folder / BEST_MARKER_FILE, {"rollout": rollout})
        oldest = self._oldest_checkpoint(rollout)
        needed = [path for path in self._best_folders() if _rollout(path) <= oldest]
        for folder in needed[:-1]:
            shutil.rmtree(folder)

    def _oldest_checkpoint(self, rollout: int) -> int:
        """Return the earliest rollout that training could resume from."""
        checkpoints = sorted((self.output / CHECKPOINTS).glob("rollout-*"))
        return min(rollout_of(checkpoints[0]), rollout) if checkpoints else rollout

    def _best_folders(self) -> list[Path]:
        """Return the saved best policies of evaluations in the history, oldest first."""
        seen = {line.rollout for line in self.history}
        return sorted(
            folder
            for folder in self.output.glob(f".{BEST_FOLDER}-*")
            if (folder / BEST_MARKER_FILE).exists() and _rollout(folder) in seen
        )

    def _write(self) -> None:
        lines = (json.dumps(to_json(line), allow_nan=False) + "\n" for line in self.history)
        write_atomic(self.output / HELD_OUT_FILE, "".join(lines))


def _rollout(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
