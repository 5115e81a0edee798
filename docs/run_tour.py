"""Run docs/tour.ipynb from top to bottom and record what it prints and draws: `make tour`.

`…` stands for what differs from run to run. A test runs the notebook, too, and compares.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")
DIFFERS = (  # groups: kept, replaced, kept
    re.compile(r"(\bin |, )(\d+\.\d)( s)$", re.MULTILINE),
    re.compile(r"(^  mlflow   )([0-9a-f]{32})($)", re.MULTILINE),
    re.compile(r"()(\d+)( files, )"),
    re.compile(r"()(\d+\.\d+)( MB)"),
)


def run(folder: Path) -> Any:
    """The notebook with the outputs of its cells, run in `folder`.

    Raises CellExecutionError if a cell fails.
    """
    notebook: Any = nbformat.read(TOUR, 4)
    metadata = notebook.metadata.copy()
    environment = {**os.environ, "PYTHONPATH": str(TOUR.parents[1]), "IPYTHONDIR": str(folder)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    client = NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=environment)
    notebook.metadata = metadata
    for cell in notebook.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = lasting(output.text, folder)
    return notebook


def lasting(text: str, folder: Path) -> str:
    """The output of a cell run in `folder`, with `…` for what differs between runs."""
    text = text.replace("\r\n", "\n").replace(str(folder), "…")
    for differs in DIFFERS:
        text = differs.sub(r"\1…\3", text)
    return text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        nbformat.write(run(Path(name).resolve()), TOUR)
