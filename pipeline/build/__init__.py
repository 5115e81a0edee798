"""Luigi tasks and engines."""

from basilar.pipeline.host import require_fork

require_fork()  # rather than wherever a build first lacks one
