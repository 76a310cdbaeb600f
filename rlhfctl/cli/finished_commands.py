"""The commands on finished runs: `sample`, `chat`, `export` and `push`.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    AllowRemoteCodeOption,
    DebugOption,
    JsonOption,
    QuietOption,
    RunsDirOption,
    of_recipe,
)


class LanguageStage(StrEnum):
    """Models that respond."""

    BASE = "base"
    SFT = "sft"
    PPO = "ppo"
    DPO = "dpo"


class ModelStage(StrEnum):
    """Stages whose result is a model."""

    SFT = "sft"
    RM = "rm"
    PPO = "ppo"
    DPO = "dpo"


class Form(StrEnum):
    """Forms of a prompt."""

    AUTO = "auto"
    CHAT = "chat"
    TEXT = "text"


class Dtype(StrEnum):
    """Precisions of a merged model."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class GgufType(StrEnum):
    """Types of a GGUF file."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


RunArg = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="Run name or run folder. Default: the newest run.",
    ),
]
_BestOption = Annotated[
    bool,
    typer.Option("--best", help="PPO's best policy on held-out prompts rather than its last."),
]
_GreedyOption = Annotated[
    bool, typer.Option("--greedy", help="Take the most probable token at each step.")
]
_TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="X",
        min=0.0,
        show_default=of_recipe("generation.temperature"),
        help="Divisor of the logits.",
    ),
]
_MaxNewTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        metavar="N",
        min=1,
        show_default=of_recipe("generation.max_new_tokens"),
        help="Longest response, in tokens.",
    ),
]
_SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        show_default="the recipe's seed",
        help="Seed, the same for all stages.",
    ),
]
_SystemOption = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System turn of a conversation.")
]


def sample(
    run: RunArg = None,
    stage: Annotated[
        list[LanguageStage] | None,
        typer.Option(
            "--stage",
            metavar="STAGE",
            show_default="sft and ppo",
            help="base, sft, ppo or dpo; several are shown side by side.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt. Repeatable.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="One prompt per line; - for stdin."),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--form",
            metavar="FORM",
            help="chat uses the chat template, text does not; auto is as in the run's prompts.",
        ),
    ] = Form.AUTO,
    system: _SystemOption = None,
    greedy: _GreedyOption = False,
    temperature: _TemperatureOption = None,
    max_new_tokens: _MaxNewTokensOption = None,
    seed: _SeedOption = None,
    best: _BestOption = False,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    allow_remote_code: AllowRemoteCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Respond to prompts with the models of a run, side by side."""
    from rlhfctl.cli.sampling import SamplingRequest
    from rlhfctl.cli.sampling import sample as run_sample
    from rlhfctl.console import Terminal

    request = SamplingRequest(
        run,
        runs_dir,
        tuple(str(name) for name in stage or ()),
        temperature,
        greedy,
        max_new_tokens,
        seed,
        system,
        best,
        allow_remote_code,
    )
    terminal = Terminal(quiet=quiet, as_json=json)
    run_sample(request, prompt or [], file, form.value, terminal)


