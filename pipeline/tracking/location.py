"""The location of a root's own MLflow tracker."""

from pathlib import Path

from basilar.pipeline import storage

DATABASE = "mlflow.db"  # in ROOT/mlflow


def embedded_tracking_uri(root: Path) -> str:
    """The URI of the tracker under a root, which is used unless another is named.

    Raises ValueError for a root whose name a database URI cannot contain, and for an object store.
    """
    if storage.is_remote(root):
        raise ValueError(
            f"{storage.name(root)}: MLflow cannot keep its database in an object store; name a "
            "tracker (--tracking-uri), such as sqlite:////home/me/mlflow.db"
        )
    database = str(root.absolute() / "mlflow" / DATABASE)
    if set(database) & set("?%"):
        raise ValueError(
            f"{root}: MLflow cannot keep its database in a folder with ? or % in its name; use "
            "another root, or name a tracker (--tracking-uri)"
        )
    return f"sqlite:///{database}"


def is_embedded(uri: str, root: Path) -> bool:
    """Whether a URI is that of the tracker under a root."""
    try:
        return uri == embedded_tracking_uri(root)
    except ValueError:  # this root has none
        return False
