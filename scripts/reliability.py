"""Generate docs/reference/reliability.md: each fault, the promise, and the tests that inject it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "reliability.md"


@dataclass(frozen=True)
class Fault:
    """One fault that a run must survive or refuse.

    Attributes:
        what: The fault.
        promise: What rlhfctl does then.
        exit_code: Exit code; None where the run goes on.
        tests: Tests that inject the fault, as FILE::FUNCTION below tests/.
    """

    what: str
    promise: str
    exit_code: int | None
    tests: tuple[str, ...]


TRAINING = (
    Fault(
        "Killed (`kill -9`) at any moment, then the same command again",
        "Resumes from the newest checkpoint; the weights equal those of an uninterrupted run, bit for bit on a CPU.",
        None,
        (
            "stages/test_resume.py::test_cut_and_resumed_equals_uninterrupted",
            "ppo/test_checkpoint.py::test_a_resumed_run_ends_with_the_same_weights_and_beta",
            "run/test_staging.py::test_a_crash_between_the_two_renames_brings_the_earlier_result_back",
        ),
    ),
    Fault(
        "SIGTERM or SIGUSR1 (SLURM's notice) while a stage trains",
        "A checkpoint at the next optimizer step (SFT, reward model) or batch (PPO, which keeps the unfinished rollout).",
        143,
        (
            "ppo/test_stopping.py::test_stopped_and_resumed_equals_uninterrupted",
            "ppo/test_stopping.py::test_stopped_again_and_again_equals_uninterrupted",
            "run/test_stop.py::test_a_signal_stops_at_once_with_its_code",
        ),
    ),
    Fault(
        "Ctrl-C while a stage trains; a second signal",
        "As for SIGTERM; a second signal does not wait for the checkpoint.",
        130,
        (
            "run/test_stop.py::test_a_second_signal_does_not_wait",
            "cli/test_run_stages.py::test_a_second_signal_does_not_wait_for_a_safe_point",
        ),
    ),
    Fault(
        "A signal during `eval`",
        "Sampled responses are kept for the next attempt.",
        143,
        ("stages/evaluation/test_stopping.py::test_a_stopped_evaluation_keeps_its_responses",),
    ),
    Fault(
        "Killed long after the last checkpoint",
        "At most `save_minutes` (10) of training are lost, whatever a step takes.",
        None,
        (
            "ppo/test_stopping.py::test_no_more_than_the_given_minutes_pass_without_a_save",
            "ppo/test_stopping.py::test_saving_by_time_does_not_change_the_result_and_keeps_the_newest_two",
        ),
    ),
    Fault(
        "SIGTERM to one of two processes",
        "All processes stop at the same step and save; before all are connected, none waits.",
        143,
        (
            "faults/test_preemption.py::test_one_of_two_processes_is_stopped",
            "run/test_connection.py::test_one_that_is_stopped_before_the_others_are_ready_leaves_and_so_do_they",
        ),
    ),
    Fault(
        "`kill -9` of the launcher, or of `sweep`",
        "Its processes end within 10 seconds.",
        None,
        (
            "cli/test_launch.py::test_the_processes_end_with_a_killed_launcher",
            "cli/test_launch.py::test_the_processes_end_with_a_launching_process_that_is_killed",
            "cli/test_sweep.py::test_a_run_ends_with_the_sweep_that_started_it_and_another_sweep_goes_on",
        ),
    ),
    Fault(
        "NaN or infinite loss or gradient, between two logged steps too",
        "Training ends before the optimizer step; the last sound checkpoint is kept, and none that is not finite.",
        5,
        (
            "stages/shared/test_finite.py::test_a_rate_far_too_high_ends_training_between_two_logs",
            "stages/shared/test_finite.py::test_the_last_state_that_had_a_finite_loss_is_kept",
            "stages/shared/test_finite.py::test_weights_that_are_not_finite_take_no_checkpoints_place",
        ),
    ),
    Fault(
        "PPO diverges",
        "The last sound state is kept, and the batch is written to `logs/ppo.diverged.jsonl`.",
        5,
        (
            "stages/ppo/test_diverged.py::test_the_sound_state_and_the_batch_are_kept",
            "stages/ppo/test_diverged.py::test_prompts_are_kept_where_sampling_fails",
        ),
    ),
    Fault(
        "NaN in the weights of a base or a given adapter",
        "Refused; the message names file and tensor.",
        7,
        (
            "models/test_finite_weights.py::test_of_the_base",
            "models/test_finite_weights.py::test_of_an_adapter",
        ),
    ),
    Fault(
        "A setting changed before an interrupted stage is resumed",
        "Refused; the message names the keys. `--allow-change KEY` or `--force` decides; nothing is removed before.",
        2,
        (
            "run/test_resumption.py::test_every_change_is_named_with_its_option",
            "pipeline/test_running.py::test_an_interrupted_stage_whose_recipe_changed_is_left_alone",
        ),
    ),
    Fault(
        "Resumed with another number of processes",
        "Refused without `--allow-world-size-change`, since it is not bit-exact.",
        2,
        ("pipeline/test_running.py::test_a_change_of_processes_needs_permission",),
    ),
    Fault(
        "A changed byte in a checkpoint, the manifest or the run's recipe",
        "Found by its digest. A damaged checkpoint is named and the one before is used.",
        7,
        (
            "run/test_sealed.py::test_a_changed_or_missing_file_is_named",
            "run/test_sealed.py::test_every_changed_byte_of_a_runs_recipe_is_found",
            "stages/shared/test_hf_checkpoints.py::test_every_byte_of_the_seal_counts",
            "ppo/test_checkpoint.py::test_a_damaged_checkpoint_is_passed_over_for_the_one_before",
        ),
    ),
    Fault(
        "All checkpoints of an interrupted stage damaged",
        "Said; the stage does not start again by itself.",
        7,
        (
            "stages/shared/test_hf_checkpoints.py::test_when_all_are_damaged_it_is_said_rather_than_begun_anew",
            "ppo/test_checkpoint.py::test_no_sound_checkpoint_is_an_error_and_not_a_fresh_start",
        ),
    ),
    Fault(
        "Disk full, before or during training",
        "Path, needed and free bytes are named; earlier checkpoints stay.",
        10,
        (
            "stages/shared/test_disk_space.py::test_training_does_not_begin_without_room_for_two_checkpoints",
            "stages/shared/test_disk_space.py::test_a_disk_that_fills_up_keeps_the_checkpoints_before",
        ),
    ),
    Fault(
        "Out of memory in training, with `auto_batch`",
        "Half the rows per forward pass, the same rows per optimizer step and the same gradients.",
        None,
        (
            "ppo/test_pass_size.py::test_a_rollout_and_its_gradients_are_those_of_whole_batches",
            "stages/shared/test_auto_batch.py::test_training_is_that_of_whole_batches",
            "stages/shared/test_auto_batch.py::test_memory_that_runs_out_within_a_backward_pass_costs_no_gradient",
        ),
    ),
    Fault(
        "A tracker that hangs or fails",
        "Told once; the run goes on.",
        None,
        (
            "run/test_tracking.py::test_one_that_hangs_is_told_of_once_and_gets_the_metrics_when_it_answers",
            "run/test_tracking.py::test_an_outage_is_told_of_once_and_the_other_trackers_go_on",
        ),
    ),
    Fault(
        "A changed byte in a training log",
        "The report carries a caution that names the log.",
        None,
        ("report/test_sources.py::test_every_changed_byte_of_a_training_log_is_a_caution",),
    ),
    Fault(
        "Two equal runs",
        "Equal folders: sorted configs, no times in cards.",
        None,
        ("faults/test_equal_runs.py::test_of_every_stage",),
    ),
    Fault(
        "Two commands in one run",
        "The second is refused.",
        8,
        ("pipeline/test_running.py::test_a_run_is_locked_while_a_stage_works",),
    ),
)

SAFETY = (
    Fault(
        "A control token of the tokenizer spelled in a message",
        "Encoded as text in every stage.",
        None,
        (
            "data/test_control_tokens.py::test_what_a_conversation_spells_is_text",
            "data/test_control_tokens.py::test_what_a_plain_text_spells_is_text_in_every_stage",
        ),
    ),
    Fault(
        "A function of a recipe that exits the process",
        "The stage fails.",
        3,
        (
            "stages/shared/test_reward_functions.py::test_a_function_cannot_end_the_process_as_if_all_were_done",
            "stages/shared/test_reward_functions.py::test_a_module_cannot_end_the_process_at_import",
        ),
    ),
    Fault(
        "A recipe that names a function",
        "Imported only with `--allow-code` or `RLHFCTL_ALLOW_CODE=1`.",
        11,
        (
            "cli/test_permissions.py::test_a_function_that_a_recipe_names_is_refused",
            "cli/test_permissions.py::test_validate_names_the_function_without_importing_it",
        ),
    ),
    Fault(
        "A model repository with code",
        "Needs the recipe key, `--allow-remote-code` and a commit of 40 hexadecimal digits.",
        11,
        (
            "cli/test_permissions.py::test_code_of_a_repository_needs_the_key_a_commit_and_the_option",
        ),
    ),
    Fault(
        "A run with `--offline`",
        "Makes no connection: a whole run passes in a namespace without a network, and nothing is looked up.",
        None,
        ("faults/test_offline.py::test_nothing_is_reached_and_nothing_is_missed",),
    ),
    Fault(
        "`--offline` with a recipe that names a server on another machine",
        "Refused; the message names key and address.",
        2,
        ("cli/test_offline.py::test_a_server_on_another_machine_is_refused_by_name",),
    ),
    Fault(
        "A password or key in a recipe",
        "Refused by key; its value is never shown.",
        2,
        ("recipe/test_addresses.py::test_a_secret_in_a_recipe_is_refused_and_never_shown",),
    ),
    Fault(
        "A server that drips bytes or answers without end",
        "A deadline for the whole call and at most 8 MiB.",
        3,
        (
            "stages/shared/test_http_post.py::test_a_server_that_drips_has_a_deadline_for_the_whole_answer",
            "stages/shared/test_http_post.py::test_an_endless_answer_is_cut_off",
        ),
    ),
    Fault(
        "A link out of a checkpoint folder; weights as pickle; a config that names code",
        "Refused by name before loading.",
        11,
        (
            "models/test_scan.py::test_a_link_out_of_the_folder_is_refused_by_name",
            "models/test_scan.py::test_weights_in_a_pickle_only_are_refused",
            "models/test_scan.py::test_a_config_that_names_code_is_refused_at_any_depth",
        ),
    ),
    Fault(
        "A trainer's state that would run code when it is read",
        "Refused by name, not loaded.",
        11,
        (
            "stages/shared/test_resume_state.py::test_a_pickle_that_calls_something_is_refused_by_name_and_not_loaded",
        ),
    ),
    Fault(
        "A manifest whose paths leave the run, or with wrong types",
        "Refused; the message names the field.",
        7,
        (
            "run/test_manifest.py::test_an_output_outside_of_the_run_is_refused",
            "run/test_manifest.py::test_every_field_has_its_type",
        ),
    ),
    Fault(
        "A chat template that does not end",
        "Ended after a time limit.",
        3,
        (
            "data/test_rendering.py::test_a_template_that_loops_for_ever_ends_the_command",
            "data/test_rendering.py::test_a_template_that_calls_itself_for_ever_refuses_the_row",
        ),
    ),
    Fault(
        "A judge's cache cut within a character",
        "The cut line is left out, and said.",
        None,
        (
            "stages/shared/test_http_post.py::test_a_cache_that_was_cut_within_a_character_is_read_again",
        ),
    ),
)


def page() -> str:
    """Render the page."""
    lines = [
        "# Faults and promises",
        "",
        "Each row is a fault that tests inject into real files and processes, what rlhfctl promises then, and where it is",
        "tested. `make test` runs these tests, except those below `tests/faults`, which `make test-faults` runs.",
    ]
    for title, faults in (("Training and checkpoints", TRAINING), ("Safety", SAFETY)):
        lines += [
            "",
            f"## {title}",
            "",
            "| Fault | Promise | Exit code | Tests |",
            "| --- | --- | --- | --- |",
        ]
        lines += [_row(fault) for fault in faults]
    return "\n".join([*lines, ""])


def _row(fault: Fault) -> str:
    code = "" if fault.exit_code is None else str(fault.exit_code)
    tests = ", ".join(f"`{test}`" for test in fault.tests)
    return f"| {fault.what} | {fault.promise} | {code} | {tests} |"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page(), encoding="utf-8")
