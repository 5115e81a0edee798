"""Where the MLflow store of a root lies."""

from pathlib import Path

from basilar.pipeline import storage


def embedded_tracking_uri(root: Path) -> str:
    """The MLflow store under a root: what is used where no other is named.

    Raises ValueError for a root whose name a database URI cannot hold, and for an object store.
    """
    if storage.is_remote(root):
        raise ValueError(
            f"{storage.name(root)}: MLflow cannot keep its database in an object store; name a "
            "tracker (--tracking-uri), such as sqlite:////home/me/mlflow.db"
        )
    database = str(root.absolute() / "mlflow" / "mlflow.db")
    if set(database) & set("?%"):
        raise ValueError(
            f"{root}: MLflow cannot keep its database in a folder with ? or % in its name; take "
            "another root, or name a tracker (--tracking-uri)"
        )
    return f"sqlite:///{database}"


def is_embedded(uri: str, root: Path) -> bool:
    """Whether a tracker is the one under a root."""
    try:
        return uri == embedded_tracking_uri(root)
    except ValueError:  # there is none
        return False
