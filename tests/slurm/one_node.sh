#!/usr/bin/env bash
# A whole Slurm on this machine alone, with accounting, for tests. Needs root and a Debian-like
# system; no systemd, no network. Everything it makes lies in one folder and on ports of its own, so
# that a Slurm that the machine belongs to is neither read nor changed.
#
#   one_node.sh install       the packages it needs
#   one_node.sh start         prints the folder; then: export SLURM_CONF=<folder>/slurm.conf
#   one_node.sh stop          ends its daemons, by their process ids, and deletes the folder
#
# Accounting is needed: when a job dies hard, submitit asks sacct what became of it, and without an
# answer it waits for ever.
set -euo pipefail

STATE=${INTERP_LAB_SLURM:-/run/interp-lab-slurm}
CPUS=${INTERP_LAB_SLURM_CPUS:-8}   # more than there are, so that an array runs at once
HOST=$(hostname -s)
CONTROLLER_PORT=26817 NODE_PORT=26818 ACCOUNTING_PORT=26819 DATABASE_PORT=26820
SQL=(mariadb --no-defaults --socket="$STATE/db/socket")

install_packages() {
  local wanted="slurmctld slurmd slurm-client slurmdbd munge mariadb-server"
  # shellcheck disable=SC2086
  dpkg -s $wanted >/dev/null 2>&1 && return
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $wanted
}

wait_for() {  # wait_for <what> <command...>: up to 30 s
  local what=$1; shift
  for _ in $(seq 120); do "$@" >/dev/null 2>&1 && return; sleep 0.25; done
  echo "one_node.sh: $what did not come up; logs are in $STATE/log" >&2
  tail -n 5 "$STATE"/log/* >&2
  exit 1
}

start_munge() {
  install -d -o munge -g munge -m 0755 "$STATE/munge"
  head -c 1024 /dev/urandom > "$STATE/munge/key"
  chown munge: "$STATE/munge/key"
  chmod 400 "$STATE/munge/key"
  runuser -u munge -- munged --key-file="$STATE/munge/key" --socket="$STATE/munge/socket" \
    --pid-file="$STATE/munge/pid" --log-file="$STATE/munge/log" --seed-file="$STATE/munge/seed"
  wait_for munge test -S "$STATE/munge/socket"
}

start_database() {
  install -d -o mysql -g mysql -m 0755 "$STATE/db"
  mariadb-install-db --no-defaults --user=mysql --datadir="$STATE/db/data" \
    >"$STATE/log/database-install" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$STATE/db/data" \
    --socket="$STATE/db/socket" --pid-file="$STATE/db/pid" --bind-address=127.0.0.1 \
    --port=$DATABASE_PORT --innodb-buffer-pool-size=64M \
    >"$STATE/log/database" 2>&1 </dev/null &
  wait_for mariadb "${SQL[@]}" -e "SELECT 1"
  "${SQL[@]}" -e "CREATE DATABASE accounting; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
    CREATE USER slurm@localhost IDENTIFIED BY 'slurm';
    GRANT ALL ON accounting.* TO slurm@'127.0.0.1'; GRANT ALL ON accounting.* TO slurm@localhost;"
}

write_configuration() {
  local memory
  memory=$(( $(awk '/MemTotal/ {print $2}' /proc/meminfo) * 8 / 10 / 1024 ))
  cat > "$STATE/slurm.conf" <<CONF
ClusterName=interp_lab_test
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$CONTROLLER_PORT
SlurmdPort=$NODE_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$STATE/munge/socket
CredType=cred/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/log/slurmctld
SlurmdLogFile=$STATE/log/slurmd
# No cgroups: a container may have none to give.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=5
# A job that is put back in the queue may start again at once.
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$ACCOUNTING_PORT
# To the accounting daemon the "password" of munge is its socket.
AccountingStoragePass=$STATE/munge/socket
JobCompType=jobcomp/none
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
CONF
  printf 'CgroupAutomount=no\n' > "$STATE/cgroup.conf"
  cat > "$STATE/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$STATE/munge/socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$ACCOUNTING_PORT
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DATABASE_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounting
LogFile=$STATE/log/slurmdbd
PidFile=$STATE/slurmdbd.pid
CONF
  chmod 600 "$STATE/slurmdbd.conf"
}

node_is_up() { sinfo -h -o %T | grep -qE '^(idle|mixed|allocated)$'; }

start() {
  if [ -d "$STATE" ] && SLURM_CONF=$STATE/slurm.conf scontrol ping 2>/dev/null | grep -q UP; then
    echo "$STATE"
    return
  fi
  stop
  install -d -m 0755 "$STATE" "$STATE/log" "$STATE/ctld" "$STATE/d"
  start_munge
  start_database
  write_configuration
  export SLURM_CONF=$STATE/slurm.conf
  slurmdbd
  wait_for slurmdbd timeout 5 sacctmgr -n -i show cluster
  sacctmgr -n -i add cluster interp_lab_test >/dev/null
  slurmctld
  slurmd
  wait_for "the node" node_is_up
  echo "$STATE"
}

end_jobs() {  # a step whose daemon is gone would wait for it for ever
  export SLURM_CONF=$STATE/slurm.conf
  timeout 5 scancel --user="$(id -un)" || return 0
  for _ in $(seq 40); do
    [ -z "$(timeout 5 squeue -h -t all -o %T | grep -E 'RUNNING|COMPLETING|PENDING')" ] && return 0
    sleep 0.25
  done
}

stop() {
  local pid
  if [ -s "$STATE/slurmctld.pid" ]; then end_jobs 2>/dev/null; fi
  for file in slurmd.pid slurmctld.pid slurmdbd.pid db/pid munge/pid; do
    [ -s "$STATE/$file" ] || continue
    pid=$(cat "$STATE/$file")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
  done
  rm -rf "$STATE"
}

case "${1:-}" in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  *) echo "usage: $0 install | start | stop" >&2; exit 2 ;;
esac
