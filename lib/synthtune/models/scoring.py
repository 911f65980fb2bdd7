"""Log-probabilities of label texts: what a language model says of each label, read side by side.

Several times faster than one padded pass for each label, which is what transformers offers (`benchmarks/speed.md`).
"""

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from synthtune.errors import StageError
from synthtune.models import placement
from synthtune.models.language_model import LanguageModel, after_prefix, agree, by_length, next_logits, padded, put_before, read_once
from synthtune.progress import progress


@torch.inference_mode()
def score_labels(lm: LanguageModel, prompts: Sequence[str], labels: Sequence[str], prefix: str = "",
                 batch_size: int = 32, description: str = "score labels") -> torch.Tensor:
    """Log-probability of every label text after every prompt: log P(label | prefix + prompt), summed over its tokens.

    The prompt is read once for all labels: they are laid side by side after it, and the attention mask lets each see
    the prompt and itself only. A prefix common to all prompts (a few-shot prompt) is read once for all of them.

    Parameters
    ----------
    lm : LanguageModel
        With its whole vocabulary.
    prompts : sequence of str
        Texts that end where the label begins, without the space before it.
    labels : sequence of str
        Whole label texts.
    prefix : str
        Text before every prompt.
    batch_size : int
        Prompts per forward pass.
    description : str
        What the progress bar says.

    Returns
    -------
    Tensor of float32, shape (len(prompts), len(labels))
    """
    placement.to_device(lm.model)
    common, rows = after_prefix(lm, prefix, prompts)
    endings = [_ending(lm, label) for label in labels]
    window = getattr(lm.model.config, "sliding_window", None)
    longest = len(common) + max(map(len, rows), default=0) + sum(map(len, endings))
    usual = not (window and longest > window) and agree(
        lm, lambda common, rows, endings: _side_by_side(lm, common, endings)(rows),
        lambda common, rows, endings: _one_by_one(lm, common, endings)(rows))
    score = (_side_by_side if usual else _one_by_one)(lm, common, endings)
    scores = torch.empty(len(rows), len(labels))
    for batch in progress(by_length(rows, batch_size), desc=description, unit="batch"):
        scores[batch] = score([rows[index] for index in batch])
    return scores


def _ending(lm: LanguageModel, label: str) -> list[int]:
    ending = lm.encode(" " + label)
    if set(ending) <= {lm.tokenizer.unk_token_id}:
        raise StageError(f"The tokenizer of {lm.name} has no tokens for the label '{label}': give the label another name.")
    return ending


def _one_by_one(lm: LanguageModel, common: list[int], endings: list[list[int]]) -> Callable[[list[list[int]]], torch.Tensor]:
    """Scores of labels after rows, each label read with the whole prompt: what every causal model can do."""
    def score(rows: list[list[int]]) -> torch.Tensor:
        scores = torch.empty(len(rows), len(endings))
        for number, ending in enumerate(endings):
            found = next_logits(lm, [common + row + ending for row in rows], len(ending) + 1)
            for place, logits in enumerate(found):
                wanted = torch.tensor(ending, device=logits.device)[:, None]
                scores[place, number] = (logits[:-1].gather(1, wanted)[:, 0] - logits[:-1].logsumexp(-1)).sum()
        return scores

    return score


def _side_by_side(lm: LanguageModel, common: list[int], endings: list[list[int]]) -> Callable[[list[list[int]]], torch.Tensor]:
    """The same with all labels side by side after each prompt, which is read once."""
    # The last token of a label is predicted, never read.
    read = [ending[:-1] for ending in endings]
    tail = [token for ending in read for token in ending]
    owner = torch.tensor([number for number, ending in enumerate(read) for _ in ending], dtype=torch.long)
    depth = torch.tensor([place for ending in read for place in range(len(ending))], dtype=torch.long)
    shared = read_once(lm, common)
    past = shared.get_seq_length() if shared else 0

    def score(rows: list[list[int]]) -> torch.Tensor:
        ids, mask = padded(rows, lm.end, left=True)
        size, scores = len(rows), torch.empty(len(rows), len(endings))
        ids = torch.cat([ids, torch.tensor([tail] * size, dtype=torch.long).reshape(size, -1)], 1)
        place = (mask.cumsum(1) - 1).clamp(min=0)
        place = torch.cat([place, place[:, -1:] + 1 + depth], 1) + past
        cache = DynamicCache() if shared else None
        if shared:
            put_before(cache, shared, size)
        output = lm.model(ids.to(lm.device), attention_mask=_label_mask(mask, owner, past, lm.model.dtype, lm.device),
                          position_ids=place.to(lm.device), past_key_values=cache, use_cache=cache is not None,
                          logits_to_keep=len(tail) + 1)
        # Row by row: of many labels, the logits of a batch in float32 take gigabytes.
        totals = torch.stack([logits.float().logsumexp(-1) for logits in output.logits])
        start = 0
        for number, ending in enumerate(endings):
            steps = [0] + list(range(start + 1, start + len(ending)))
            scores[:, number] = (output.logits[:, steps, ending].float() - totals[:, steps]).sum(1).cpu()
            start += len(ending) - 1
        return scores

    return score


def _label_mask(mask: torch.Tensor, owner: torch.Tensor, past: int, dtype: torch.dtype, device) -> torch.Tensor:
    """Additive attention mask, shape (batch, 1, width + tail, past + width + tail), for labels side by side."""
    size, width = mask.shape
    tail = len(owner)
    allowed = torch.zeros(size, width + tail, past + width + tail, dtype=torch.bool)
    allowed[:, :, :past] = True
    allowed[:, :width, past: past + width] = torch.ones(width, width, dtype=torch.bool).tril() & mask[:, None].bool()
    # A padding position sees itself, so that no row of the softmax is empty.
    allowed[:, :width, past: past + width] |= torch.eye(width, dtype=torch.bool)
    allowed[:, width:, past: past + width] = mask[:, None].bool()
    allowed[:, width:, past + width:] = (owner[:, None] == owner[None]) & torch.ones(tail, tail, dtype=torch.bool).tril()
    bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    return bias[:, None].to(device)
