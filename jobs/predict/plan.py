"""What `resca plan --gpus` was asked, and its answer as rows."""

import math
from dataclasses import dataclass

from jobs.errors import BadInput
from jobs.models.family import MOST
from jobs.models.full_size import FULL_SIZE
from jobs.options.capacity import CapacityOptions
from jobs.options.shared import MethodOptions
from jobs.predict.calibrate import calibrated
from jobs.predict.capacity import AIMS, Split, best, candidates, layouts, row_of, splits
from jobs.predict.gpus import GPUS, profile
from jobs.predict.memory import GIB, Keeping, keepings, need_bytes
from jobs.predict.profile import Profile
from jobs.predict.seconds import Setup
from jobs.predict.shape import ModelShape, Video, shape_of, video_of
from jobs.request.checks import check_count
from jobs.request.recipes import resolve_method
from parallel.layout import Layout

MOST_GPUS = 65_536
MOST_VIDEOS = 1_000_000
UNMEASURED = "no figure of this was measured on GPUs"
Row = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be predicted: videos of some methods, on some numbers of GPUs."""

    shape: ModelShape
    videos: list[Video]
    profile: Profile
    num_gpus: list[int]
    price: float | None
    is_calibrated: bool
    num_videos: int | None = None
    """Of a batch that is simulated; None for none."""
    loss_hours: float | None = None

    @property
    def words(self) -> str:
        """In one line."""
        one = self.videos[0]
        size = f"{one.height}x{one.width}x{one.num_frames}, {one.steps} steps"
        return f"{self.shape.name} at {size} on {self.profile.words}; {UNMEASURED}"

    @property
    def notes(self) -> list[str]:
        """What has to be known beside the table."""
        unknown = [video.method.name for video in self.videos if self._need(video) is None]
        notes = [f"memory of {', '.join(unknown)} is not counted here and nothing is refused: see resca memory"]
        rates = "calibrated" if self.is_calibrated else "published and assumed"
        basis = f"seconds rest on {rates} rates, and lie between `from` and `to` as far as these may be wrong"
        return [*(notes if unknown else []), basis]

    def _need(self, video: Video) -> float | None:
        return need_bytes(self.shape.name, video, Layout(), Keeping())


def read_question(options: CapacityOptions) -> Question:
    """Raises BadInput for what is not known or makes no sense."""
    shape = shape_of(options.model)
    if shape.name not in FULL_SIZE and options.calibrate is None:
        raise BadInput(f"how fast {options.model} decodes is not known: give --calibrate with finished videos of it")
    _check_numbers(options)
    link = options.link or ("nvlink" if options.gpu in GPUS and GPUS[options.gpu].nvlink_bytes_per_s else "pcie")
    on = profile(options.gpu, link, options.network, options.gpus_per_node)
    return Question(
        shape=shape,
        videos=_videos(options, shape),
        profile=calibrated(on, shape, options.calibrate) if options.calibrate else on,
        num_gpus=_numbers(options.gpus),
        price=options.price,
        is_calibrated=options.calibrate is not None,
        num_videos=options.videos,
        loss_hours=options.loss_hours,
    )


def _check_numbers(options: CapacityOptions) -> None:
    most = {**MOST, "gpus_per_node": MOST_GPUS, "videos": MOST_VIDEOS}
    for name in ("steps", "height", "width", "num_frames", "gpus_per_node", "videos"):
        if getattr(options, name) is not None:
            check_count(name, getattr(options, name), most[name])
    for name in ("price", "loss_hours"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise BadInput(f"--{name.replace('_', '-')} must be a number above 0, not {value}")
    if options.loss_hours is not None and options.videos is None:
        raise BadInput("--loss-hours is of a batch that is simulated: say by --videos of how many")


def _numbers(given: str) -> list[int]:
    try:
        numbers = sorted({int(number) for number in given.split(",")})
    except ValueError as error:
        raise BadInput(f"--gpus takes numbers separated by commas, such as 1,8,64, not {given}") from error
    for number in numbers:
        check_count("gpus", number, MOST_GPUS)
    return numbers


def _videos(options: CapacityOptions, shape: ModelShape) -> list[Video]:
    names = [name.strip() for name in options.method.split(",") if name.strip()]
    if not names:
        raise BadInput("--method names no method; give some, separated by commas")
    asked = {
        name: getattr(options, name) or default
        for name, default in zip(("height", "width", "num_frames"), shape.size, strict=True)
    }
    methods = [resolve_method(name, MethodOptions(), cross_attention=shape.cross_attention) for name in names]
    videos = [video_of(shape, method, steps=options.steps, **asked) for method in methods]
    for video in videos:
        Setup(shape=shape, video=video).check()
    return videos


def make_rows(question: Question) -> list[Row]:
    """One a method, number of GPUs and aim; where nothing fits, one that says so."""
    rows: list[Row] = []
    profile, price = question.profile, question.price
    for video in question.videos:
        of = list(candidates(question.shape, video, profile, max(question.num_gpus)))
        for number in question.num_gpus:
            possible = splits(of, number, profile.ranks_per_node)
            if not possible:
                rows.append({"method": video.method.name, "gpus": number, "options": _refusal(question, video, number)})
            for aim in AIMS if possible else ():
                split = best(possible, aim)
                batch = _batch(question, split, number) if aim == "throughput" else {}
                rows.append(row_of(split, profile, number, aim, price) | batch)
    return rows


def _batch(question: Question, split: Split, number: int) -> Row:
    """What is added of the batch that is simulated, if any."""
    if question.num_videos is None:
        return {}
    from jobs.predict.batch import batch_columns, batch_of  # with Ray, which takes a second

    return batch_columns(batch_of(split, question.profile, number, question.num_videos, question.loss_hours))


def _refusal(question: Question, video: Video, number: int) -> str:
    """What the least demanding layout would need."""
    shape, has = question.shape, question.profile.memory_bytes / GIB
    tried = layouts(shape, video, number, question.profile.ranks_per_node)
    needs = [need_bytes(shape.name, video, each, keeping) for each in tried for keeping in keepings(each)]
    least = min(need for need in needs if need is not None) / GIB
    return f"does not fit: at least {least:.1f} GiB of {has:g}"
