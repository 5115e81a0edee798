"""What this package sets of the process it runs in. Importing it sets nothing."""

import os
import sys

_ENVIRONMENT = {
    # Arrow's other allocators keep what they had once, and so would all processes that are forked.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # MLflow sends telemetry unless it is told not to.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow cuts off long parameters without a word.
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    # MLflow asks a tracker that does not answer for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # MLflow draws a bar for every file that it copies.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow imports GitPython, which warns where there is no git.
    "GIT_PYTHON_REFRESH": "quiet",
}
_LUIGI = {
    # What a task reads is computed again if it is gone or damaged; Luigi would refuse to run it.
    ("worker", "check_unfulfilled_deps"): "false",
    # Luigi's command exits with 0 whatever happens.
    **dict.fromkeys(
        (
            *(("retcode", "already_running"), ("retcode", "missing_data"), ("retcode", "not_run")),
            *(("retcode", "task_failed"), ("retcode", "scheduling_error")),
        ),
        "1",
    ),
    ("retcode", "unhandled_exception"): "2",
}


def configure() -> None:
    """Set what builds and trackers need of this process: its environment, NumPy's memory, Luigi.

    Commands, builds and the module of a workflow call it before they do anything. What the user has
    set stays. It may be called again, which takes microseconds: NumPy and Luigi are not imported
    for it, but configured once they are.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "numpy" in sys.modules:
        from basilar.dsp.buffers import keep_freed_memory

        keep_freed_memory()
    if "luigi" in sys.modules:
        from luigi.configuration import get_config

        config = get_config()
        for (section, option), value in _LUIGI.items():
            if not config.has_option(section, option):
                config.set(section, option, value)
