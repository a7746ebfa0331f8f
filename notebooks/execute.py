"""Execute notebooks with the network off and write them back: ``python notebooks/execute.py [file ...]``.

What is written holds nothing that differs from machine to machine but the figures themselves: no times, no paths, no
versions. A notebook that fails or warns is not written, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parent

#: Longest time of a cell, in seconds: what hangs ends, and what is slow on a busy machine does not.
LIMIT = 600

#: Runs in the kernel before the first cell.
NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise OSError("the network is off")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
del socket, refuse
"""


def execute(notebook, seed=None):
    """Run the cells of a notebook in a kernel of their own and keep their outputs in `notebook`.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    seed : int, optional
        Runs with ``SEED = seed`` instead of the seed that the notebook sets.
    """
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    if seed is not None:
        for cell in notebook.cells:
            cell.source = re.sub(r"^SEED = \d+", f"SEED = {seed}", cell.source, flags=re.MULTILINE)
    notebook.cells.insert(0, new_code_cell(NO_NETWORK))
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": FOLDER}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = folder
        with client.setup_kernel():
            for i, cell in enumerate(notebook.cells):
                client.execute_cell(cell, i, store_history=i > 0)
    del notebook.cells[0]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def warnings_of(notebook):
    """Return what the cells wrote to standard error."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return "".join(out.text for out in outputs if out.output_type == "stream" and out.name == "stderr")


def main():
    """Execute the notebooks that the command line names, by default all."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="by default all of this folder")
    parser.add_argument("--to", type=Path, help="folder to write to; by default where they are")
    parser.add_argument("--seed", type=int, help="another seed than the notebook's own")
    options = parser.parse_args()
    paths = options.paths or sorted(FOLDER.glob("*.ipynb"))
    if options.to:
        options.to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        start, notebook = time.perf_counter(), nbformat.read(path, as_version=4)
        execute(notebook, options.seed)
        if text := warnings_of(notebook):
            sys.exit(f"{path.name}: {text}")
        nbformat.write(notebook, (options.to or path.parent) / path.name)
        print(f"{path.name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
