"""Predicted beside measured where two ranks share a video over links of some rates and delays.

make links    # python -m tests.jobs.measure.links --report out/links

A Ray of two nodes with a core each, the second in a namespace of its own: what its rank says to the first goes over
the link of `tests.link`. Ulysses, Ring and guidance in parallel render on all links in turns, one gang each.
Predictions are calibrated by one rank alone, and by probes over the link.
"""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from ray.cluster_utils import Cluster

from cluster.placement import GangSpec
from cluster.pool import open_pool
from jobs.console import make_console, print_rows
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.ranks import workload_of
from jobs.driver.ray import running_ray
from jobs.machine import describe_run
from jobs.measure.scaling.compare import measure, read_layouts, render_options, warm_up
from jobs.measure.scaling.predicted import predict
from jobs.measure.scaling.report import Row, link_rows, make_rows, write_report
from jobs.measure.scaling.session import Measured
from jobs.measure.scaling.times import Case, Listener, Times
from jobs.options.scaling import ScalingOptions
from jobs.options.shared import VideoOptions
from parallel.layout import Layout
from tests.cluster.node_in import node_in
from tests.link import FAR, NAMESPACE, Link, linked_namespace

GBIT = 1e9 / 8
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
ALONE = Layout()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Of a link, in each direction."""

    bytes_per_s: float
    delay_s: float = 0.0


LINKS = {
    "10 Gbit/s": Rate(bytes_per_s=10 * GBIT),
    "1 Gbit/s": Rate(bytes_per_s=GBIT),
    "2 ms": Rate(bytes_per_s=10 * GBIT, delay_s=0.002),
}


@dataclass(kw_only=True)
class Links:
    """What to render, and how often. Two passes a step, so that guidance can be in parallel."""

    report: Path = Path("out/links")
    """Directory for rows, probes and curves, a folder a link."""
    layouts: str = "2x1,1x2,cfg2"
    """Of two ranks each."""
    rounds: int = 2
    """How often each link has its turn; one rank alone has its own before and behind all others."""
    num: int = 2
    """Videos of a turn."""
    model: str = "demo"
    """A model."""
    method: str = "auto"
    """A method."""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(
        default_factory=lambda: VideoOptions(true_cfg_scale=4.0, negative_prompt="a blurred picture")
    )

    def options(self) -> ScalingOptions:
        """As `resca scaling` takes them."""
        return ScalingOptions(model=self.model, method=self.method, video=self.video, num=self.num)


def main(links: Links) -> int:
    console = make_console()
    with _two_nodes() as link, tempfile.TemporaryDirectory(prefix="resca-links-") as folder:
        alone, found = Times(case=Case(layout=ALONE)), {name: [] for name in LINKS}
        plan = _play(links, Path(folder), link, alone.case.layout, {"alone": alone})
        for layout in read_layouts(links.layouts):
            times = {name: Times(case=Case(layout=layout)) for name in LINKS}
            _play(links, Path(folder), link, layout, times)
            for name, each in times.items():
                found[name].append(each)
                expected = predict(plan, [alone, each], on_gpus=False)[each.case].seconds
                told = f"{each.case.name}, {name}: {each.median_s:.3g} s a video, predicted {expected:.3g}"
                console.print(told, soft_wrap=True)
        _play(links, Path(folder), link, alone.case.layout, {"alone": alone})
    rows: list[Row] = []
    about = describe_run([]) | {"command": shlex.join(["python", "-m", "tests.jobs.measure.links", *sys.argv[1:]])}
    for name, times in found.items():
        predicted = predict(plan, [alone, *times], on_gpus=False)
        rows += [{"link": name, **row} for row in make_rows([alone, *times], predicted)]
        write_report(links.report / name.replace("/", " per "), [alone, *times], predicted, about)
        print_rows(console, link_rows(times))
    print_rows(console, rows)
    return 0


@contextmanager
def _two_nodes() -> Iterator[Link]:
    """A running Ray with a core on each side of a link."""
    with ExitStack() as stack:
        head = {**NODE, "num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        cluster.add_node(**NODE)
        link = stack.enter_context(linked_namespace())
        stack.enter_context(node_in(NAMESPACE, FAR, cluster))
        stack.enter_context(running_ray(cluster.address))
        yield link


def _play(links: Links, folder: Path, link: Link, layout: Layout, times: Mapping[str, Times]) -> Plan:
    """One gang, which renders on each link in turns; a Ulysses group, too, lies on both sides."""
    options, case = links.options(), Case(layout=layout)
    spec = GangSpec(world_size=layout.world_size)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        plan = make_plan(render_options(options, layout, out))
        workload, listener = Measured(workload=workload_of(plan, layout)), Listener(case.name)
        link.set()
        with open_pool(spec=spec, gangs=1, workload=workload, on_event=listener) as pool:
            warm_up(pool, listener, plan, 1)
            for _ in range(1 if layout == ALONE else links.rounds):
                for name, each in times.items():
                    rate = LINKS.get(name)
                    link.set(**vars(rate)) if rate else link.set()
                    measure(pool, listener, plan, each, num=links.num, with_small=layout == ALONE)
    return plan


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Links)))
