"""Language modelling heads in training: labelled tokens alone go through them, without logits.

By default that is what a head does in training mode with labels; `skip_logits=False` keeps the
logits, `skip_logits=True` does without them in eval mode too.
"""

import inspect
import types

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    MaskedLMOutput,
    Seq2SeqLMOutput,
)

from .. import ops
from ..nn import IGNORED
from .parts import hooked, why_no_kernel, why_not_plain
from .swap import Body


class MaskedLM(Body):
    """A model of a base and a head with one label per token.

    `base` is a submodule, or the class whose forward is this model's without the head. `decoder` is
    the head's last layer, from features to logits, or a table of embeddings; `bias` what is added
    to the logits, if that is not the decoder's own; `features` are what comes before it and are
    called, submodules by name or functions; the modules `through` which they are found are not
    called. `output` is the class of the result. `variant` gives the names that depend on the
    module, `unless` why its loss is another.
    """

    names = {
        "base": None, "decoder": None, "bias": None, "features": (), "through": (),
        "output": MaskedLMOutput, "variant": lambda module: {}, "unless": lambda module: None,
    }  # fmt: skip
    not_for_base: tuple[str, ...] = ("labels",)
    differs = ("in training with labels, logits is None; skip_logits=False keeps them",)

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        at = cls.parts(module)
        for name in at.through:
            part = module.get_submodule(name)
            if type(part).__module__ != cls.__module__:
                return f"{name} is a {type(part).__name__}"
            if hooked(part):
                return f"{name} has hooks"
        # Some heads take the user's loss function, the others know none.
        if cls._counts_items() and module.loss_function not in (ForMaskedLMLoss, ForCausalLMLoss):
            return "loss_function may compute something else"
        is_table = isinstance(module.get_submodule(at.decoder), nn.Embedding)
        kind = nn.Embedding if is_table else nn.Linear
        return (
            at.unless(module)
            or why_not_plain(module, kind, at.decoder)
            or why_no_kernel(module, "linear_cross_entropy")
        )

    @classmethod
    def parts(cls, module: nn.Module) -> types.SimpleNamespace:
        """The names of this module."""
        return types.SimpleNamespace(**vars(cls.at) | cls.at.variant(module))

    @classmethod
    def _counts_items(cls) -> bool:
        """Whether stock's loss is that of `loss_function`, which honours num_items_in_batch."""
        return "loss_function" in inspect.unwrap(cls._bigfast_stock.forward).__code__.co_names

    def forward(self, *args, **kwargs):
        call = self.arguments(args, kwargs)
        skip_logits = call.pop("skip_logits", None)
        if skip_logits and call.get("labels") is None:
            raise ValueError("skip_logits=True needs labels: without them only logits are computed")
        skips = self.training if skip_logits is None else skip_logits
        if not skips or not self._has_loss(call) or self.why_not(self):
            if call.get("packed") and call.get("labels") is not None:
                raise ValueError("packed=True gives labels no logits: pass skip_logits=True")
            return super().forward(**call)
        mine = {name: call.pop(name, None) for name in self.not_for_base}
        return_dict = call.pop("return_dict", None)
        if return_dict is None:
            return_dict = self.config.return_dict
        result = self._train(call | {"return_dict": True}, **mine)
        return result if return_dict else result.to_tuple()

    def _has_loss(self, call: dict) -> bool:
        return call.get("labels") is not None and "ignore_index" not in call

    def _train(self, call: dict, labels: Tensor):
        outputs = self._run_base(**call)
        states = outputs.last_hidden_state
        loss = self._loss(states, _packed(labels, states, call), call.get("num_items_in_batch"))
        return self._result(outputs, loss=loss)

    def _run_base(self, **call):
        base = self.at.base
        if isinstance(base, type):
            return base.forward(self, **call)
        return self.get_submodule(base)(**call)

    def _loss(self, x: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
        """Cross entropy of the labelled tokens of x (B, S, N), labels (B, S); their mean, or their
        sum over `num_items`."""
        labels = labels.reshape(-1)
        rows = (labels != IGNORED).nonzero().squeeze(1)
        x, at = x.flatten(0, 1).index_select(0, rows), self.parts(self)
        for step in at.features:
            x = self.get_submodule(step)(x) if isinstance(step, str) else step(x)
        decoder = self.get_submodule(at.decoder)
        if at.bias is None:
            bias = decoder.bias
        else:
            owner, _, name = at.bias.rpartition(".")
            bias = getattr(self.get_submodule(owner), name).flatten()
        return ops.linear_cross_entropy(
            x, decoder.weight, labels.index_select(0, rows), linear_bias=bias,
            num_items=num_items if self._counts_items() else None,
        )  # fmt: skip

    def _result(self, outputs, **values):
        """The head's output: `values`, and what it takes over from the base's."""
        fields = self.at.output.__dataclass_fields__.keys() - values.keys()
        return self.at.output(**values, **{k: v for k, v in outputs.items() if k in fields})


def _packed(labels: Tensor, states: Tensor, call: dict) -> Tensor:
    """Labels (B, S) as the base model's outputs, `states`, are."""
    if not call.get("packed"):
        return labels
    mask = call.get("attention_mask")
    labels = labels if mask is None else labels[mask.bool()]
    if states.shape[:2].numel() != labels.numel():
        raise ValueError("packed=True needs the fusion unpad, without which this model is swapped")
    return labels


class CausalLM(MaskedLM):
    """A head whose labels are those of the next token, and whose base may have a cache. `shifts`:
    labels are the tokens themselves, not the next ones already."""

    names = MaskedLM.names | {"output": CausalLMOutputWithPast, "shifts": True}
    differs = (
        *MaskedLM.differs,
        "behind padding on its left, a label of the first real token is predicted from a zero",
    )
    not_for_base = ("labels", "logits_to_keep")

    def _has_loss(self, call: dict) -> bool:
        keeps = call.get("logits_to_keep", 0)
        every = isinstance(keeps, int) and keeps == 0
        return super()._has_loss(call) and every

    def _train(self, call: dict, labels: Tensor, logits_to_keep: int | None):
        shifted = call.get("shift_labels") if self.at.shifts else labels
        if shifted is None:
            shifted = F.pad(labels[..., 1:], (0, 1), value=IGNORED)
        return super()._train({"use_cache": False} | call, shifted)


class Seq2SeqLM(MaskedLM):
    """An encoder-decoder, whose decoder reads the labels one step late if it is given nothing to
    read; `scale` is that of its features."""

    names = MaskedLM.names | {"output": Seq2SeqLMOutput, "scale": lambda module: 1.0}

    def _train(self, call: dict, labels: Tensor):
        if call.get("decoder_input_ids") is None and call.get("decoder_inputs_embeds") is None:
            call["decoder_input_ids"] = self.prepare_decoder_input_ids_from_labels(labels)
        return super()._train({"use_cache": False} | call, labels)

    def _loss(self, x: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
        scale = self.at.scale(self)
        return super()._loss(x if scale == 1 else x * scale, labels, num_items)


class PreTraining(MaskedLM):
    """And a head on pairs of sentences, whose logits stay; a loss needs both kinds of labels."""

    names = MaskedLM.names | {"pair_head": None, "pair_label": None, "pair_logits": None}

    def _has_loss(self, call: dict) -> bool:
        return super()._has_loss(call) and call.get(self.at.pair_label) is not None

    def _train(self, call: dict, labels: Tensor):
        pair_label = call.pop(self.at.pair_label)
        outputs = self._run_base(**call)
        pair_logits = self.get_submodule(self.at.pair_head)(outputs.pooler_output)
        states = outputs.last_hidden_state
        loss = self._loss(states, _packed(labels, states, call))
        loss = loss + F.cross_entropy(pair_logits.view(-1, 2), pair_label.view(-1))
        return self._result(outputs, loss=loss, **{self.at.pair_logits: pair_logits})
