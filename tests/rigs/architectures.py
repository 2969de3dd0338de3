"""Architectures of transformers and PyTorch, small and with random weights, by their configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]  # a model and one call of it
WORDS, LENGTH, SIDE = 100, 12, 64
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
CNN = {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1]}
SOUND = {
    "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SEGFORMER = {
    "hidden_sizes": [16, 32, 40, 64], "num_attention_heads": [1, 2, 4, 4], "depths": [1] * 4,
    "decoder_hidden_size": 32,
}  # fmt: skip


def words() -> Tensor:
    return torch.randint(0, WORDS, (1, LENGTH))


def mask() -> dict[str, Tensor]:
    return {"attention_mask": torch.ones(1, LENGTH, dtype=torch.long)}


def of_words(model: str, config: str, **options: Any) -> Callable[[Any], Made]:
    def made(t: Any) -> Made:
        sized = getattr(t, config)(vocab_size=WORDS, **options)
        return getattr(t, model)(sized), (words(),), mask()

    return made


def of_pictures(model: str, config: str, side: int = SIDE, **options: Any) -> Callable[[Any], Made]:
    def made(t: Any) -> Made:
        return (
            getattr(t, model)(getattr(t, config)(**options)),
            (torch.randn(1, 3, side, side),),
            {},
        )

    return made


def of_sound(model: str, config: str, **options: Any) -> Callable[[Any], Made]:
    def made(t: Any) -> Made:
        return getattr(t, model)(getattr(t, config)(**options)), (torch.randn(1, 4000),), {}

    return made


def bert(t: Any) -> Made:
    model = t.BertModel(t.BertConfig(vocab_size=WORDS, **SMALL))
    kinds = torch.zeros(1, LENGTH, dtype=torch.long)
    return model, (), {"input_ids": words(), "token_type_ids": kinds} | mask()


def whisper(t: Any) -> Made:
    config = t.WhisperConfig(
        vocab_size=WORDS, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return t.WhisperModel(config).encoder, (torch.randn(1, 80, 100),), {}


def detr(t: Any) -> Made:
    config = t.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=t.ResNetConfig(**CNN, out_features=["stage4"]), d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10,
    )  # fmt: skip
    pixels = {"pixel_mask": torch.ones(1, SIDE, SIDE, dtype=torch.long)}
    return t.DetrForObjectDetection(config), (torch.randn(1, 3, SIDE, SIDE),), pixels


def encoder(_: Any) -> Made:
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    return (
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        (torch.randn(1, 10, 32),),
        {},
    )


VIT = {"image_size": SIDE, "patch_size": 16, **SMALL}
SWIN = {
    "image_size": SIDE, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
    "window_size": 4,
}  # fmt: skip
CAUSAL = {"use_cache": False}
ARCHITECTURES: dict[str, Callable[[Any], Made]] = {
    "ALBERT": of_words("AlbertModel", "AlbertConfig", embedding_size=16, **SMALL),
    "BEiT": of_pictures(
        "BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, **VIT
    ),
    "BERT": bert,
    "CLIP's text encoder": of_words(
        "CLIPTextModel", "CLIPTextConfig", eos_token_id=99, bos_token_id=98, pad_token_id=1, **SMALL
    ),
    "CLIP's image encoder": of_pictures("CLIPVisionModel", "CLIPVisionConfig", **VIT),
    "ConvNeXt": of_pictures(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 2, 1],
    ),
    "ConvNeXt V2": of_pictures(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 2, 1],
    ),
    "DeBERTa V2": of_words(
        "DebertaV2Model", "DebertaV2Config", relative_attention=True,
        pos_att_type=["p2c", "c2p"], **SMALL,
    ),
    "DeiT": of_pictures("DeiTForImageClassification", "DeiTConfig", **VIT),
    "DETR": detr,
    "DINOv2": of_pictures(
        "Dinov2Model", "Dinov2Config", 56, image_size=56, patch_size=14, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2,
    ),
    "DistilBERT": of_words(
        "DistilBertForSequenceClassification", "DistilBertConfig", dim=32, n_layers=2, n_heads=2,
        hidden_dim=64,
    ),
    "EfficientNet": of_pictures(
        "EfficientNetForImageClassification", "EfficientNetConfig", image_size=SIDE,
        width_coefficient=0.5, depth_coefficient=0.3, hidden_dim=640,
    ),
    "ELECTRA": of_words("ElectraModel", "ElectraConfig", embedding_size=16, **SMALL),
    "GPT-2": of_words(
        "GPT2ForSequenceClassification", "GPT2Config", n_embd=32, n_layer=2, n_head=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **CAUSAL,
    ),
    "HuBERT": of_sound("HubertModel", "HubertConfig", **SOUND, **SMALL),
    "LeViT": of_pictures(
        "LevitForImageClassification", "LevitConfig", image_size=SIDE, hidden_sizes=[32, 48, 64],
        num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8],
    ),
    "Llama": of_words("LlamaForCausalLM", "LlamaConfig", **CAUSAL, **SMALL),
    "MobileNet V1": of_pictures(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", image_size=SIDE
    ),
    "MobileNet V2": of_pictures(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", image_size=SIDE
    ),
    "MobileViT": of_pictures("MobileViTForImageClassification", "MobileViTConfig", image_size=SIDE),
    "MPNet": of_words("MPNetModel", "MPNetConfig", **SMALL),
    "PoolFormer": of_pictures(
        "PoolFormerForImageClassification", "PoolFormerConfig", hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
    ),
    "RegNet": of_pictures(
        "RegNetForImageClassification", "RegNetConfig", groups_width=8, **CNN
    ),
    "ResNet": of_pictures("ResNetForImageClassification", "ResNetConfig", **CNN),
    "RoBERTa": of_words("RobertaForSequenceClassification", "RobertaConfig", **SMALL),
    "SegFormer": of_pictures(
        "SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER
    ),
    "Swin": of_pictures("SwinForImageClassification", "SwinConfig", **SWIN),
    "Swin V2": of_pictures("Swinv2ForImageClassification", "Swinv2Config", **SWIN),
    "T5's encoder": of_words(
        "T5EncoderModel", "T5Config", d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
    ),
    "torch.nn.TransformerEncoder": encoder,
    "ViT": of_pictures("ViTForImageClassification", "ViTConfig", **VIT),
    "Wav2Vec2": of_sound("Wav2Vec2ForCTC", "Wav2Vec2Config", vocab_size=32, **SOUND, **SMALL),
    "Whisper's encoder": whisper,
    "YOLOS": of_pictures(
        "YolosForObjectDetection", "YolosConfig", num_detection_tokens=5,
        **(VIT | {"image_size": [SIDE, SIDE]}),
    ),
}  # fmt: skip
QUICK = ("BERT", "Swin", "ResNet", "Llama")  # without the mark slow
