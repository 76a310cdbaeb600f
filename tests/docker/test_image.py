"""The image, built and run: `make docker-test`. Skipped where there is no container engine."""

from __future__ import annotations

import json
import secrets
import subprocess
import tarfile
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import pytest

from rlhfctl.errors import ExitCode
from tests.conftest import TINY
from tests.docker import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

UID = 12345
TINY_OPTIONS = [argument for override in TINY for argument in ("--set", override)]


@dataclass(frozen=True)
class Built:
    tag: str
    canary: str
    volume: str

    def options(self) -> list[str]:
        """Return the options of every container: nothing writable but /tmp and the volume."""
        return [
            "--read-only",
            "--tmpfs=/tmp",
            "--network=none",
            "--ipc=host",
            "--cpus=1",
            "--env=OMP_NUM_THREADS=1",
            "--env=HF_HUB_OFFLINE=1",
            f"--user={UID}",
            f"--volume={self.volume}:/workspace",
        ]

    def run(self, *arguments: str, entrypoint: str = "") -> subprocess.CompletedProcess[str]:
        options = [*self.options(), *([f"--entrypoint={entrypoint}"] if entrypoint else [])]
        return engine.command(
            engine.client(), "run", "--rm", *options, self.tag, *arguments, timeout=600
        )


def docker(*arguments: str) -> str:
    done = engine.command(engine.client(), *arguments, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    canary = f"canary-{secrets.token_hex(16)}"
    volume = f"rlhfctl-test-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("secrets")
    try:
        with engine.engine(), engine.build_secrets(folder, canary) as build_secrets:
            tag = engine.build(engine.base(), build_secrets)
            docker("volume", "create", volume)
            try:
                yield Built(tag, canary, volume)
            finally:
                docker("volume", "rm", "--force", volume)
    except engine.NoEngineError as error:
        pytest.skip(str(error))


def configuration(image: Built) -> dict[str, Any]:
    held = json.loads(docker("image", "inspect", image.tag))[0]
    assert isinstance(held, dict)
    return held


def test_the_size_is_printed_and_below_three_gigabytes(
    image: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    size = configuration(image)["Size"] / 1e9
    with capsys.disabled():
        print(f"\nimage {image.tag}: {size:.2f} GB")
    assert size < 3


def test_it_is_not_root_and_its_health_is_doctor(image: Built) -> None:
    config = configuration(image)["Config"]
    assert config["User"] == "10001:0"
    assert config["Healthcheck"]["Test"] == ["CMD", "rlhfctl", "doctor"]
    assert config["Entrypoint"] == ["tini", "--", "rlhfctl"]


def test_no_layer_holds_the_build_secrets(image: Built) -> None:
    described = docker("history", "--no-trunc", image.tag) + json.dumps(configuration(image))
    assert image.canary not in described
    # The package's own name, in its metadata, shows that files within layers are seen.
    sought = {image.canary.encode(): False, b"\nName: rlhfctl\n": False}
    with (
        subprocess.Popen([engine.client(), "save", image.tag], stdout=subprocess.PIPE) as saved,
        tarfile.open(fileobj=saved.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if (layer := archive.extractfile(member)) is not None:
                for text, window in ((t, w) for w in windows(layer) for t in sought):
                    sought[text] |= text in window
    assert list(sought.values()) == [False, True]


def windows(layer: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a layer in overlapping pieces, decompressed if the engine packs it."""
    block = layer.read(1 << 24)
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if block[:2] == b"\x1f\x8b" else None
    tail = b""
    while block:
        content = unpack.decompress(block) if unpack else block
        yield tail + content
        tail = (tail + content)[-64:]
        block = layer.read(1 << 24)


def test_a_user_without_an_entry_runs_it_read_only(image: Built) -> None:
    done = image.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert image.run("-c", "id -u; touch /x 2>&1", entrypoint="sh").stdout.startswith(f"{UID}\n")
    assert image.run("-c", "touch /home/rlhfctl/x", entrypoint="sh").returncode != 0


def test_doctor_finds_the_image_sound(image: Built) -> None:
    done = image.run("doctor")
    assert done.returncode == ExitCode.DONE, done.stdout + done.stderr


def test_a_run_writes_its_report_to_the_volume_and_a_failed_gate_gives_6(image: Built) -> None:
    arguments = ["run", "recipes/base.yaml", "--run", "tiny", *TINY_OPTIONS]
    done = image.run(*arguments)
    assert done.returncode == ExitCode.DONE, done.stderr
    listed = image.run("-c", "stat -c %u runs/tiny/report.html", entrypoint="sh")
    assert listed.stdout == f"{UID}\n"
    failed = image.run(*arguments, "--set", 'evaluation.gates={win_rate: ">=1.0"}')
    assert failed.returncode == ExitCode.GATE_FAILED, failed.stderr
    assert "gate failed: win_rate" in failed.stderr


def test_docker_stop_gives_143_and_the_next_run_resumes(image: Built) -> None:
    name = f"{image.volume}-stopped"
    arguments = ["sft", "recipes/base.yaml", "--run", "stopped", "--set", "sft.logging_steps=1"]
    docker("run", "--detach", f"--name={name}", *image.options(), image.tag, *arguments)
    try:
        until_trained(name)
        docker("stop", "--time=60", name)
        state = json.loads(docker("inspect", name))[0]["State"]
        log = engine.command(engine.client(), "logs", name)
    finally:
        docker("rm", "--force", name)
    assert state["ExitCode"] == ExitCode.PREEMPTED, log.stderr
    assert "checkpoint" in log.stderr
    resumed = image.run(*arguments)
    assert resumed.returncode == ExitCode.DONE, resumed.stderr
    assert "resum" in resumed.stderr


def until_trained(name: str) -> None:
    """Wait until the log has a line after the first optimizer steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = engine.command(engine.client(), "logs", name)
        if "loss" in log.stdout + log.stderr:
            return
        time.sleep(1)
    raise AssertionError(f"no step within two minutes: {log.stdout}{log.stderr}")
