"""The masked autoencoder against transformers, in float64, with every tensor random."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from danlu import Model, models
from danlu.modalities.image import Image
from danlu.models.architecture import build
from danlu.nn.network import Reconstruction
from danlu.tasks.masked_image_modeling import MaskedImageModeling
from tests.models import pairs
from tests.models.stock import TOLERANCE, lift, randomised

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 3, "decoder_num_attention_heads": 2,
           "decoder_intermediate_size": 40}  # fmt: skip
SHAPE = {**SIZES, **DECODER, "image_size": 24, "patch_size": 4, "mask_ratio": 0.6}


def noise(shown: Tensor, patches: int) -> Tensor:
    """What has transformers keep these patches."""
    return torch.ones(len(shown), patches).scatter(1, shown, 0.0)


@pytest.mark.parametrize("normalised", [True, False])
def test_pixels_and_loss_are_those_of_transformers(normalised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lift(monkeypatch, "vit_mae")
    theirs = randomised(ViTMAEForPreTraining(ViTMAEConfig(**SHAPE, norm_pix_loss=normalised)))
    family = models.family("vit_mae")
    shape = family.from_hf(theirs.config.to_dict() | {"architectures": ["ViTMAEForPreTraining"]})
    ours = build(shape, torch.Generator()).double().eval()
    ours.load_state_dict(family.LAYOUT.import_weights(pairs.written(theirs), shape.head))
    processor = Image(24, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    task = MaskedImageModeling(processor, options={"share": 0.6, "target": "patch" if normalised else "picture"})
    seen = torch.randint(256, (3, 3, 24, 24), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    batch = task.posed({"pixel_values": seen})
    shown, scaled = task._shown(ours.head.config, batch), processor.scaled(batch)["pixel_values"].double()
    assert shown.shape == (3, 14)
    assert len({tuple(each) for each in shown.tolist()}) == 3
    with torch.no_grad():
        wanted = theirs(scaled, noise=noise(shown, 36))
        found = ours({"pixel_values": scaled, "shown": shown})
        monkeypatch.setattr(processor, "scaled", lambda batch: batch | {"pixel_values": scaled})
        loss = task.loss(ours, batch)["loss"] / task.counts(batch)["loss"]
    assert float((found - wanted.logits).abs().max()) <= TOLERANCE
    assert float(wanted.logits.std()) > 0.3
    assert float(loss) == pytest.approx(float(wanted.loss), rel=1e-9)


def test_tables_of_places_begin_as_theirs() -> None:
    """Sines and cosines of the column, then of the row: the halves of the usual table the other way round."""
    usual = build_2d_sinusoidal_position_embedding(6, 6, 32, cls_token=True)
    shape = models.family("vit_mae").from_hf(ViTMAEConfig(**SHAPE).to_dict())
    ours = build(shape, torch.Generator().manual_seed(1))
    assert isinstance(ours, Reconstruction)
    torch.testing.assert_close(ours.tables[0].weight, usual.roll(16, 1))
    assert float(ours.tables[1].weight.detach()[1:].norm(dim=-1).std()) < 1e-5, (
        "sines and cosines are as long everywhere"
    )


def test_a_folder_of_theirs_opens_here_and_ours_there(tmp_path: Path) -> None:
    theirs = randomised(ViTMAEForPreTraining(ViTMAEConfig(**SHAPE, norm_pix_loss=True))).float()
    theirs.save_pretrained(tmp_path / "theirs")
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "theirs")
    ours = Model.from_pretrained(tmp_path / "theirs")
    assert (ours.task_name, ours.task.chosen["share"], ours.task.chosen["decoder"]) == ("masked_image_modeling", 0.6, 3)
    ours.save_pretrained(tmp_path / "ours")
    again, back = ViTMAEForPreTraining.from_pretrained(tmp_path / "ours"), Model.from_pretrained(tmp_path / "ours")
    scaled = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    shown = torch.arange(14).repeat(2, 1)
    with torch.no_grad():
        found = [each({"pixel_values": scaled, "shown": shown}) for each in (ours.net, back.net)]
        wanted = [each.eval()(scaled, noise=noise(shown, 36)).logits for each in (theirs, again)]
    assert found[0].equal(found[1])
    for each in wanted:
        torch.testing.assert_close(found[0], each, rtol=0, atol=2e-5)
