"""Up, a sweep through the proxy, both API processes killed in turn, and what came of it.

The exit status is 1 where a trial was lost, failed or counted twice, or where a part did not come up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from deploy.rehearsal.compose_file import Image, services
from deploy.rehearsal.containers import ROOT, WORK, Container, Network
from layersweep.client import Client
from layersweep.sweep import Sweep

NETWORK = "172.30.84"
START_SECONDS = 120
SWEEP_SECONDS = 600
ENDED = ("complete", "infeasible", "pruned")

POSTGRES = r"""
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  "$bin/initdb" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB" | "$bin/postgres" --single -D "$PGDATA" postgres >/dev/null
fi
exec "$bin/postgres" -c listen_addresses='*'
"""
"""What the entry point of the official image does, as far as the file uses it, with Debian's PostgreSQL."""

IMAGES = {
    "postgres": Image(("sh", "-c", POSTGRES), 999, {"PGDATA": "/var/lib/postgresql/data"}),
    "caddy": Image(("caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"), 0),
}
"""Images that others publish: the machine's own programs stand in for them."""

_began = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _began:6.1f} s  {text}", flush=True)


class Installation:
    """Everything in docker-compose.yml that has no profile."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the secrets that deploy/secrets.sh makes."""
        self.token = (folder / "token").read_text().strip()
        network = Network(NETWORK)
        variables = {"LAYERSWEEP_SECRETS": str(folder)}
        specs = services(ROOT / "docker-compose.yml", ROOT / "Dockerfile", variables, IMAGES)
        self.containers = {name: Container(spec, network) for name, spec in specs.items()}

    def up(self) -> None:
        """Start each service once those that it depends on are as it wants them."""
        started: set[str] = set()
        while len(started) < len(self.containers):
            for name, container in self.containers.items():
                needs = container.spec.depends_on
                if name not in started and needs.keys() <= started:
                    for other, condition in needs.items():
                        self._meet(other, condition)
                    container.start()
                    started.add(name)
        for container in self.containers.values():
            if container.spec.health is not None:
                container.wait_until_healthy(START_SECONDS)

    def _meet(self, name: str, condition: str) -> None:
        container = self.containers[name]
        if condition == "service_completed_successfully":
            if container.wait(START_SECONDS) != 0:
                raise RuntimeError(f"{name} failed")
        else:
            container.wait_until_healthy(START_SECONDS)

    def restart(self, name: str) -> None:
        """As `restart: unless-stopped` does after an end."""
        self.containers[name].start()
        self.containers[name].wait_until_healthy(START_SECONDS)


def check_confinement(container: Container) -> None:
    """What the file promises of a container, tried from inside. Raises RuntimeError."""
    script = (
        "id -u; grep CapEff /proc/self/status | cut -f2; touch /x /usr/x 2>/dev/null && echo writable || echo read-only"
    )
    user, capabilities, root = container.execute(["sh", "-c", script]).stdout.split()
    say(f"{container.spec.name}: user {user}, capabilities {capabilities}, root {root}")
    if user != "10001" or int(capabilities, 16) or (container.spec.read_only and root != "read-only"):
        raise RuntimeError(f"{container.spec.name} is less confined than docker-compose.yml says")


def document(trials: int, steps: int) -> str:
    """The demo's sweep, shortened."""
    sweep = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    sweep["training"] |= {"steps": steps, "warmup_steps": min(10, steps), "eval_every": steps}
    sweep["budget"] = {"trials": trials}
    return yaml.safe_dump(sweep)


def ended(sweep: Sweep) -> int:
    progress = sweep.refresh().record["progress"]
    return sum(progress[state] for state in ENDED)


def wait_for(sweep: Sweep, trials: int) -> None:
    """Until so many trials have ended. Raises TimeoutError."""
    deadline = time.monotonic() + SWEEP_SECONDS
    while ended(sweep) < trials and not sweep.ended:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ended(sweep)} trials have ended after {SWEEP_SECONDS} s, not {trials}")
        time.sleep(0.5)


def kill_in_turn(installation: Installation, sweep: Sweep) -> None:
    """Each API process dies by SIGKILL while trials run, is away until another trial has ended, and comes back."""
    for name in ("api1", "api2"):
        wait_for(sweep, ended(sweep) + 1)
        before = ended(sweep)
        installation.containers[name].kill()
        say(f"{name} killed (SIGKILL) with {before} trials ended; the proxy still answers: {sweep.refresh().state}")
        wait_for(sweep, before + 1)
        say(f"without {name} another trial has ended")
        installation.restart(name)
        say(f"{name} is back and ready")


def losses(sweep: Sweep, trials: int) -> list[str]:
    """What is wrong with an ended sweep: nothing, if nothing was lost or counted twice."""
    rows = list(sweep.trials())
    events = list(sweep.events())
    told = Counter(event["trial"] for event in events if event["kind"] == "trial.ended")
    wrong: list[str] = []
    if sweep.state != "completed":
        wrong.append(f"the sweep is {sweep.state}: {sweep.record['reason']}")
    if [row["number"] for row in rows] != list(range(trials)):
        wrong.append(f"the trials are {[row['number'] for row in rows]}, not 0 to {trials - 1}")
    wrong += [f"trial {row['number']} is {row['state']}: {row['reason']}" for row in rows if row["state"] not in ENDED]
    wrong += [f"trial {row['number']} has ended {told[row['id']]} times" for row in rows if told[row["id"]] != 1]
    if [event["sequence"] for event in events] != list(range(1, len(events) + 1)):
        wrong.append("events are missing, or came twice")
    say(f"{len(rows)} trials, {sum(row['attempt'] for row in rows)} attempts, {len(events)} events, each once")
    return wrong


def rehearse(trials: int, steps: int) -> list[str]:
    """Bring it up, run the sweep, kill, stop. What was wrong."""
    secrets = WORK / "secrets"
    subprocess.run([ROOT / "deploy" / "secrets.sh", secrets], check=True, stdout=subprocess.DEVNULL)
    installation = Installation(secrets)
    containers = installation.containers
    try:
        installation.up()
        say("up: " + ", ".join(f"{name} {each.address}" for name, each in containers.items() if each.running))
        for name in ("api1", "api2", "worker"):
            check_confinement(containers[name])
        server = f"http://{containers['proxy'].address}:8420"
        with Client(server, installation.token) as client:
            sweep = client.submit(yaml.safe_load(document(trials, steps)))
            say(f"sweep {sweep.id} of {trials} trials submitted through the proxy, {server}")
            kill_in_turn(installation, sweep)
            sweep.wait(SWEEP_SECONDS)
            say(f"the sweep is {sweep.state}: {sweep.record['reason']}")
            wrong = losses(sweep, trials)
        for name in ("worker", "api1", "api2", "proxy"):
            status = containers[name].stop(60)
            say(f"{name} stopped by SIGTERM: status {status}")
            wrong += [f"{name} ended with status {status}"] if status else []
    except (RuntimeError, TimeoutError, subprocess.SubprocessError):
        for name, container in containers.items():
            if container.log.exists():
                print(f"--- {name}\n{container.end_of_log()}", file=sys.stderr)
        raise
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/try.sh", description=__doc__)
    parser.add_argument("--trials", type=int, default=8, help="of the sweep, 5 or more (default: 8)")
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: 60)")
    options = parser.parse_args()
    if options.trials < 5:
        parser.error("--trials must be 5 or more: four end while API processes are killed")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(WORK)], check=True)
    wrong = rehearse(options.trials, options.steps)
    for each in wrong:
        print(f"WRONG: {each}", file=sys.stderr)
    say("nothing was lost" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
