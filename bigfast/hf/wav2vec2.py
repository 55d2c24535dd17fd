"""wav2vec 2.0 of transformers: its stack of layers, with norms behind the residuals or before. The
features before it stay stock."""

from transformers.models.wav2vec2 import modeling_wav2vec2 as stock

from .attention import Attention
from .blocks import FeedForward
from .layers import PostNormLayer, PreNormLayer
from .stacks import AudioEncoder, AudioModel
from .swap import Family

_LAYER = {
    "dropout": "dropout", "norm": "layer_norm", "mlp": "feed_forward",
    "mlp_norm": "final_layer_norm",
}  # fmt: skip

# The loss of labelled frames counts those at padding too.
family = Family(stock, reads_padding=("Wav2Vec2ForAudioFrameClassification",))
family.keep("Wav2Vec2FeatureEncoder", "embeddings", "features are convolutions")
family.replace("Wav2Vec2Attention", "attention", Attention)
family.replace("Wav2Vec2EncoderLayer", "norm", PostNormLayer, **_LAYER)
family.replace(
    "Wav2Vec2EncoderLayerStableLayerNorm", "norm", PreNormLayer, **_LAYER,
    unless=("adapter_layer",),
)  # fmt: skip
family.replace(
    "Wav2Vec2FeedForward", "mlp", FeedForward, first="intermediate_dense",
    activation="intermediate_act_fn", inner_dropout="intermediate_dropout", second="output_dense",
    dropout="output_dropout",
)  # fmt: skip
family.replace("Wav2Vec2Model", "unpad", AudioModel)
family.replace("Wav2Vec2Encoder", "unpad", AudioEncoder)
family.replace("Wav2Vec2EncoderStableLayerNorm", "unpad", AudioEncoder, norm_first=False)
