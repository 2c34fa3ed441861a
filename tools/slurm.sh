#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: `eval "$(tools/slurm.sh start DIR)"` starts it, `tools/slurm.sh stop DIR` ends it.
# Everything of it is in DIR. It needs no systemd, no cgroups and none of the machine's own configuration; any user may run it.
set -euo pipefail

die() {
    echo "slurm.sh: $1" >&2
    exit 1
}
[ $# = 2 ] || die "usage: tools/slurm.sh start|stop DIR"
PATH=$PATH:/usr/sbin:/sbin  # where the daemons are
for program in munged slurmctld slurmd sbatch; do
    command -v $program > /dev/null || die "no $program here; Debian, Ubuntu: apt-get install --no-install-recommends slurm-wlm munge"
done
mkdir -p "$2"
dir=$(cd "$2" && pwd)
export SLURM_CONF=$dir/slurm.conf

start() {
    mkdir "$dir/state" "$dir/spool" || die "$dir is in use; stop what runs there, or take another directory"
    chmod go-w "$dir"  # munged refuses others
    (umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
    write_config > "$SLURM_CONF"
    {
        munged --force --socket "$dir/munge.socket" --key-file "$dir/munge.key" --seed-file "$dir/munge.seed" \
            --pid-file "$dir/munged.pid" --log-file "$dir/munged.log"
        slurmctld
        slurmd
    } > /dev/null
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then
            echo "export SLURM_CONF='$SLURM_CONF'"
            return
        fi
        sleep 0.2
    done
    stop
    die "it does not answer; see $dir/*.log"
}

write_config() {
    local port=$((20000 + RANDOM % 10000))
    cat << CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
CONF
}

stop() {
    for name in slurmd slurmctld munged; do
        if [ -e "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" || true; fi
    done
    for _ in $(seq 100); do
        if ! ls "$dir"/*.pid > /dev/null 2>&1; then return; fi
        sleep 0.1
    done
    die "something of it is still running; see $dir/*.pid"
}

case $1 in
    start | stop) "$1" ;;
    *) die "usage: tools/slurm.sh start|stop DIR" ;;
esac
