"""Shapes of the models whose training is measured: `pipeline` gets them as GGUF files, transformers as configurations, both
with random weights. A step takes the same time whatever the weights are."""

SHAPES = {
    "260k": dict(architecture="llama", hidden=64, feed_forward=172, layers=5, heads=8, key_heads=4, vocabulary=512, theta=1e4),
    "135m": dict(architecture="llama", hidden=576, feed_forward=1536, layers=30, heads=9, key_heads=3, vocabulary=49152, theta=1e4),
    "0.5b": dict(architecture="qwen2", hidden=896, feed_forward=4864, layers=24, heads=14, key_heads=2, vocabulary=151936, theta=1e6),
    "1b": dict(architecture="llama", hidden=2048, feed_forward=8192, layers=16, heads=32, key_heads=8, vocabulary=128256, theta=5e5),
}
CONTEXT = 8192
EPSILON = 1e-5


def matmul_weights(shape):
    """Weights that each token is multiplied with: the linear layers and the head, not the table of embeddings."""
    hidden, width = shape["hidden"], shape["hidden"] // shape["heads"]
    attention = 2 * hidden * hidden + 2 * hidden * width * shape["key_heads"]
    return shape["layers"] * (attention + 3 * hidden * shape["feed_forward"]) + hidden * shape["vocabulary"]


def operations_a_token(shape):
    """Useful operations of training updates beside frozen weights: forward, and the gradient of what goes in; 2 each a weight.
    The products of attention and of the updates come on top, and are left out on both sides."""
    return 4 * matmul_weights(shape)
