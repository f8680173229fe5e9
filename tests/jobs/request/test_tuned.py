"""What a tuned plan says of itself, against what is asked for."""

import pytest
import yaml

from jobs.errors import BadInput
from jobs.models.facts import read_facts
from jobs.options.shared import VideoOptions
from jobs.request.checks import defaults_for
from jobs.request.guidance import guides_for
from jobs.request.prompts import read_items
from jobs.request.recipes import read_recipe, read_tuned
from jobs.request.tuned import BLOCK, Circumstances, Promise, Tuned, circumstances, compare

PROMISE = Promise(prompts=16, mean_db=50.0, give_or_take_db=1.0, tenth_db=46.0, worst_db=44.0)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Circumstances:
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b", "num_frames": 17}\n')
    facts, video = read_facts("demo"), VideoOptions()
    return circumstances(facts, read_items(prompts, defaults_for(facts, video)), guides_for(facts, video), "auto")


def tuned(asked: Circumstances, **changes: object) -> Tuned:
    return Tuned(**{**dict(asked), **changes}, calibrated_on=16, promise=PROMISE, auto=PROMISE)


def test_what_is_asked_of_the_demo_model(asked):
    assert asked.scheduler == "FlowMatchEulerDiscreteScheduler" and (asked.shift, asked.steps) == (7.0, 50)
    assert asked.sizes == ["128x128x17", "128x128x41"] and asked.dtype == "float32"


def test_what_it_was_made_for_goes_without_a_word(asked):
    assert compare(tuned(asked), "auto-9", asked) is None
    assert compare(tuned(asked, model="/elsewhere/demo"), "auto-9", asked) is None  # the same weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revision": "other", "model": "mine"}, "model mine"),
        ({"revision": "other"}, "model demo as it was"),
        ({"sizes": ["64x64x9"]}, "size 64x64x9 and not 128x128x17, 128x128x41"),
        ({"shift": 3.0}, "shift 3.0 and not 7.0"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 and not float32"),
        ({"guides": {"guidance": 1.0}}, "guidance 1.0 and not 6.0"),
    ],
)
def test_what_was_not_tried_is_told(asked, change, said):
    told = compare(tuned(asked, **change), "auto-9", asked)
    assert told == f"the plan auto-9 was tuned with {said}: what it promises was not tried there"


@pytest.mark.parametrize("change", [{"steps": 30}, {"scheduler": "UniPCMultistepScheduler"}, {"transformers": 2}])
def test_what_contradicts_it_is_refused(asked, change):
    [(what, value)] = change.items()
    with pytest.raises(BadInput, match=f"was made for {what} {value}, not"):
        compare(tuned(asked, **change), "auto-9", asked)


def test_a_shift_moves_the_step_at_which_the_second_transformer_takes_over(asked):
    two = asked.model_copy(update={"transformers": 2})
    assert compare(tuned(two), "auto-9", two) is None
    with pytest.raises(BadInput, match=r"was made for shift 3\.0, not 7\.0"):
        compare(tuned(two, shift=3.0), "auto-9", two)


def test_it_stands_beside_the_recipe(asked, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", BLOCK: tuned(asked).model_dump()}))
    assert read_tuned(file) == tuned(asked) and read_recipe(file).name == "mine"
    file.write_text(yaml.safe_dump({"name": "mine", BLOCK: {"model": "demo"}}))
    with pytest.raises(BadInput, match=r"tuned\.revision: Field required"):
        read_tuned(file)
    file.write_text("name: mine\n")
    assert read_tuned(file) is None and read_recipe(file).name == "mine"
