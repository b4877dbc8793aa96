#!/bin/bash
# Tries worker.sbatch on a Slurm of one node that it starts itself, with CPU workers:  deploy/slurm/try.sh
#
# Needs Debian's packages slurm-wlm and munge (or others' of the same programs), and `make setup`. Everything is started
# from a folder of its own, with its own munge key and ports, and ended with it; /etc and other Slurms are left alone.
# Tried are: two workers of an array take a sweep to its end; `scancel --signal=TERM --batch` gives a trial back without a charge,
# and its job queues again and goes on; so does a job whose time is nearly up; a job that is cancelled does not.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
export PATH=$root/.venv/bin:$PATH OMP_NUM_THREADS=1
trials=${TRIALS:-16}

for program in munged slurmctld slurmd sbatch layersweep; do
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        { echo "$program is missing: apt-get install slurm-wlm munge, and make setup" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin

work=$(mktemp -d /tmp/layersweep-slurm.XXXXXX)
chmod 755 "$work"
started=()
finish() {
    status=$?
    scancel --quiet --user "$(id -un)" 2>/dev/null || true
    [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    if [ "$status" = 0 ]; then rm -rf "$work"; else echo "failed: see $work" >&2; fi
}
trap finish EXIT

say() { echo "$(date +%T) $*"; }
start() { # LOG COMMAND...: in the background, until this script ends
    local log=$1
    shift
    "$@" >"$work/$log.log" 2>&1 &
    started+=($!)
}
until_true() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { say "not in time: $what"; squeue >&2; tail -n 20 "$work"/*.log >&2; exit 1; }
        sleep 1
    done
}
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

# --- Slurm of one node ------------------------------------------------------------------------------------------------

user=$(id -un)
node=$(hostname -s)
head -c 1024 /dev/urandom >"$work/munge.key"
chmod 600 "$work/munge.key"
mkdir -m 755 "$work/munge" "$work/state" "$work/spool"
start munged munged --foreground --force --key-file "$work/munge.key" --socket "$work/munge/socket" \
    --pid-file "$work/munge/pid" --seed-file "$work/munge/seed" --log-file "$work/munge/log"
cat >"$work/slurm.conf" <<EOF
ClusterName=try
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
# A job that queues again waits until its credential has expired: two minutes otherwise.
AuthInfo=socket=$work/munge/socket,cred_expire=10
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=5
JobRequeue=1
MailProg=/bin/true
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=try Nodes=$node Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:2
EOF
export SLURM_CONF=$work/slurm.conf
until_true 20 "munged" test -S "$work/munge/socket"
start slurmctld slurmctld -D
start slurmd slurmd -D -N "$node"
until_true 60 "a node that is idle" sh -c 'sinfo --noheader --format %T 2>/dev/null | grep -q idle'
say "Slurm $(sinfo --version | cut -d" " -f2): $(sinfo --noheader --format '%N %T, %c processors')"

# --- the service ------------------------------------------------------------------------------------------------------

port=$(free_port)
export LAYERSWEEP_SERVER=http://127.0.0.1:$port
LAYERSWEEP_DATA_DIR=$work/data start service layersweep serve --port "$port"
is_ready() { python -c "import urllib.request as r; r.urlopen('$LAYERSWEEP_SERVER/readyz', timeout=2)" 2>/dev/null; }
until_true 60 "the service" is_ready
cat >"$work/sweep.yaml" <<EOF
name: slurm
task: causal_lm
dataset: python-topics
model:
  num_layers: 1
  hidden_size: {values: [16, 32]}
  attention: {num_attention_heads: {values: [1, 2, 4]}}
  mlp: {ffn_hidden_size: {derived: "2 * hidden_size"}}
training: {steps: 60, batch_size: 4, learning_rate: {min: 1.0e-3, max: 1.0e-2, log: true}}
inference: {batch_size: 8, sequence_length: 64}
objectives: [{metric: validation_loss, goal: minimize}]
budget: {trials: $trials, parallel: 2}
search: {sampler: random, seed: 7, reuse: false}
EOF

# Questions to the service: each prints one line.
ask() {
    python - "$@" <<'EOF'
import json
import os
import sys
from collections import Counter
from urllib.request import urlopen


def get(path):
    with urlopen(os.environ["LAYERSWEEP_SERVER"] + path, timeout=30) as answer:
        return json.load(answer)


question, *rest = sys.argv[1:]
if question == "sweep":
    print(get("/v1/sweeps")["items"][0]["state"])
elif question in ("working", "living"):
    items = get("/v1/workers?alive=true")["items"]
    print(" ".join(sorted(each["name"] for each in items if each["trials"] or question == "living")))
else:
    sweep = get("/v1/sweeps")["items"][0]["id"]
    trials = get(f"/v1/sweeps/{sweep}/trials?page_size=200")["items"]
    attempts = [attempt for trial in trials for attempt in get(f"/v1/trials/{trial['id']}")["attempts"]]
    if question == "attempts":
        print(dict(sorted(Counter(attempt["outcome"] or "running" for attempt in attempts).items())))
    else:
        workers = {worker["id"]: worker["name"] for worker in get("/v1/workers?page_size=200")["items"]}
        done = Counter(workers[a["worker"]] for a in attempts if a["outcome"] == "complete")
        complete = sum(trial["state"] == "complete" for trial in trials)
        print(f"{complete} of {len(trials)} trials complete, by {dict(sorted(done.items()))}")
EOF
}

# --- an array of two workers ------------------------------------------------------------------------------------------

layersweep sweep submit "$work/sweep.yaml" >/dev/null
job=$(cd "$work" && LAYERSWEEP_DEVICE=cpu LAYERSWEEP_IDLE_SECONDS=15 \
    sbatch --parsable --array=0-1 --gres=none --cpus-per-task=1 "$root/deploy/slurm/worker.sbatch")
say "submitted the array $job"
both="slurm-$job-0 slurm-$job-1"
has_both() { [ "$(ask working)" = "$both" ]; }
until_true 180 "two workers with a trial each" has_both
say "both work: $(squeue --noheader --array --format '%i %T' | sort | paste -sd' ')"

scancel --signal=TERM --batch "${job}_0"
was_released() { ask attempts | grep -q released; }
until_true 60 "the trial is back" was_released
say "after scancel --signal=TERM --batch: attempts $(ask attempts)"
was_requeued() { scontrol show job "${job}_0" | grep -q "Restarts=1"; }
until_true 60 "the job queues again" was_requeued
say "its job: $(scontrol show job "${job}_0" | grep -oE '(JobState|Restarts)=[^ ]+' | paste -sd' ')"
until_true 180 "both work again" has_both
say "both work: $(squeue --noheader --array --format '%i %T' | sort | paste -sd' ')"

is_complete() { [ "$(ask sweep)" = completed ]; }
until_true 900 "the sweep is complete" is_complete
say "the sweep is completed: $(ask trials)"
say "attempts $(ask attempts)"
none_left() { [ -z "$(squeue --noheader)" ]; }
until_true 120 "jobs of idle workers end" none_left
say "no job is left: its workers were idle"
attempts=$(ask attempts)
[ "$attempts" = "{'complete': $trials, 'released': 1}" ] || { say "not as expected: $attempts"; exit 1; }

# --- a job whose time is nearly up, and one that is cancelled ---------------------------------------------------------

submit_one() { # OPTIONS...: a worker that finds nothing to do
    (cd "$work" && LAYERSWEEP_DEVICE=cpu LAYERSWEEP_IDLE_SECONDS=300 \
        sbatch --parsable --gres=none --cpus-per-task=1 "$@" "$root/deploy/slurm/worker.sbatch")
}
has_registered() { ask living | grep -q "slurm-$job-0"; }
restarts_once() { scontrol show job "$job" | grep -q "Restarts=1"; }
job=$(submit_one --time=1 --signal=B:TERM@30)
until_true 150 "a job queues again before its limit" restarts_once
say "a job of one minute, told 30 s before: $(scontrol show job "$job" | grep -oE '(JobState|Restarts)=[^ ]+' | paste -sd' ')"
scancel "$job"
job=$(submit_one)
until_true 120 "a worker" has_registered
scancel "$job"
has_ended() { ! scontrol show job "$job" | grep -qE "JobState=(RUNNING|COMPLETING)"; }
until_true 60 "a cancelled job ends" has_ended
sleep 3
say "a job after scancel: $(scontrol show job "$job" | grep -oE '(JobState|Restarts)=[^ ]+' | paste -sd' ')"
scontrol show job "$job" | grep -q "JobState=CANCELLED" || exit 1
has_signed_off() { ! has_registered; }
until_true 60 "its worker signs off" has_signed_off
say "as expected"
