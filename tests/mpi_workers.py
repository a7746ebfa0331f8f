"""Calibration and evaluation by workers of MPI: `mpiexec -n 3 python -m mpi4py.futures -m tests.mpi_workers`."""

import numpy as np

import ndquant as nq

from .networks import inputs, mlp


def main():
    from mpi4py.futures import MPIPoolExecutor

    data = [inputs(40 + i, rng=i) for i in range(5)]
    labelled = [(x, np.arange(len(x)) % 4) for x in data]
    with MPIPoolExecutor() as executor:
        found, alone = (nq.calibrate(nq.prepare(mlp(), data[0]), data, executor=e) for e in (executor, None))
        for (name, a), (_, b) in zip(found.quantizers(), alone.quantizers(), strict=True):
            assert a.has_seen_data == b.has_seen_data and (not a.has_seen_data or a.qparams == b.qparams), name
        assert nq.evaluate(mlp(), labelled, executor=executor) == nq.evaluate(mlp(), labelled)
        ranks = set(executor.map(rank_after_a_while, range(20)))
    print(f"same bits by workers {sorted(ranks)}")


def rank_after_a_while(_):
    import time

    from mpi4py import MPI

    time.sleep(0.02)
    return MPI.COMM_WORLD.Get_rank()


if __name__ == "__main__":
    main()
