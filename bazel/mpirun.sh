#!/bin/bash
# mpirun.sh RANKS PROGRAM [ARG...]: runs PROGRAM on RANKS ranks of this machine, in a sandbox, as any user.
# `source mpirun.sh` only sets the environment; then call "mpirun_here RANKS PROGRAM [ARG...]".

# Open MPI puts Unix sockets below its session folder, and a socket's path may have 107 characters: a test's own
# temporary folder is often too deep.
MPI_SESSION_DIR=$(mktemp -d /tmp/ompi.XXXXXX)
# Open MPI names its shared segments by a job number that comes from a process id, and two sandboxes may have the same:
# jobs that run at once need folders of their own.
MPI_SEGMENT_DIR=$(mktemp -d /dev/shm/ompi.XXXXXX 2>/dev/null || echo "$MPI_SESSION_DIR")
trap 'rm -rf "$MPI_SESSION_DIR" "$MPI_SEGMENT_DIR"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$MPI_SEGMENT_DIR
export OMPI_MCA_orte_tmpdir_base=$MPI_SESSION_DIR
export PMIX_MCA_gds=hash                                       # no shared-memory files of PMIx
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm=isolated                                   # one machine: no ssh needed
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader                # ranks talk through shared memory only
export OMPI_MCA_btl_vader_single_copy_mechanism=none           # process_vm_readv is closed in containers
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0            # Open MPI keeps memory until it ends
export OMPI_MCA_mpi_yield_when_idle=1                          # more ranks than cores wait without spinning

mpirun_here() {
  local ranks=$1 program=$2
  shift 2
  TMPDIR=$MPI_SESSION_DIR mpirun -np "$ranks" --oversubscribe --bind-to none "$program" "$@"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  set -euo pipefail
  ranks=$1 program=$2
  shift 2
  mpirun_here "$ranks" "$PWD/$program" "$@"
fi
