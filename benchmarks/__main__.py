"""`python -m benchmarks [NETWORK ...] [--images N]`: one thread, CPU time, alternating between the peers, medians."""

import argparse
import os

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def main() -> None:
    """Print the tables."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # read when the libraries are loaded, which is why they are imported below
    from benchmarks import normals, prediction, torch_peer
    from validation.networks import DataMissingError

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=["fashion_cnn", "fashion_resnet"])
    parser.add_argument("--images", type=int, default=64, help="images a prediction is made for (64)")
    parser.add_argument("--error-rel", type=float, default=0.003, help="programming error over the largest conductance (0.003)")
    options = parser.parse_args()
    if torch_peer.torch is None:
        print("PyTorch is not installed: its columns are left out (extra `train`).\n")
    normals.report()
    for name in options.networks:
        try:
            prediction.report(name, n_images=options.images, error_rel=options.error_rel)
        except DataMissingError as error:
            print(f"\n{name}: left out: {error}")


if __name__ == "__main__":
    main()
