"""`resca export fid OUT --to DIR`: finished images, numbered, in a folder that holds nothing else.

As what computes FID reads two folders of images, whatever their names (github.com/mseitzer/pytorch-fid):

    python -m pytorch_fid DIR/images REFERENCE
"""

from itertools import chain

from jobs.commands.images import conclude, read_images
from jobs.driver.export import lay_out
from jobs.options.batch import FidOptions


def run(options: FidOptions) -> int:
    """Lay the images out, in the order of their ids. Returns 3 if the batch is not done or images are missing; else 0.

    Raises:
        BadInput: nothing is finished, what is are videos, or the directory holds something else.
    """
    images = read_images(options.out, judge="FID")
    in_order = sorted(chain.from_iterable(images.by_title.values()), key=lambda image: image[1].id)
    files = {f"images/{number:06d}.png": image for number, image in enumerate(in_order)}
    lay_out(options.to, images.batch, files, {})
    return conclude(images, len(files), options.to)
