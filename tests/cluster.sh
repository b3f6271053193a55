#!/bin/bash
# 시험하는 동안만 사는 SLURM입니다. 이 컴퓨터가 호스트 둘(node1, node2)인 체합니다.
#
#   cluster.sh 폴더 플러그인_폴더
#
# 폴더에 slurm.conf를 쓰고, 다 뜨면 ready라고 하고, 표준 입력이 닫히면 모두 끝냅니다.
set -euo pipefail
plugins=$2
cd "$1"
dir=$PWD
export SLURM_CONF=$dir/slurm.conf
read -r control one two < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in held))')

# 다시 줄을 선 작업은 cred_expire초(기본 120) 기다리고, sched_interval초(60)마다 살핀다.
cat >slurm.conf <<CONF
ClusterName=throwaway
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$control
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
PluginDir=$plugins
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
ProctrackType=proctrack/linuxproc
SelectType=select/linear
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$one
NodeName=node2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$two
PartitionName=main Nodes=node[1-2] Default=YES
CONF
mkdir -p state node1 node2
chmod 700 .
(umask 077 && head -c 1024 /dev/urandom >munge.key)

stop() { # 작업이 클러스터보다 오래 살지 않게
    scancel --full --signal=KILL --user="$(id -un)" || true
    scancel --user="$(id -un)" || true
    for ((i = 0; i < 100; i++)); do
        [ -n "$(squeue --noheader)" ] || break
        sleep 0.1
    done
    kill $(jobs -p)
    wait
}
trap stop EXIT

SECONDS=0
wait_a_bit() {
    ((SECONDS < 60)) # 더 지나면 set -e가 끝낸다.
    sleep 0.1
}

munged --foreground --force --key-file=munge.key --seed-file="$dir/munge.seed" \
    --socket="$dir/munge.socket" --pid-file="$dir/munge.pid" >munge.log 2>&1 &
until [ -S munge.socket ]; do wait_a_bit; done
slurmctld-wlm -D >slurmctld.log 2>&1 &
for node in node1 node2; do
    slurmd-wlm -D -N $node -d "$(command -v slurmstepd-wlm)" >$node.log 2>&1 &
done
until [ "$(sinfo -h -N -t idle | wc -l)" = 2 ]; do wait_a_bit; done
echo ready
cat >/dev/null
