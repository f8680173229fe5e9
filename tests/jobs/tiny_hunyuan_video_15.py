"""A HunyuanVideo 1.5 pipeline of random weights, small enough for tests: guided, or distilled for one pass a step."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
)

TEXT_WIDTH, GLYPH_WIDTH = 16, 8
WORDS = ["a", "cat", "walks", "on", "grass", "blurry", '"sign"', '"grass"']
SIZE = {"height": 64, "width": 96, "num_frames": 9}  # 3 x 4 x 6 = 72 tokens
# 108 tokens come before the prompt, which the pipeline leaves out, and 5 after it, as with Qwen's template.
TEMPLATE = "{{ '<s> ' * 108 }}{{ messages[1]['content'] }}{{ ' </s>' * 5 }}"


def build_tiny_hunyuan_video_15(**guidance: Any) -> HunyuanVideo15Pipeline:
    """16 x 16 x 4 compression, 4 latent channels, 2 heads; `guidance` is the guider's."""
    torch.manual_seed(0)
    make: Any = HunyuanVideo15Pipeline
    pipeline = make(
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        transformer=_transformer(),
        vae=_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=_glyph_encoder(),
        tokenizer_2=ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(**{"guidance_scale": 6.0, **guidance}),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_hunyuan_video_15(directory: Path, **guidance: Any) -> Path:
    build_tiny_hunyuan_video_15(**guidance).save_pretrained(directory)
    return directory


def _transformer() -> HunyuanVideo15Transformer3DModel:
    """Weights of a size that makes every block matter."""
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=GLYPH_WIDTH,
        image_embed_dim=6,
        rope_axes_dim=(4, 4, 4),
        task_type="t2v",
    )
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer.eval()


def _vae() -> AutoencoderKLHunyuanVideo15:
    channels: Any = (8, 8, 8, 8, 8)  # which diffusers declares as one
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=channels, layers_per_block=1, scaling_factor=0.8
    ).eval()


def _text_encoder() -> Qwen2_5_VLTextModel:
    make: Any = Qwen2_5_VLTextConfig  # what it has of old is not declared
    config = make(
        vocab_size=4 + len(WORDS),
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen2_5_VLTextModel(config).eval()


def _glyph_encoder() -> T5EncoderModel:
    config = T5Config(vocab_size=384, d_model=GLYPH_WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
        chat_template=TEMPLATE,
    )
