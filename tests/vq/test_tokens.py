"""VQ tokens: the nearest of the codes, for a picture the same whatever stands beside it, and carried by a file."""

import pytest
import torch

from igpt.palette import VQQuality, VQRecipe, VQShape, VQTokens, fit_vq, open_tokens
from igpt.system import UserError

SHAPE = VQShape(codes=24, width=8, latent=4, blocks=1)


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    made = VQTokens(SHAPE)
    vectors = made.encoder(pictures(1, seed=5).float() / 127.5 - 1)
    made.codebook.copy_(vectors[0].flatten(1).T)  # codes amid what the encoder gives
    return made


def pictures(count, seed=0):
    return torch.randint(0, 256, (count, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_each_token_is_the_nearest_code_by_brute_force(tokens):
    images = pictures(3)
    vectors = tokens.encoder(images.float() / 127.5 - 1).double()
    found = tokens.encode(images).view(3, 4, 6)
    assert len(found.unique()) > 3
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(6)).tolist():
        vector = vectors[place[0], :, place[1], place[2]]
        distances = [float((vector - code).square().sum()) for code in tokens.codebook.double()]
        assert distances[int(found[tuple(place)])] <= min(distances) + 1e-6


def test_a_picture_has_the_same_tokens_whatever_stands_beside_it(tokens):
    images = pictures(37)
    together = tokens.encode(images)
    assert torch.equal(together, torch.cat([tokens.encode(one[None]) for one in images]))
    assert torch.equal(together.flip(0), tokens.encode(images.flip(0)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(together, tokens.encode(images))
    assert tokens.encode(images[:0]).shape == (0, 24)


def test_decoding_has_four_times_the_sides_and_a_file_gives_the_same(tokens, tmp_path):
    found = tokens.encode(pictures(2))
    shown = tokens.decode(found, (4, 6))
    assert (shown.shape, shown.dtype) == ((2, 3, 16, 24), torch.uint8)
    tokens.save(tmp_path / "a.safetensors")
    again = open_tokens(tmp_path / "a.safetensors")
    assert again.sha256 == tokens.sha256
    assert torch.equal(again.decode(found, (4, 6)), shown)
    again.codebook[0, 0] += 1
    assert again.sha256 != tokens.sha256


def test_nothing_of_it_is_trained_with_a_network(tokens):
    assert not list(tokens.parameters())
    assert VQTokens(SHAPE).is_blank
    assert not tokens.is_blank


def test_quality_is_the_mean_square_and_the_entropy_of_the_codes(tokens):
    images, quality = pictures(5), VQQuality(tokens)
    for part in images.split(2):
        quality.add(part)
    codes, figures = tokens.encode(images), quality.figures()
    error = (tokens.decode(codes, (4, 6)).double() - images.double()).square().mean()
    shares = torch.bincount(codes.flatten(), minlength=24).double() / codes.numel()
    assert figures["mse"] == pytest.approx(float(error))
    assert figures["perplexity"] == pytest.approx(float(torch.special.entr(shares).sum().exp()))
    assert figures["unused_codes"] == int((shares == 0).sum())


@pytest.mark.parametrize("content", [b"", b"no tokens", None])
def test_a_foreign_file_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "x.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="igpt palette --kind vq"):
        VQTokens.load(file)


def test_sizes_are_text_and_back():
    assert VQShape.read(SHAPE.written()) == SHAPE
    for text in ("vq:", "vq:1,2", "vq:9999999,2,2,2", "vq:4,3,2,2", "vq:a,b,c,d"):
        with pytest.raises(UserError, match="VQ tokens"):
            VQShape.read(text)


def test_training_lowers_the_error_and_repeats_itself():
    pytest.importorskip("vector_quantize_pytorch")
    images = pictures(16).float().mul(0).add(torch.linspace(0, 250, 16)[:, None, None, None]).to(torch.uint8)

    def error(steps):
        made = fit_vq(lambda step: images, SHAPE, VQRecipe(steps, 0.005))
        quality = VQQuality(made)
        quality.add(images)
        return quality.figures()["mse"], made.sha256

    (before, _), (after, name) = error(2), error(60)
    assert after < before / 2
    assert error(60)[1] == name


@pytest.mark.parametrize("count", [1, 16, 19])
def test_encoder_and_decoder_always_see_sixteen_at_once(tokens, count):
    sizes = []
    for part in (tokens.encoder, tokens.decoder):
        part.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = tokens.encode(pictures(count))
    assert len(tokens.decode(found, (4, 6))) == len(found) == count
    assert set(sizes) == {16}


GRID = VQShape.of_levels((5, 4, 3), width=8, blocks=1)


def test_levels_make_a_grid_of_codes_and_are_text_and_back():
    assert (GRID.codes, GRID.latent) == (60, 3)
    assert VQShape.read(GRID.written()) == GRID
    for text in ("vq:60,8,3,1,5x4", "vq:59,8,3,1,5x4x3", "vq:5,8,2,1,5x1", "vq:60,8,3,1,5xax3"):
        with pytest.raises(UserError, match="VQ tokens"):
            VQShape.read(text)


def test_tokens_of_levels_are_those_of_the_library():
    quantizers = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    made, library = VQTokens(GRID), quantizers.FSQ([5, 4, 3])
    made.codebook.copy_(library.implicit_codebook)
    images = pictures(30)
    last = made.encoder[-1]
    last.weight *= 30
    last.bias -= made.encoder(images.float() / 127.5 - 1).mean((0, 2, 3))  # amid its levels
    vectors = made.encoder(images.float() / 127.5 - 1)
    expected = library(vectors.flatten(2).transpose(1, 2))[1]
    assert len(expected.unique()) > 20
    assert torch.equal(made.encode(images), expected.long())


def test_of_levels_the_convolutions_alone_learn():
    pytest.importorskip("vector_quantize_pytorch")
    flat = torch.randint(0, 256, (16, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    images = flat.expand(16, 3, 8, 8).contiguous()
    found = {}
    for steps in (1, 150):
        tokens = fit_vq(lambda _: images, GRID, VQRecipe(steps=steps, learning_rate=0.01))
        quality = VQQuality(tokens)
        quality.add(images)
        found[steps] = quality.figures()["mse"]
    assert found[150] < found[1] / 4
    assert len(tokens.codebook.unique(dim=0)) == 60
    assert sorted({round(float(value), 3) for value in tokens.codebook[:, 0]}) == [-1, -0.5, 0, 0.5, 1]
