"""A Ray cluster of this machine alone whose autoscaler starts raylets as nodes: Ray's own provider for tests.

`ray.cluster_utils.AutoscalingCluster` would do the same, but first ends every Ray process of the machine, whosoever it
is, and needs a file that Ray's wheel lacks. This one ends what it has started, which it knows by its folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HEAD_ID = "f" * 51 + "00000"
"""What the provider calls the head."""
STORE_BYTES = 80_000_000
COMMANDS_OF_NODES = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
TICKS = os.sysconf("SC_CLK_TCK")


class FakeNodes:
    """`ray start --head` with nodes of one processor each, from none to `most`."""

    def __init__(self, most: int, *, idle_minutes: float = 0.1) -> None:
        # Ray's sockets lie below it, and a socket's path is short.
        self._folder = Path(tempfile.mkdtemp(prefix="lsw-ray-", dir="/tmp"))
        self._ip = _own_address()
        with socket.socket() as free:
            free.bind((self._ip, 0))
            self._port = free.getsockname()[1]
        self._config = self._folder / "cluster.json"
        node = {"resources": {"CPU": 1, "object_store_memory": STORE_BYTES}, "node_config": {}, "max_workers": most}
        settings: dict[str, object] = {
            **{name: [] for name in COMMANDS_OF_NODES},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "docker": {},
            "cluster_name": "fake",
            "max_workers": most,
            "idle_timeout_minutes": idle_minutes,
            "upscaling_speed": 100.0,
            "provider": {
                # By its class: the name "fake_multinode" needs a file that the wheel lacks.
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "gcs_address": self.address,
                "launch_multiple": True,
                "head_node_id": HEAD_ID,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "auth": {"ssh_user": "nobody"},
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
                "node": {**node, "min_workers": 0},
            },
        }
        self._config.write_text(json.dumps(settings))

    @property
    def address(self) -> str:
        return f"{self._ip}:{self._port}"

    def start_head(self) -> None:
        """Start it, or another one after it was killed."""
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--port", str(self._port)]
        command += ["--num-cpus", "0", "--object-store-memory", str(STORE_BYTES), "--temp-dir", str(self._sessions)]
        command += ["--autoscaling-config", str(self._config), "--include-dashboard", "false"]
        environment = os.environ | {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # The autoscaler of before takes a node whose raylet was killed for one that is still to come.
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            # How long nodes and drivers look for a head that is gone, 60 s otherwise.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        }
        started = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
        assert started.returncode == 0, started.stdout + started.stderr

    def kill_head(self) -> None:
        """SIGKILL for its store of what the cluster is, its raylet, its autoscaler and what else belongs to it."""
        nodes = set(self.raylets())
        for pid in [pid for pid in self._processes() if pid not in nodes and not _is_of_node(_command(pid))]:
            _kill(pid)

    def preempt_first_node(self) -> None:
        """Tell the cluster, as a provider does, that the first node is going to be taken away in a minute."""
        command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", self.address]
        command += ["--node-id", HEAD_ID[:-1] + "1", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message", "a test", "--deadline-remaining-seconds", "60"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert told.returncode == 0, told.stdout + told.stderr

    def raylets(self) -> list[int]:
        """Of the nodes, without the head's: the oldest first."""
        found = [pid for pid in self._processes() if _is_raylet(_command(pid)) and _is_of_node(_command(pid))]
        return sorted(found, key=lambda pid: Path(f"/proc/{pid}").stat().st_ctime)

    def actors(self) -> list[int]:
        """The processes that host workers."""
        return [pid for raylet in self.raylets() for pid in _children(raylet) if "WorkerActor" in _command(pid)]

    def joined_at(self) -> list[float]:
        """When the nodes opened their sockets, in seconds since 1970."""
        sockets = self._sessions.glob("session_latest/sockets/raylet.*")
        return sorted(path.stat().st_ctime for path in sockets)

    def close(self) -> None:
        for pid in self._processes():
            _kill(pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _sessions(self) -> Path:
        return self._folder / "s"

    def _processes(self) -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            if str(self._folder) in _command(pid) and pid != os.getpid():
                yield pid


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 300) -> float:
    """Wait for it; how long it took, in seconds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not in time: {what}"
        time.sleep(0.2)
    return time.monotonic() - begin


def worker_of(actor: int) -> int:
    """The process of the worker that an actor hosts: its guard's child."""
    (guard,) = _children(actor)
    (worker,) = _children(guard)
    return worker


def processor_seconds(pids: list[int]) -> float:
    """What these processes have used."""
    return sum(map(_processor_seconds, pids))


def _own_address() -> str:
    """As Ray finds it: the one from which others would be reached. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _is_raylet(command: str) -> bool:
    return command.split(" ", 1)[0].endswith("/raylet")


def _is_of_node(command: str) -> bool:
    """Whether a process belongs to a node: its raylet's socket and its agents' logs are numbered."""
    return any(f"sockets/raylet.{number}" in command for number in range(1, 100))


def _children(pid: int) -> list[int]:
    try:
        listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for line in listed for child in line.split()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
