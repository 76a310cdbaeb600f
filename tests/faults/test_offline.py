"""A whole run with `--offline` in a namespace without a network, and what it tried to reach."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import BASE_RECIPE, TINY

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]
WATCH = """
import os, socket, sys

def watch(event, arguments):
    reaching = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
    if event == "socket.connect":
        reaching = getattr(arguments[0], "family", None) != socket.AF_UNIX
    if reaching:
        with open(os.environ["REACHED"], "a") as file:
            file.write(f"{event} {arguments[1:] if event == 'socket.connect' else arguments}\\n")

sys.addaudithook(watch)
"""


def namespace_available() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.skipif(not namespace_available(), reason="no network namespaces for this user")
def test_nothing_is_reached_and_nothing_is_missed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    settings = [part for key in TINY for part in ("--set", key)]
    reached = tmp_path / "reached"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "REACHED": str(reached),
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [*NAMESPACE, sys.executable, "-m", "rlhfctl", "run", str(BASE_RECIPE), "--offline"]
    done = subprocess.run(
        [*command, "--runs-dir", str(tmp_path / "runs"), *settings],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "base" / "report.html").is_file()
    assert not reached.exists(), reached.read_text()
    # The watch itself works.
    subprocess.run(
        [sys.executable, "-c", "import socket; socket.gethostbyname('localhost')"],
        env=environment,
        check=True,
    )
    assert reached.exists()
