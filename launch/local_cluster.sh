#!/usr/bin/env bash
# Runs a command in N processes of one job on this machine, with CPU devices, to try what would run on several hosts.
# Fill in: the number of processes and the command.
#
#   launch/local_cluster.sh 2 -- .venv/bin/transdiff train --config=configs/digits.py --workdir=DIR
#
# JAX_NUM_CPU_DEVICES is the number of devices of each process. Every line of output begins with the number of its
# process. SIGTERM and SIGINT go to all processes. When one fails, the others have 5 seconds to end and are then killed;
# the exit code is that of the process that failed first. The same command resumes.
set -uo pipefail

GRACE=5 # seconds

stop() {
  echo "error: $1" >&2
  exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ && ${2:-} == -- && $# -ge 3 ]] || stop "usage: launch/local_cluster.sh N -- COMMAND..."
count=$1
shift 2
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])') \
  || stop "python3 is needed to find a free port"

export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=${JAX_NUM_CPU_DEVICES:-1} PYTHONUNBUFFERED=1
export TRANSDIFF_COORDINATOR=localhost:$port TRANSDIFF_PROCESSES=$count

# Job control: each process leads a group, which includes its own workers, and does not ignore SIGINT.
set -m
declare -A number=() # of each running process, by its id
for ((process = 0; process < count; process++)); do
  TRANSDIFF_PROCESS=$process "$@" > >(exec sed -u "s/^/[$process] /") 2>&1 &
  number[$!]=$process
done
# shellcheck disable=SC2329 # called by the traps
forward() {
  for id in "${!number[@]}"; do kill "-$1" "$id" 2>/dev/null; done
}
kill_groups() {
  for id in "$@"; do kill -KILL -- "-$id" 2>/dev/null; done
}
trap 'forward TERM' TERM
trap 'forward INT' INT

code=0
killer=
while ((${#number[@]})); do
  wait -n -p ended "${!number[@]}"
  result=$?
  if [[ -z ${ended:-} ]]; then # a forwarded signal, or a process whose end bash has already noted
    for id in "${!number[@]}"; do
      kill -0 "$id" 2>/dev/null || ended=$id
    done
    [[ -n ${ended:-} ]] || continue
    wait "$ended"
    result=$?
  fi
  process=${number[$ended]}
  unset "number[$ended]"
  if ((result && !code)); then
    code=$result
    echo "[cluster] process $process ended with exit code $code: stopping the others" >&2
    ids=("${!number[@]}")
    (
      sleep "$GRACE"
      kill_groups "${ids[@]}"
    ) &
    killer=$!
  fi
done
[[ -z $killer ]] || kill_groups "$killer"
exit "$code"
