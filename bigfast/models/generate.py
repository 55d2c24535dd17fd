"""Text from a decoder, one token at a time: greedy, or drawn after temperature, top-k and top-p."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..nn import Layout
from .cache import KVCache

if TYPE_CHECKING:
    from .gpt import GPTForCausalLM


@torch.no_grad()
def generate(
    model: "GPTForCausalLM",
    input_ids: Tensor | Sequence[Tensor],
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int = 100,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    eos_token_id: int | None = None,
    use_cache: bool = True,
) -> list[Tensor]:
    """Continue each prompt, with dropout off.

    Args:
        input_ids: prompts (B, S), padded anywhere where attention_mask (B, S) is 0; or a list of
            prompts (S_b), of any lengths. At least one token each.
        max_new_tokens: to add at most; with the longest prompt at most config.n_positions.
        do_sample: draw the next token; False takes the likeliest.
        temperature: > 0, divides the logits.
        top_k: only the k likeliest tokens.
        top_p: in (0, 1], only the likeliest tokens that together reach this probability
            (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020).
        generator: to draw from; default torch's.
        eos_token_id: ends a sequence; default config.eos_token_id.
        use_cache: keep keys and values; False runs the whole sequence for each token.

    Returns:
        B tensors (L_b): the prompt without padding, and what follows it, up to eos inclusive.

    Raises ValueError for prompts or settings that do not fit.
    """
    prompts = _prompts(input_ids, attention_mask)
    _check(prompts, max_new_tokens, model.config.n_positions)
    _check_sampling(do_sample, temperature, top_k, top_p)
    eos = model.config.eos_token_id if eos_token_id is None else eos_token_id
    device, batch = model.lm_head.weight.device, len(prompts)
    sequences = [prompt.to(device) for prompt in prompts]
    cache = None
    if use_cache:
        longest = max(map(len, prompts)) + max_new_tokens
        cache = KVCache(batch, longest, device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    new = sequences  # what the model has yet to see
    training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            logits = _next_logits(model, new, cache)
            if do_sample:
                probabilities = _restrict(logits / temperature, top_k, top_p).softmax(dim=-1)
                token = probabilities.multinomial(1, generator=generator)  # (B, 1)
            else:
                token = logits.argmax(dim=-1, keepdim=True)
            sequences = [
                sequence if stop else torch.cat((sequence, t))
                for sequence, t, stop in zip(sequences, token, done.tolist())
            ]
            if eos is not None:
                done |= token[:, 0] == eos
                if bool(done.all()):
                    break
            new = sequences if cache is None else list(token)
    finally:
        model.train(training)
    return sequences


def _next_logits(model: "GPTForCausalLM", new: list[Tensor], cache: KVCache | None) -> Tensor:
    """Logits (B, V), fp32 or wider, of the token after each sequence."""
    lengths = torch.tensor([0] + [len(tokens) for tokens in new], device=new[0].device)
    cu_seqlens = lengths.cumsum(0, dtype=torch.int32)
    packed = torch.cat(new)
    if cache is None:
        layout = Layout.of(packed, None, cu_seqlens)
    else:
        layout = cache.extend(cu_seqlens)
    x = model.transformer.run(packed, layout, cache)
    logits = model.lm_head(x.index_select(0, cu_seqlens[1:] - 1))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _restrict(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """logits (B, V) with -inf where top-k, then top-p, leave a token out."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ordered, index = logits.sort(dim=-1, descending=True)
        probability = ordered.softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability  # the likeliest token always stays
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.empty_like(logits).scatter_(-1, index, ordered)
    return logits


def _prompts(input_ids: Tensor | Sequence[Tensor], attention_mask: Tensor | None) -> list[Tensor]:
    if not isinstance(input_ids, Tensor):
        if attention_mask is not None:
            raise ValueError("attention_mask goes with input_ids (B, S), not with a list")
        return list(input_ids)
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be (B, S) or a list, got {tuple(input_ids.shape)}")
    if attention_mask is None:
        return list(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must have input_ids' shape {tuple(input_ids.shape)}, got "
            f"{tuple(attention_mask.shape)}"
        )
    return [tokens[mask] for tokens, mask in zip(input_ids, attention_mask.bool())]


def _check(prompts: list[Tensor], max_new_tokens: int, n_positions: int) -> None:
    if not prompts:
        raise ValueError("input_ids has no prompt")
    for i, prompt in enumerate(prompts):
        if prompt.ndim != 1 or len(prompt) == 0:
            raise ValueError(
                f"input_ids[{i}] must have one token or more, got {tuple(prompt.shape)}"
            )
    longest = max(map(len, prompts))
    if max_new_tokens < 1 or longest + max_new_tokens > n_positions:
        raise ValueError(
            f"max_new_tokens must be at least 1, and with the longest prompt ({longest}) at most "
            f"n_positions ({n_positions}); got {max_new_tokens}"
        )


def _check_sampling(
    do_sample: bool, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    if not do_sample and (temperature != 1 or top_k is not None or top_p is not None):
        raise ValueError("temperature, top_k and top_p need do_sample=True")
