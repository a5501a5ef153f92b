"""The tiny models of the golden test, one or more per layout, no setting at its default.

Widths are odd on purpose (hidden 24, experts of 16 and 20, head widths that are not hidden /
heads), so that a transposed weight, a wrong norm or a forgotten option cannot give the right numbers
by accident.
"""

from transformers import MixtralConfig, OlmoeConfig, Qwen3MoeConfig

_COMMON = dict(
    hidden_size=24,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    router_aux_loss_coef=0.0,
    use_cache=False,
    pad_token_id=None,
    bos_token_id=None,
    eos_token_id=None,
)


def config_of(case):
    """The transformers configuration of a case."""
    return {
        "qwen3_moe": lambda: Qwen3MoeConfig(
            **_COMMON,
            vocab_size=80,
            num_hidden_layers=3,
            head_dim=8,
            intermediate_size=36,
            moe_intermediate_size=16,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        ),
        "qwen3_moe_tied": lambda: Qwen3MoeConfig(
            **_COMMON,
            vocab_size=72,
            num_hidden_layers=2,
            head_dim=10,
            intermediate_size=28,
            moe_intermediate_size=20,
            num_experts=5,
            num_experts_per_tok=3,
            norm_topk_prob=False,
            decoder_sparse_step=2,
            tie_word_embeddings=True,
            rms_norm_eps=1e-4,
            rope_parameters={"rope_type": "default", "rope_theta": 700.0},
        ),
        "olmoe": lambda: OlmoeConfig(
            **_COMMON,
            vocab_size=88,
            num_hidden_layers=2,
            intermediate_size=16,
            num_experts=7,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            rms_norm_eps=1e-4,
            rope_parameters={"rope_type": "default", "rope_theta": 3000.0},
        ),
        "mixtral": lambda: MixtralConfig(
            **_COMMON,
            vocab_size=76,
            num_hidden_layers=2,
            head_dim=10,
            intermediate_size=20,
            num_local_experts=5,
            num_experts_per_tok=3,
            rms_norm_eps=1e-4,
            rope_parameters={"rope_type": "default", "rope_theta": 2000.0},
        ),
    }[case]()


CASES = ("qwen3_moe", "qwen3_moe_tied", "olmoe", "mixtral")
