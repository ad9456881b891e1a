"""One checkpoint on its way to the disk while training continues: what one rank does for it, in a thread.

The thread calls no collective, since the main thread uses the process group; Keeper says when all ranks have written.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path

from bert_lamb.checkpoint.writing import Plan, Share, is_written, publish, write_share
from bert_lamb.errors import UserError


class Saving:
    """Writes this rank's share from the moment it is made; `thread` runs one job after the other.

    after: what rank 0 does once the checkpoint is there. What the file system refuses becomes a UserError.
    """

    def __init__(self, plan: Plan, share: Share, rank: int, thread: Executor, after: Callable[[], None]) -> None:
        self.plan, self.share, self.rank, self.thread, self.after = plan, share, rank, thread, after
        self._is_publishing = False
        self._job: Future[None] = thread.submit(self._write)

    @property
    def is_writing(self) -> bool:
        """Whether this rank's file is not complete yet."""
        return not self._is_publishing and not self._job.done()

    @property
    def has_failed(self) -> bool:
        return self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Until this rank has done all that it was told to; raises what went wrong."""
        self._job.result()

    def publish(self) -> None:
        """On rank 0, when every rank has written: have the thread make the checkpoint appear; once."""
        if self.rank == 0 and not self._is_publishing:
            self._is_publishing = True
            self._job = self.thread.submit(self._publish)

    def leave(self) -> None:
        """Finish what can be finished without the other ranks, which may have left."""
        self.wait()
        if self.rank == 0 and (self._is_publishing or is_written(self.plan)):
            self.publish()
            self.wait()

    def _write(self) -> None:
        with refused(self.plan.directory):
            write_share(self.plan, self.rank, self.share)

    def _publish(self) -> None:
        with refused(self.plan.directory):
            publish(self.plan, self.share.tensor_kinds)
        self.after()


@contextmanager
def refused(checkpoint: Path) -> Iterator[None]:
    """What the file system refuses inside, such as a full disk, is a mistake of the user's to fix."""
    try:
        yield
    except OSError as error:
        raise UserError(
            found=f"checkpoint {checkpoint} that cannot be written ({error.strerror or error})",
            expected="room, and permission to write there",
            fix="fix the disk and run it again with if_exists=resume; the checkpoints before it are whole",
        ) from error
