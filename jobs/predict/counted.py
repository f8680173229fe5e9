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
    "hunyuanvideo-1.5": WeightBytes(
        transformers=(16_653_216_320,), text=14_579_868_160, vae=2_521_268_230, gathered=2_257_202_912
    ),
    "wan": WeightBytes(transformers=(28_576_983_168,), text=11_361_820_672, vae=507_570_124, gathered=4_435_596_352),
    "wan2.2": WeightBytes(
        transformers=(28_576_983_168,) * 2, text=11_361_820_672, vae=507_570_124, gathered=4_435_596_352
    ),
    "wan2.2-ti2v": WeightBytes(
        transformers=(9_999_575_424,), text=11_361_820_672, vae=2_818_754_672, gathered=4_292_287_680
    ),
}

# Bytes of a denoising loop on the fullest rank, beside the weights: at one size on one rank and on several, and at a
# smaller size on one. By model and method, of 50 steps; tokens of the video, ranks, bytes.
LoopPoint = tuple[int, int, int]
Loops = dict[str, tuple[LoopPoint, LoopPoint, LoopPoint]]
OF_WAN: Loops = {  # of 2.1 and 2.2 A14B, whose transformers are alike and run one after the other
    "full": ((75_600, 1, 20_260_118_532), (75_600, 8, 2_648_342_532), (14_040, 1, 3_799_467_012)),
    "auto": ((75_600, 1, 20_337_532_932), (75_600, 8, 2_658_019_332), (14_040, 1, 3_813_843_972)),
    "resca": ((75_600, 1, 26_822_122_036), (75_600, 8, 6_556_495_768), (14_040, 1, 7_744_410_116)),
}
LOOPS: dict[str, Loops] = {
    "wan": OF_WAN,
    "wan2.2": OF_WAN,
    "wan2.2-ti2v": {
        "full": ((27_280, 1, 7_611_302_464), (27_280, 8, 1_011_629_384), (3_520, 1, 1_008_588_544)),
        "auto": ((27_280, 1, 7_695_106_624), (27_280, 8, 1_022_104_904), (3_520, 1, 1_019_401_984)),
    },
    "hunyuanvideo-1.5": {
        "full": ((111_600, 1, 6_577_303_524), (111_600, 8, 977_661_924), (19_200, 1, 1_172_088_324)),
        "auto": ((111_600, 1, 6_634_442_724), (111_600, 8, 984_804_324), (19_200, 1, 1_181_918_724)),
    },
    "hunyuanvideo": {
        "full": ((118_800, 1, 14_755_997_700), (118_800, 8, 1_982_621_700), (20_400, 1, 2_551_248_900)),
        "auto": ((118_800, 1, 14_816_823_300), (118_800, 8, 1_990_224_900), (20_400, 1, 2_561_693_700)),
        "resca": ((118_800, 1, 18_143_701_932), (118_800, 8, 4_340_344_374), (20_400, 1, 4_714_058_876)),
    },
}
