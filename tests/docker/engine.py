"""A container engine, a base image and pip's configuration for the tests of the image.

Nothing is downloaded but through package indexes: where no registry is reached, the base image is
a Debian made by debootstrap.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SUITE, SUITE_PYTHON = "bookworm", "python3.11"
BASE_TAG = f"rlhfctl-test-base:{SUITE}"
IMAGE_TAG = "rlhfctl-test:cpu"


class NoEngineError(Exception):
    """This machine cannot build or run images; the message says why and what to do."""


@dataclass(frozen=True)
class Base:
    """Base image and the Python that its distribution has."""

    image: str
    python: str


def command(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT
    )


@functools.cache
def client() -> str:
    """Return the first docker client on the path that builds with BuildKit.

    Since 23.0 BuildKit is a plugin (buildx), which a client may lack; the clients before have it
    built in.

    Raises:
        NoEngineError: There is no such client.
    """
    for folder in os.get_exec_path():
        docker = shutil.which("docker", path=folder)
        if docker is None:
            continue
        version = command(docker, "--version").stdout.removeprefix("Docker version ")
        old = version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < 23
        if old or command(docker, "buildx", "version").returncode == 0:
            return docker
    raise NoEngineError("no docker client with BuildKit: install docker.io (and docker-buildx)")


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """Use the running engine, or run one for as long as the tests take.

    Raises:
        NoEngineError: None runs, and none can be started.
    """
    docker = client()
    if command(docker, "info").returncode == 0:
        yield
        return
    daemon = shutil.which("dockerd")
    if daemon is None or os.geteuid() != 0:
        raise NoEngineError("no container engine runs, and only root with dockerd can start one")
    with subprocess.Popen(
        [daemon], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            for _ in range(60):
                if process.poll() is not None:
                    raise NoEngineError(f"dockerd ended with exit code {process.returncode}")
                if command(docker, "info").returncode == 0:
                    break
                time.sleep(1)
            else:
                raise NoEngineError("dockerd has not answered within a minute")
            yield
        finally:
            process.terminate()


def base() -> Base:
    """Return the Dockerfile's own base where a registry is reached, else a Debian made here.

    Raises:
        NoEngineError: Neither is possible.
    """
    named = os.environ.get("RLHFCTL_BASE_IMAGE")
    if named:
        return Base(named, os.environ.get("RLHFCTL_BASE_PYTHON", "python3.12"))
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    own = text.partition("ARG CUDA_IMAGE=")[2].partition("\n")[0]
    docker = client()
    for image, python in ((own, "python3.12"), (BASE_TAG, SUITE_PYTHON)):
        if command(docker, "image", "inspect", image).returncode == 0:
            return Base(image, python)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if command(docker, "pull", "--quiet", own, timeout=600).returncode == 0:
            return Base(own, "python3.12")
    return _debian(docker)


def _debian(docker: str) -> Base:
    debootstrap = shutil.which("debootstrap")
    if debootstrap is None or os.geteuid() != 0:
        raise NoEngineError("no registry is reached, and only root with debootstrap makes a base")
    # Beside the engine's data rather than in /tmp, which may be mounted without device files.
    folder = ROOT / "build" / f"base-{SUITE}"
    shutil.rmtree(folder, ignore_errors=True)
    made = command(debootstrap, "--variant=minbase", SUITE, str(folder), timeout=900)
    if made.returncode != 0:
        raise NoEngineError(f"debootstrap failed: {made.stdout[-300:]}{made.stderr[-300:]}")
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            [docker, "import", "-", BASE_TAG], stdin=archive.stdout, check=True, capture_output=True
        )
    shutil.rmtree(folder)
    return Base(BASE_TAG, SUITE_PYTHON)


@dataclass(frozen=True)
class Secrets:
    """Files for the build secrets `pip` and `ca`, and what each of them must not leave behind."""

    pip: Path
    ca: Path
    canary: str


@contextlib.contextmanager
def build_secrets(folder: Path, canary: str) -> Iterator[Secrets]:
    """Write this machine's pip configuration as the build can use it.

    A folder of wheels is served on the loopback interface, which `--network host` shares; the CA
    file becomes a secret of its own. Both files carry `canary` in a comment.
    """
    with contextlib.ExitStack() as stack:
        settings = {}
        for line in command(sys.executable, "-m", "pip", "config", "list").stdout.splitlines():
            key, _, value = line.partition("=")
            name = key.rpartition(".")[2]
            if name in {"index-url", "trusted-host", "timeout", "proxy", "find-links", "cert"}:
                settings[name] = value.strip("'")
        ca = Path(settings.pop("cert", "/etc/ssl/certs/ca-certificates.crt"))
        (folder / "ca.pem").write_text(f"# {canary}\n{ca.read_text(encoding='utf-8')}")
        settings["cert"] = "/run/secrets/ca"
        wheels = Path(settings.get("find-links", ""))
        if settings.get("find-links") and wheels.is_dir():
            settings["find-links"] = stack.enter_context(serve(wheels))
        parser = configparser.RawConfigParser()
        parser["global"] = settings
        with (folder / "pip.conf").open("w", encoding="utf-8") as out:
            out.write(f"# {canary}\n")
            parser.write(out)
        yield Secrets(folder / "pip.conf", folder / "ca.pem", canary)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep requests out of the tests' output."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def build(source: Base, secrets: Secrets) -> str:
    """Build the CPU image from the working tree; return its tag.

    TORCH_INDEX is that of the Makefile; where pip has a folder of wheels, torch comes from there.
    """
    offline = "find-links" in secrets.pip.read_text(encoding="utf-8")
    torch_index = os.environ.get("TORCH_INDEX") or ("" if offline else None)
    arguments = {"CUDA_IMAGE": source.image, "PYTHON": source.python, "DEVICE": "cpu"}
    if torch_index is not None:
        arguments["TORCH_INDEX"] = torch_index
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--secret=id=pip,src={secrets.pip}", f"--secret=id=ca,src={secrets.ca}"]
    command_line = [client(), "build", "--network=host", "--progress=plain", f"--tag={IMAGE_TAG}"]
    done = subprocess.run(
        [*command_line, *options, "."],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return IMAGE_TAG
