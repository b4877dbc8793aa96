"""Containers of Linux namespaces: a network of their own, a small root, an ordinary user without capabilities.

All of it hangs on the namespaces of this process, which `deploy/try.sh` makes: it goes with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.rehearsal.compose_file import ServiceSpec

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
WORK = Path("/run")
"""A file system in memory is mounted here, in the namespace of this process alone."""
BRIDGE = "layersweep0"
PATH = f"{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEALTH_SECONDS = 30
USERS = {0: "root", 999: "postgres", 10001: "layersweep"}
SHARED_ETC = ("ssl", "ld.so.cache", "localtime", "alternatives", "postgresql-common")
"""Of the machine's /etc; what stands in the rest is nobody's business in a container."""
SET_PRIVILEGES = ("setpriv", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Network:
    """A bridge with the addresses of one /24, and the names of those who have one."""

    def __init__(self, prefix: str) -> None:
        """`prefix` is the network's first three numbers. This process has its address .1."""
        self._prefix = prefix
        self._next = 129
        self.hosts = WORK / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{prefix}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")

    def attach(self, name: str, address: str | None) -> str:
        """Make the network namespace `name` with this address, or with the next free one; the address."""
        if address is None:
            address = f"{self._prefix}.{self._next}"
            self._next += 1
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"of-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"of-{name}", "master", BRIDGE, "up")
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        with self.hosts.open("a") as hosts:
            hosts.write(f"{address} {name}\n")
        return address


class Container:
    """One service of the file. It can be started again after its end; its log goes on."""

    def __init__(self, spec: ServiceSpec, network: Network) -> None:
        self.spec = spec
        self.address = network.attach(spec.name, spec.address)
        self.log = WORK / f"{spec.name}.log"
        self._hosts = network.hosts
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = ["ip", "netns", "exec", self.spec.name, "bwrap", *self._options(), "--"]
            self._process = subprocess.Popen(
                [*command, *self._privileges(), *self.spec.command], stdout=log, stderr=log, env=self._environment()
            )

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run `command` inside, as `docker exec` does: its files, network, processes, user and environment."""
        inside = ["nsenter", f"--target={self._first_process()}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        whole = [*inside, *self._privileges(), *command]
        environment = self._environment()
        return subprocess.run(whole, capture_output=True, text=True, timeout=HEALTH_SECONDS, env=environment)

    def healthy(self) -> bool:
        """Whether the container's own health check passes; without one, whether it runs."""
        if self.spec.health is None:
            return self.running
        return bool(self.running and self._children()) and self.execute(self.spec.health.command).returncode == 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_until_healthy(self, seconds: float) -> None:
        """Raises TimeoutError, or RuntimeError where it has ended meanwhile."""
        pause = threading.Event()
        for _ in range(int(seconds * 2)):
            if self.healthy():
                return
            if not self.running:
                raise RuntimeError(f"{self.spec.name} has ended with status {self.wait(0)}")
            pause.wait(0.5)
        raise TimeoutError(f"{self.spec.name} is not healthy after {seconds:g} s")

    def wait(self, seconds: float) -> int:
        """The exit status, once it has ended. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to all of it: it dies with its first process."""
        os.kill(self._first_process(), signal.SIGKILL)
        self.wait(HEALTH_SECONDS)

    def stop(self, seconds: float) -> int:
        """SIGTERM, as `docker stop` sends it; the exit status."""
        os.kill(self._first_process(), signal.SIGTERM)
        return self.wait(seconds)

    def end_of_log(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _first_process(self) -> int:
        """Process 1 of the container: the child of bwrap, which only waits for it."""
        return int(self._children()[0])

    def _children(self) -> list[str]:
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()

    def _environment(self) -> dict[str, str]:
        return {**self.spec.environment, "HOME": "/tmp", "PATH": PATH, "LANG": "C.UTF-8"}

    def _privileges(self) -> list[str]:
        return [*SET_PRIVILEGES, f"--reuid={self.spec.user}", f"--regid={self.spec.user}"]

    def _options(self) -> Iterator[str]:
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", self.spec.name, "--as-pid-1")
        # What setpriv needs to become another user; it gives them up as its last act.
        yield from ("--die-with-parent", "--new-session", "--cap-drop", "ALL")
        for capability in ("SETUID", "SETGID", "SETPCAP"):
            yield from ("--cap-add", f"CAP_{capability}")
        yield from ("--tmpfs", "/", "--proc", "/proc", "--dev", "/dev", *_temporary("/dev/shm"))
        targets = [Path("/etc/x"), ROOT, Path(sys.base_prefix), *(Path(each.target) for each in self.spec.mounts)]
        for folder in sorted({parent for target in targets for parent in target.parents}):
            yield from ("--perms", "0755", "--dir", str(folder))  # left to itself, bwrap makes them for root alone
        yield from self._files()
        for mount in self.spec.mounts:
            source = str(volume(mount.source, self.spec.user)) if mount.volume else mount.source
            yield from ("--ro-bind" if mount.read_only else "--bind", source, mount.target)
        for target in self.spec.tmpfs:
            yield from _temporary(target)
        if self.spec.read_only:
            yield from ("--remount-ro", "/")
        else:
            yield from (*_temporary("/tmp"), *_temporary("/var/run/postgresql"))
        yield from ("--chdir", str(ROOT))

    def _files(self) -> Iterator[str]:
        """The system's libraries, Python and this checkout, all read-only; a handful of files of /etc."""
        for path in sorted({Path("/usr"), Path(sys.base_prefix), ROOT}):
            yield from ("--ro-bind", str(path), str(path))
        for name in ("bin", "sbin", "lib", "lib64"):
            yield from ("--symlink", f"usr/{name}", f"/{name}")
        for name in SHARED_ETC:
            yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
        yield from ("--ro-bind", str(self._hosts), "/etc/hosts", "--ro-bind", str(_passwd()), "/etc/passwd")


def volume(name: str, user: int) -> Path:
    """The folder of a named volume; a new one belongs to its first user, as the image's folder does."""
    folder = WORK / "volumes" / name
    if not folder.exists():
        folder.mkdir(parents=True)
        os.chown(folder, user, user)
    return folder


def _temporary(target: str) -> Sequence[str]:
    return ("--perms", "1777", "--tmpfs", target)


def _passwd() -> Path:
    file = WORK / "passwd"
    file.write_text("".join(f"{name}:x:{number}:{number}::/tmp:/bin/sh\n" for number, name in USERS.items()))
    return file
