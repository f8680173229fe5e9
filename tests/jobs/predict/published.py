"""Seconds that others have published, to test predictions against; nothing is fitted to them but where it says so.

xDiT's docs/performance (hunyuanvideo.md, consisid.md) and PreciseCache (arXiv 2603.00976), whose GPUs its notes call
A800. In all of them each rank decodes every tile.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HunyuanTable:
    """HunyuanVideo by full sampling with 129 frames and 50 steps, Ulysses: seconds by the number of GPUs."""

    gpu: str
    link: str
    height: int
    width: int
    seconds: dict[int, float]


HUNYUAN_VIDEO = [
    HunyuanTable("h100", "nvlink", 720, 1280, {1: 1904.08, 2: 925.04, 4: 514.08, 8: 337.58}),
    HunyuanTable("h100", "nvlink", 960, 960, {1: 1735.01, 2: 934.09, 3: 645.45, 6: 367.02}),
    HunyuanTable("h20", "nvlink", 720, 1280, {1: 6639.17, 2: 3400.55, 4: 1762.86, 8: 940.97}),
    HunyuanTable("h20", "nvlink", 960, 960, {1: 6621.46, 2: 3400.55, 3: 2310.48, 6: 1214.67}),
    HunyuanTable("l20", "pcie", 720, 1280, {1: 6043.88, 2: 3271.44, 4: 2080.05}),
    HunyuanTable("l20", "pcie", 960, 960, {1: 6039.08, 2: 3260.62, 3: 2284.74}),
]
# Rows that are not met within 15%, by GPU, height and number of GPUs, with the reason.
UNMET_HUNYUAN_VIDEO = {
    ("l20", 720, 4): "from 3 GPUs to 4 each has a quarter less to compute, 490 s less, and sends a sixth less, but the "
    "table has 205 s less: PCIe between 4 GPUs of this machine is slower than between 3 (through a second switch or "
    "socket), and a profile has one figure for a link, whatever the number of GPUs"
}

# ConsisID (CogVideoX 5B with identities) at 720x480 with 49 frames and 50 steps on H100: (cfg, Ulysses, Ring).
CONSISID = {
    (1, 1, 1): 114.87,
    (1, 2, 1): 76.56,
    (1, 1, 2): 70.19,
    (2, 1, 1): 59.72,
    (1, 3, 1): 53.57,
    (1, 1, 3): 55.51,
    (2, 2, 1): 41.37,
    (2, 1, 2): 40.68,
    (1, 2, 3): 44.89,
    (1, 3, 2): 44.24,
    (2, 3, 1): 38.35,
    (2, 1, 3): 35.78,
}
# The document names no link. Ulysses 2 sends 460 GB, which over NVLink takes 1.5 s of the 19 s that it loses to half of
# the time on one GPU, so PCIe is taken. That choice is made by the row of Ulysses 2, which therefore proves nothing.
CONSISID_LINK = "pcie"
OF_THE_LINK = (1, 2, 1)
UNMET_CONSISID = {
    (1, 2, 3): "6 GPUs on PCIe, as with 4 L20",
    (1, 3, 2): "6 GPUs on PCIe, as with 4 L20",
}

# Wan 14B at 720p: seconds in full and with a cache by the number of GPUs.
PRECISE_CACHE = {1: (3326, 1330), 2: (1732, 753), 4: (907, 416), 8: (459, 229)}