def chat(
    run: RunArg = None,
    stage: Annotated[
        list[LanguageStage] | None,
        typer.Option(
            "--stage",
            metavar="STAGE",
            show_default="ppo, else sft",
            help="base, sft, ppo or dpo; several answer side by side.",
        ),
    ] = None,
    system: _SystemOption = None,
    greedy: _GreedyOption = False,
    temperature: _TemperatureOption = None,
    max_new_tokens: _MaxNewTokensOption = None,
    seed: _SeedOption = None,
    best: _BestOption = False,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    allow_remote_code: AllowRemoteCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Talk with models of a run, side by side. In a pipe, each line is a turn."""
    from rlhfctl.cli.chat import chat as run_chat
    from rlhfctl.cli.sampling import SamplingRequest
    from rlhfctl.console import Terminal

    request = SamplingRequest(
        run,
        runs_dir,
        tuple(str(name) for name in stage or ()),
        temperature,
        greedy,
        max_new_tokens,
        seed,
        system,
        best,
        allow_remote_code,
    )
    run_chat(request, Terminal(quiet=quiet, as_json=json))


_MergeOption = Annotated[
    bool,
    typer.Option("--merge", help="A whole model: the adapter merged into its unquantised base."),
]
_DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        show_default="that of the base's files",
        help="With --merge: float32, bfloat16 or float16.",
    ),
]
_LicenceOption = Annotated[
    str | None,
    typer.Option(
        "--license",
        metavar="ID",
        show_default="that of the base, if known",
        help="Licence for the model card, such as apache-2.0.",
    ),
]
_BaseModelOption = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        metavar="ID",
        help="Hub id of the base for the model card, if the base is a local folder.",
    ),
]


def export(
    run: RunArg = None,
    stage: Annotated[
        ModelStage, typer.Option("--stage", metavar="STAGE", help="sft, rm, ppo or dpo.")
    ] = ModelStage.PPO,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            show_default="exports/RUN-STAGE",
            help="Folder to create.",
        ),
    ] = None,
    merge: _MergeOption = False,
    dtype: _DtypeOption = None,
    gguf: Annotated[
        GgufType | None,
        typer.Option(
            "--gguf",
            metavar="TYPE",
            help="Also a GGUF file by llama.cpp's converter: f32, f16, bf16 or q8_0. Merges.",
        ),
    ] = None,
    ollama: Annotated[
        bool,
        typer.Option("--ollama", help="Also an Ollama Modelfile, with a GGUF file (f16). Merges."),
    ] = False,
    converter: Annotated[
        Path | None,
        typer.Option(
            "--converter",
            metavar="FILE",
            help="llama.cpp's convert_hf_to_gguf.py, if it is not installed.",
        ),
    ] = None,
    best: _BestOption = False,
    license_: _LicenceOption = None,
    base_model: _BaseModelOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    allow_remote_code: AllowRemoteCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a stage's model in the form that other programs load, and check it."""
    from rlhfctl.cli.export import export_run
    from rlhfctl.console import Terminal
    from rlhfctl.export.options import CardOptions, ExportOptions
    from rlhfctl.recipe.permissions import permit

    permit(remote_code=allow_remote_code)
    options = ExportOptions(
        stage=stage.value,
        merge=merge,
        dtype=None if dtype is None else dtype.value,
        gguf=None if gguf is None else gguf.value,
        ollama=ollama,
        best=best,
        converter=converter,
        card=CardOptions(license_, base_model),
    )
    export_run(run, runs_dir, options, output, Terminal(quiet=quiet, as_json=json))


def push(
    run: RunArg = None,
    stage: Annotated[
        ModelStage, typer.Option("--stage", metavar="STAGE", help="sft, rm, ppo or dpo.")
    ] = ModelStage.PPO,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo", metavar="OWNER/NAME", show_default=False, help="Repository on the Hub."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and their sizes; upload nothing.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Create the repository public rather than private.")
    ] = False,
    merge: _MergeOption = False,
    dtype: _DtypeOption = None,
    best: _BestOption = False,
    license_: _LicenceOption = None,
    base_model: _BaseModelOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    allow_remote_code: AllowRemoteCodeOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Upload a stage's model to the Hugging Face Hub, private by default ($HF_TOKEN)."""
    from rlhfctl.cli.export import push_run
    from rlhfctl.console import Terminal
    from rlhfctl.export.options import CardOptions, ExportOptions, PushOptions
    from rlhfctl.recipe.permissions import permit

    permit(remote_code=allow_remote_code)
    options = ExportOptions(
        stage=stage.value,
        merge=merge,
        dtype=None if dtype is None else dtype.value,
        best=best,
        card=CardOptions(license_, base_model),
    )
    request = PushOptions(repo or "", public=public, dry_run=dry_run)
    push_run(run, runs_dir, options, request, Terminal(quiet=quiet, as_json=json))
