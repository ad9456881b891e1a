"""How the steps and the batch of a training on images follow from its settings."""

import math

from bert_lamb.errors import UserError
from bert_lamb.train.batch_plan import largest_divisor, plan_batch
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.task import Stage
from bert_lamb.vision.settings import STAGE, Settings


def stage_of(settings: Settings, num_images: int, *, world_size: int) -> Stage:
    """The only stage; raises UserError where ranks or micro-batches do not share ghost batches evenly."""
    total_steps = math.ceil(num_images * settings.num_epochs / settings.global_batch_size)
    together = settings.images_together
    if settings.global_batch_size % (world_size * together) != 0:
        raise UserError(
            found=f"global_batch_size={settings.global_batch_size}, which {world_size} ranks do not share evenly"
            + (f" in ghost batches of {together}" if together > 1 else ""),
            expected=f"a multiple of {world_size * together}",
            fix="set global_batch_size" + (" or ghost_batch_size" if together > 1 else " or start fewer ranks"),
        )
    max_micro_batch_size = settings.runtime.max_micro_batch_size(STAGE, mean_length=1)
    if max_micro_batch_size < together:
        raise UserError(
            found=f"runtime.micro_batch_size.{STAGE}={max_micro_batch_size}",
            expected=f"room for a ghost batch of {together} images, which are normalized together",
            fix=f"set runtime.micro_batch_size.{STAGE} or ghost_batch_size",
        )
    ghost_batches = settings.global_batch_size // world_size // together
    plan = plan_batch(
        key="global_batch_size",
        global_batch_size=settings.global_batch_size,
        max_micro_batch_size=together * largest_divisor(ghost_batches, max_micro_batch_size // together),
        world_size=world_size,
        total_steps=total_steps,
        max_seq_length=1,
    )
    schedule = Schedule(
        total_steps, settings.peak_lr, settings.warmup_proportion, settings.decay_power, decay_end="after_last_step"
    )
    return Stage(STAGE, 0, plan, schedule, num_instances=num_images, heldout_kind="image_scores")
