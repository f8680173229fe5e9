"""`resca export drawbench OUT --to DIR`: finished images as ImageReward reads them, the judge of DrawBench's prompts.

It takes a list of prompts with ids, and images `ID_NUMBER.png` in a folder of the model's name, as many of each prompt
(test-benchmark.py of github.com/THUDM/ImageReward):

    python test-benchmark.py --prompts_path DIR/prompts.json --img_dir DIR/images --model resca \\
        --benchmark "ImageReward-v1.0, CLIP"
"""

import json

from jobs.commands.images import conclude, read_images
from jobs.driver.export import lay_out
from jobs.options.batch import DrawBenchOptions

MODEL = "resca"  # what ImageReward calls the folder's model


def run(options: DrawBenchOptions) -> int:
    """Lay the images out. Returns 3 if the batch is not done, images are missing, or of one prompt fewer; else 0.

    Raises:
        BadInput: nothing is finished, what is are videos, or the directory holds something else.
    """
    images = read_images(options.out, judge="ImageReward")
    titles = {f"{number:05d}": title for number, title in enumerate(images.by_title)}
    files = {
        f"images/{MODEL}/{number}_{index}.png": image
        for number, title in titles.items()
        for index, image in enumerate(images.by_title[title])
    }
    prompts = [{"id": number, "prompt": title} for number, title in titles.items()]
    lay_out(options.to, images.batch, files, {"prompts.json": json.dumps(prompts, indent=2) + "\n"})
    numbers = {len(each) for each in images.by_title.values()}
    uneven = f"{min(numbers)} to {max(numbers)} images a prompt: ImageReward takes as many of each"
    return conclude(images, len(files), options.to, [uneven] if len(numbers) > 1 else [])
