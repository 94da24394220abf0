#!/usr/bin/env bash
# A real SLURM on one machine, for the tests: a controller, a CPU node, three GPU nodes (their GPUs
# are arbitrary character devices), and an accounting database. Requires root on Debian.
#
#   tests/slurm/cluster.sh start FOLDER    install SLURM if it is missing, and start the daemons
#   tests/slurm/cluster.sh stop FOLDER     stop the daemons recorded by start, and no others
#   tests/slurm/cluster.sh crash FOLDER NODE    a power cut: kill a node's daemon and its jobs
#   tests/slurm/cluster.sh boot FOLDER NODE     start its daemon again
#   tests/slurm/cluster.sh halt FOLDER DAEMON   stop slurmctld or slurmdbd
#   tests/slurm/cluster.sh launch FOLDER DAEMON    start it again, with what it had saved
set -euo pipefail

action=$1
folder=$(realpath -m "$2")
here=$(cd "$(dirname "$0")" && pwd)
files=(slurm.conf gres.conf slurmdbd.conf)
nodes=(cpu1 gpu1 gpu2 gpu3)
marker="# Written by cuvler's tests/slurm/cluster.sh"

install_slurm() {
    hash slurmctld munged slurmdbd mariadbd 2>/dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge slurmdbd mariadb-server >/dev/null
}

# Jobs do not inherit SLURM_CONF, so the files must be in the default place.
configure() {
    mkdir -p "$folder/state" "$folder/spool" /etc/slurm
    for name in "${files[@]}"; do
        if [ -e "/etc/slurm/$name" ] && ! grep -qF "$marker" "/etc/slurm/$name"; then
            echo "/etc/slurm/$name belongs to another cluster; it is left alone" >&2
            exit 1
        fi
        { echo "$marker"; sed "s|@FOLDER@|$folder|g; s|@HOST@|$(hostname)|g" "$here/$name"; } >"/etc/slurm/$name"
    done
    chmod 600 /etc/slurm/slurmdbd.conf
}

# setsid: a daemon must not die with the terminal or the test that started it.
daemon() {
    local name=$1
    shift
    setsid "$@" >>"$folder/$name.out" 2>&1 </dev/null &
    echo $! >"$folder/$name.pid"
}

# Repeat a command until it succeeds.
wait_for() {
    for _ in $(seq 150); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "$1 did not come up; see $folder/*.out" >&2
    exit 1
}

start_accounting() {
    local sql=(mariadb --no-defaults --user=root --socket="$folder/mariadb.sock")
    mariadb-install-db --no-defaults --user=root --datadir="$folder/database" \
        --auth-root-authentication-method=normal --skip-test-db >/dev/null
    daemon mariadbd mariadbd --no-defaults --user=root --datadir="$folder/database" \
        --socket="$folder/mariadb.sock" --bind-address=127.0.0.1 --port=17005
    wait_for "${sql[@]}" --execute="select 1"
    "${sql[@]}" --execute="create database slurm_acct_db; create user slurm identified by 'slurm';
        grant all on slurm_acct_db.* to slurm"
    launch slurmdbd
    wait_for sacctmgr --immediate add cluster test
}

boot() {
    daemon "slurmd-$1" slurmd -D -N "$1"
}

halt() {
    kill -TERM -- "-$(cat "$folder/$1.pid")"
    wait_for eval "! pgrep --pgroup $(cat "$folder/$1.pid") --runstates R,S,D"
}

launch() {
    daemon "$1" "$1" -D
}

# The processes of jobs on a node, found by SLURM's environment variables, and slurmstepd, which
# would report the failed job to the controller, by its log. Those of other nodes go on.
crash() {
    local node=$1 jobs process
    jobs=$(squeue --noheader --nodelist="$node" --format=%A)
    kill -KILL -- "-$(cat "$folder/slurmd-$node.pid")"
    for job in $jobs; do
        for process in $(pgrep -f "^slurmstepd: \[$job\."); do
            if [ -n "$(find "/proc/$process/fd" -lname "*/$node.log")" ]; then
                kill -KILL "$process"
            fi
        done
        for process in /proc/[0-9]*; do
            if grep -qsz "^SLURM_JOB_ID=$job$" "$process/environ" &&
                grep -qsz "^SLURMD_NODENAME=$node$" "$process/environ"; then
                kill -KILL "${process#/proc/}" 2>/dev/null || true
            fi
        done
    done
}

start() {
    install_slurm
    configure
    if ! munge -n >/dev/null 2>&1; then
        mkdir -p /run/munge
        chown munge: /run/munge /etc/munge /var/log/munge /var/lib/munge /etc/munge/munge.key
        daemon munged runuser -u munge -- munged --foreground
        wait_for munge -n
    fi
    start_accounting
    daemon slurmctld slurmctld -D -c
    for node in "${nodes[@]}"; do boot "$node"; done
    for _ in $(seq 100); do
        [ "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" = ${#nodes[@]} ] && return
        sleep 0.2
    done
    echo "the nodes did not come up; see $folder/*.out" >&2
    sinfo >&2 || true
    exit 1
}

stop() {
    # Jobs outlive the daemons.
    if [ -e "$folder/slurmctld.pid" ]; then
        squeue --noheader --format=%A 2>/dev/null | xargs --no-run-if-empty scancel || true
        for _ in $(seq 100); do
            [ -n "$(squeue --noheader 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    for file in "$folder"/*.pid; do
        [ -e "$file" ] || continue
        # The process group of setsid: the daemon and the steps it started.
        kill -TERM -- "-$(cat "$file")" 2>/dev/null || true
        rm "$file"
    done
    for name in "${files[@]}"; do
        if grep -qsF "$marker" "/etc/slurm/$name"; then rm "/etc/slurm/$name"; fi
    done
}

"$action" "${@:3}"
