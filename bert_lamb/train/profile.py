"""A trace of some steps for a browser: what host and device did, operation by operation."""

import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WARM_UP_STEPS = 3  # the first steps of a run build caches and choose kernels; the last of these starts the profiler


class Profile:
    """Traces `num_steps` steps of this process, after WARM_UP_STEPS, into a file of `folder`; 0: none."""

    def __init__(self, folder: Path, *, num_steps: int) -> None:
        self.folder, self.num_steps = folder, num_steps
        self._profile: profile | None = None
        self._is_written = False

    def start(self) -> None:
        """Begin with the first step; a later stage of the run continues."""
        if self.num_steps == 0 or self._profile is not None:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=self.num_steps, repeat=1, skip_first=WARM_UP_STEPS - 1),
            on_trace_ready=self._write,
        )
        self._profile.start()

    def step(self) -> None:
        """A step is over."""
        if self._profile is not None:
            self._profile.step()

    def stop(self) -> None:
        """The run is over; a trace that has begun is written as far as it goes."""
        if self._profile is None:
            return
        self._profile.stop()
        self._profile = None
        if not self._is_written:
            print(
                f"profile  none: the run ended within the {WARM_UP_STEPS} steps before it", file=sys.stderr, flush=True
            )

    def _write(self, finished: profile) -> None:
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"steps_{WARM_UP_STEPS + 1}_to_{WARM_UP_STEPS + self.num_steps}.json"
        finished.export_chrome_trace(str(file))
        self._is_written = True
        print(f"profile  {file}: open it in https://ui.perfetto.dev or chrome://tracing", file=sys.stderr, flush=True)
