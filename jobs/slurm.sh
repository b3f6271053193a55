#!/bin/bash
# 여러 호스트에서 학습합니다. 죽거나 시간이 다 되면 같은 실행을 이어서 합니다.
#
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 jobs/slurm.sh \
#       --data.source cifar10 --trainer.max_epochs 20
#
# 파일 이름 앞은 sbatch의 옵션, 뒤는 cifar-lit fit의 옵션입니다.
# 태스크 하나가 프로세스 하나이므로 --ntasks-per-node는 호스트 하나의 GPU 수입니다.
# 태스크마다 호스트의 GPU가 다 보여야 하므로 --gpus-per-task는 주지 않습니다.
#SBATCH --job-name=cifar-lit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# 시간이 다 되기 2분 전에 이 스크립트(B:)만 USR1을 받습니다.
#SBATCH --signal=B:USR1@120
set -uo pipefail

# 모든 호스트가 함께 보는 폴더. 다시 줄을 서도 번호는 같습니다.
# 다른 작업이 하던 것은 RUN=runs/slurm-17 sbatch …로 이어서 합니다(학습 옵션은 그때의 것).
run=${RUN:-runs/slurm-$SLURM_JOB_ID}
tries=4 # 한 자리에서 띄우는 횟수
# sbatch의 --cpus-per-task는 srun에 저절로 가지 않습니다(22.05부터).
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# TERM을 받은 프로세스는 하던 스텝을 마치고 저장한 다음 끝납니다.
time_is_up=
trap 'time_is_up=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

train() {
    if [ -e "$run/config.yaml" ]; then
        set -- resume "$run"
    else
        set -- fit --run_dir "$run" --trainer.strategy ddp "$@"
    fi
    srun --kill-on-bad-exit=1 cifar-lit "$@" \
        --trainer.devices "$SLURM_NTASKS_PER_NODE" \
        --trainer.num_nodes "$SLURM_NNODES" &
    wait $!
    code=$?
    while kill -0 $! 2>/dev/null; do # 신호가 와서 wait가 먼저 끝났다.
        wait $!
        code=$?
    done
    return $code
}

for ((try = 1; try <= tries; try++)); do
    [ -z "$time_is_up" ] || break
    echo "$(date +'%F %T') $run, ${SLURM_RESTART_COUNT:-0}-$try: $SLURM_JOB_NODELIST"
    train "$@" && exit
done
[ -z "$time_is_up" ] || exec scontrol requeue "$SLURM_JOB_ID"
exit $code
