"""Command line: ``python -m ndquant`` trains, quantizes and compares; ``python -m ndquant info`` shows the machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import demo, show_config


def parse(arguments):
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m ndquant", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["info"], help="print CPU features, backends and threads")
    parser.add_argument("--mnist", nargs="?", const="", metavar="DIR", help="use MNIST, from a folder of IDX files")
    parser.add_argument("--save", metavar="DIR", help="write the models there")
    parser.add_argument("--seed", type=int, default=0, help="for weights and order (0)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the command line and return the exit status."""
    options = parse(arguments)
    if options.command == "info":
        show_config()
        return 0
    try:
        job = demo.digits_job() if options.mnist is None else demo.mnist_job(options.mnist or None)
    except (OSError, ValueError, ImportError) as error:
        print(f"ndquant: {error}", file=sys.stderr)
        return 2
    return run(job, options)


def run(job, options):
    """Do the job, print the table and what verify found; 1 if anything that must agree does not."""
    folder = None if options.save is None else Path(options.save)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    results = demo.run(job, options.seed, demo.Progress(), folder)
    print(demo.table(job, results, demo.timings(job, results)))
    checks = {r.name: r.network.verify(job.test[0][:1000]) for r in results if r.network.kind == "integer"}
    for name, check in checks.items():
        print(f"verify {name}: {check.summary()}")
    different = demo.check_files(job, results, folder) if folder is not None else []
    if folder is not None:
        found = f"{', '.join(different)} differ when loaded" if different else "all load back and give the same outputs"
        print(f"saved to {folder}: {found}")
    return int(bool(different) or not all(checks.values()))


if __name__ == "__main__":
    sys.exit(main())
