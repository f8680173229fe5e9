"""What has been counted of full-size models on the meta device, so that predicting needs neither torch nor time.

`tests/jobs/predict/test_counted.py` counts it again.
"""

from dataclasses import dataclass

# FLOPs of a pixel of a tile's frames, by the decoder of each model's VAE.
DECODE_FLOPS = {
    "hunyuanvideo": 1.7537e7,
    "hunyuanvideo-1.5": 2.5028e7,
    "wan": 8.4797e6,
    "wan2.2": 8.4797e6,
    "wan2.2-ti2v": 1.8449e7,
}


@dataclass(frozen=True, kw_only=True)
class WeightBytes:
    """In the number formats in which they are loaded; `gathered` come on top where they are split over ranks."""

    transformers: tuple[int, ...]
    text: int
    vae: int
    gathered: int


WEIGHTS = {
    "hunyuanvideo": WeightBytes(
        transformers=(25_642_025_088,), text=15_256_494_528, vae=492_957_606, gathered=2_255_424_968
    ),
}

# Bytes of a denoising loop on the fullest rank, beside the weights: at one size on one rank and on several, and at a
# smaller size on one. By model and method, of 50 steps; tokens of the video, ranks, bytes.
LoopPoint = tuple[int, int, int]
LOOPS: dict[str, dict[str, tuple[LoopPoint, LoopPoint, LoopPoint]]] = {
    "hunyuanvideo": {
        "full": ((118_800, 1, 14_755_997_700), (118_800, 8, 1_982_621_700), (20_400, 1, 2_551_248_900)),
        "auto": ((118_800, 1, 14_816_823_300), (118_800, 8, 1_990_224_900), (20_400, 1, 2_561_693_700)),
        "resca": ((118_800, 1, 18_143_701_932), (118_800, 8, 4_340_344_374), (20_400, 1, 4_714_058_876)),
    },
}
