"""Positions, values and frames: what arrives is what was sent, in exactly the bytes announced, or a WireError."""

import math

import contracts
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.catalog import CODECS
from fedmpi.plugins.spec import make
from fedmpi.core.errors import WireError
from fedmpi.core.layout import bind
from fedmpi.core.support import index_of
from fedmpi.core.mask import budgets, random_mask
from fedmpi.laws import wire as wire_laws
from fedmpi.methods.models.cifar10net import cifar10net
from fedmpi.methods.models.mnistnet import mnistnet
from fedmpi.wire import frame
from fedmpi.wire.feedback import carried, feeding_back
from fedmpi.wire.frame import MAGIC, checksum, pack, unpack
from fedmpi.wire.positions import decode, encode, mask_of
from fedmpi.wire.squeeze import BARE, expand, squeeze
from fedmpi.methods.codecs.int8 import int8
from fedmpi.methods.codecs.sign import sign
from fedmpi.wire.codecs import fitted

RNG = np.random.default_rng(0)
N = 200_000
CASES = {  # name -> mask
    "nothing of nothing": [], "empty": [False] * 9, "full": [True] * 9, "full bytes": [True] * 16, "only": [True],
    "single": np.arange(9) == 4, "first": np.arange(9) == 0, "last": np.arange(9) == 8,
    "far": np.arange(99_999) == 99_998,
    "gap 255": np.arange(2000) == 255, "gap 256": np.arange(2000) == 256, "sparse": RNG.random(3000) < .1,
    "dense": RNG.random(3000) < .97, "half": RNG.random(N) < .5, "tenth": RNG.random(N) < .1,
    "nine tenths": RNG.random(N) < .9, "hundredth": RNG.random(N) < .01, "a far one among many": np.arange(N) % 20 == 7,
    "rows": np.repeat(RNG.random(N // 500) < .3, 500), "kernels": np.repeat(RNG.random(N // 9) < .5, 9),
    "blocks": np.repeat(RNG.random(N // 16) < .1, 16), "run to the end": np.arange(2000) >= 500}
CASES["a far one among many"][60_000:61_000] = False
MASKS = st.tuples(st.integers(0, 6000), st.floats(0, 1), st.integers(1, 40), st.integers(0, 99)).map(
    lambda drawn: np.repeat(np.random.default_rng(drawn[3]).random(drawn[0]) < drawn[1], drawn[2]))


def case(name):
    return np.array(CASES[name], bool)


def bound(n, k):
    """log2 of the number of masks of n weights, k kept, in bytes."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) / 8


@pytest.mark.parametrize("name", CASES)
def test_masks_come_back(name):
    contracts.check_positions(case(name))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(mask=MASKS, seed=st.integers(0, 9), share=st.sampled_from([0, .001, .1, .5, 1]))
def test_any_mask_comes_back_alone_and_against_another(mask, seed, share):
    contracts.check_positions(mask)
    contracts.check_positions(mask, mask ^ (np.random.default_rng(seed).random(len(mask)) < share))


@pytest.mark.parametrize("sparsity", [.01, .1, .3, .5, .6, .7, .8, .82, .84, .9, .95, .98, .99])
def test_random_masks_take_the_bytes_of_their_entropy(sparsity):
    mask = np.random.default_rng(1).random(1_000_000) >= sparsity
    assert encode(mask)[1].nbytes <= 1.02 * bound(len(mask), int(mask.sum()))


@pytest.mark.parametrize("sparsity", [.5, .9, .99])
@pytest.mark.parametrize("share", [.001, .01, .03, .1, .2, .4])
def test_changes_take_the_bytes_of_their_entropy(sparsity, share):
    gen = np.random.default_rng(2)
    known = gen.random(1_000_000) >= sparsity
    mask = known ^ (gen.random(len(known)) < share)
    flips, kept = int((mask ^ known).sum()), int(mask.sum())
    assert encode(mask, known)[1].nbytes <= 1.02 * min(bound(len(mask), flips), bound(len(mask), kept))


@pytest.mark.parametrize("sparsity", [.5, .9, .95])
@pytest.mark.parametrize("size, most", [(576, .01), (16, .1), (9, .25)])
def test_masks_in_blocks_take_a_fraction_of_that(sparsity, size, most):
    mask = np.repeat(np.random.default_rng(3).random(1_000_000 // size) >= sparsity, size)
    assert encode(mask)[1].nbytes <= most * bound(len(mask), int(mask.sum()))


def test_layers_of_different_densities_take_less_than_one_density_would():
    gen = np.random.default_rng(4)
    mask = np.concatenate([gen.random(2_000_000) >= .95, gen.random(2_000_000) >= .6])
    apart = sum(bound(len(part), int(part.sum())) for part in np.split(mask, 2))
    assert encode(mask)[1].nbytes <= 1.04 * apart < .95 * bound(len(mask), int(mask.sum()))


@pytest.mark.parametrize("name, code", [
    ("half", "bitmap"), ("tenth", "gaps"), ("nine tenths", "holes"), ("hundredth", "gaps"), ("rows", "runs"),
    ("full", "holes"), ("empty", "gaps"), ("run to the end", "runs")])
def test_each_form_is_chosen_where_it_is_smallest(name, code):
    assert [form for _, form, *_ in encode(case(name))[0]["pieces"]] == [code]


def test_nothing_kept_and_everything_kept_cost_no_byte():
    assert encode(np.zeros(10_000, bool))[1].nbytes == encode(np.ones(10_000, bool))[1].nbytes == 0


def test_few_changes_travel_as_flips():
    known = np.arange(10_000) % 2 == 0
    mask = known ^ mask_of([1, 2], 10_000)                       # 1 came, 2 went
    meta, array = encode(mask, known)
    assert meta["flips"] and meta["k"] == 5000 and array.nbytes <= 6
    assert np.array_equal(decode(meta, array, 10_000, known), mask)


def test_the_same_mask_costs_nothing():
    mask = mask_of([1, 5], 9)
    meta, array = encode(mask, mask.copy())
    assert (meta, array.nbytes) == ({"same": True, "k": 2}, 0)
    assert np.array_equal(decode(meta, array, 9, mask), mask)


def test_a_useless_known_mask_is_not_used():
    meta, array = encode(np.ones(4000, bool), np.arange(4000) % 7 == 0)
    assert "flips" not in meta and array.nbytes == 0


def test_equal_masks_are_equal_bytes():
    mask = case("tenth")
    assert encode(mask)[0] == encode(mask.copy())[0] and np.array_equal(encode(mask)[1], encode(mask.copy())[1])


def test_positions_and_masks_are_inverse():
    index = np.array([0, 3, 8], np.int32)
    found = index_of(mask_of(index, 9))
    assert np.array_equal(found, index) and found.dtype == np.int32


@pytest.mark.parametrize("meta", [{"same": True, "k": 2},
                                  {"pieces": [[2, "gaps", 2]], "step": 9, "k": 2, "flips": True}])
def test_decode_refuses_differences_without_the_known_mask(meta):
    with pytest.raises(WireError, match="does not hold"):
        decode(meta, np.zeros(2, np.uint8), 9)


def test_decode_refuses_an_unknown_form():
    with pytest.raises(WireError, match="unknown form of a mask 'morse'; this version reads bitmap, gaps"):
        decode({"pieces": [[2, "morse"]], "step": 9, "k": 2}, np.zeros(2, np.uint8), 9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_decode_refuses_another_count(name, wrong):
    mask = case(name)
    meta, array = encode(mask)
    with pytest.raises(WireError, match=f"{mask.sum() + wrong} of {len(mask)} weights announced"):
        decode(meta | {"k": meta["k"] + wrong}, array, len(mask))


def test_same_refuses_a_known_mask_of_another_count_or_length():
    with pytest.raises(WireError, match="3 of 9 weights announced"):
        decode({"same": True, "k": 3}, np.empty(0, np.uint8), 9, mask_of([1, 2], 9))
    with pytest.raises(WireError, match="2 of 9 weights announced"):
        decode({"same": True, "k": 2}, np.empty(0, np.uint8), 9, mask_of([1, 2], 8))


@pytest.mark.parametrize("form, array", [
    (["gaps", 2], [3, 200]), (["holes", 2], [3, 200]), (["runs", 2], [3, 200]), (["gaps", -1], []),
    (["gaps", 10], [0] * 10), (["gaps", 3], [0, 0]), (["gaps"], [0, 0]), (["gaps", "x"], [0]), (["bitmap"], []),
    (["bitmap"], [1, 2, 3]), (["bitmap", 7], [1, 2]),
    (["gaps", 2, 0, 0, 2], [0x80, 0x40]),                        # unary: 0, then 8 between: position 9
    (["gaps", 2, 99, 0, 1], [0x88]), (["gaps", 2, 1, 9, 1], [0x88]), (["gaps", 2, 0, 0, 1 << 40], [0x88]),
    (["gaps", 2, 0, 0, -1], [0x88]), (["gaps", 3, 0, 0, 1], [0x88]), (["gaps", 2, 1, 0, 1], [0x88])])
def test_decode_refuses_what_does_not_fit(form, array):
    with pytest.raises(WireError):
        decode({"k": 2, "step": 9, "pieces": [[len(array), *form]]}, np.array(array, np.uint8), 9)


@pytest.mark.parametrize("pieces, step", [
    ([], 9), ([[2, "gaps", 2]] * 2, 9), ([[2, "gaps", 2]], 5), ([[1, "gaps", 2]], 9), ([[2, "gaps", 2]], 0),
    ([[2, "gaps", 2]], "x"), (7, 9), ([7], 9), ([["x", "gaps"]], 9)])
def test_decode_refuses_pieces_that_do_not_add_up(pieces, step):
    with pytest.raises(WireError):
        decode({"k": 2, "step": step, "pieces": pieces}, np.array([0, 1], np.uint8), 9)


@pytest.mark.parametrize("name", ["half", "tenth", "hundredth", "rows", "kernels", "a far one among many"])
def test_damage_is_refused_or_leaves_the_announced_count(name):
    mask, gen = case(name), np.random.default_rng(5)
    meta, array = encode(mask)
    for _ in range(200):
        damaged = array.copy()
        damaged[gen.integers(len(array))] ^= 1 << gen.integers(8)
        damaged = damaged[: len(damaged) - int(gen.integers(3))]
        try:
            assert decode(meta, damaged, len(mask)).sum() == meta["k"]
        except WireError:
            pass


def test_squeezed_bytes_come_back_and_never_grow():
    for data in (RNG.integers(0, 256, 1000).astype(np.uint8), np.zeros(100_000, np.uint8), np.empty(0, np.uint8),
                 np.arange(7, dtype=np.float32), np.zeros((3, 1000), np.int16)):
        small = squeeze(data)
        assert small.dtype == np.uint8 and small.nbytes <= data.nbytes
        assert np.array_equal(expand(small, data.nbytes), data.reshape(-1).view(np.uint8))
    assert squeeze(np.zeros(100_000, np.uint8)).nbytes < 100


@pytest.mark.parametrize("length", [0, 99, 9_999, 10_001])
def test_another_length_is_refused(length):
    with pytest.raises(WireError):
        expand(squeeze(np.zeros(10_000, np.uint8)), length)


def test_a_frame_that_announces_gigabytes_is_refused_before_they_are_allocated():
    how = zstandard.ZstdCompressionParameters.from_level(1, write_content_size=True, **BARE)
    frame = zstandard.ZstdCompressor(compression_params=how).compress(bytes(100_000))
    with pytest.raises(WireError, match="announces its size"):
        expand(np.frombuffer(frame, np.uint8), 100_000)


ENTROPY = ["float16", "bfloat16", "int8"]


@pytest.mark.parametrize("name", [*CODECS, *(name + ":entropy=true" for name in ENTROPY)])
def test_codecs_keep_their_bounds(name):
    wire_laws.codec(name)


@pytest.mark.parametrize("block", [1, 7, 256, 5000])
@pytest.mark.parametrize("name", ["int8", "sign"])
def test_codecs_keep_their_bounds_for_any_block(name, block):
    wire_laws.codec(f"{name}:block={block}")


@pytest.mark.parametrize("name, most", [("float16", .9), ("bfloat16", .8), ("int8", .95)])
def test_entropy_coding_loses_nothing_and_gains(name, most):
    plain, less = make(CODECS, name), make(CODECS, name + ":entropy=true")
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * .01
    sizes = [sum(array.nbytes for array in codec.encode(values).values()) for codec in (plain, less)]
    assert torch.equal(*(codec.decode(codec.encode(values), len(values)) for codec in (plain, less)))
    assert sizes[1] < most * sizes[0]


def test_damaged_entropy_coded_values_are_refused():
    codec = make(CODECS, "int8:entropy=true")
    arrays = codec.encode(torch.zeros(10_000))
    for array in (arrays["steps"][:-3], np.zeros(20, np.uint8)):
        with pytest.raises(WireError):
            codec.decode(arrays | {"steps": array}, 10_000)


def test_signs_cost_a_bit_a_value_and_a_scale_a_block_beside_an_exact_tail():
    codec = fitted(make(CODECS, "sign:block=100"), 17)
    values = torch.randn(1018, generator=torch.Generator().manual_seed(0))
    arrays = codec.encode(values)
    assert sum(array.nbytes for array in arrays.values()) == 126 + 11 * 4 + 17 * 4
    back = codec.decode(arrays, 1018)
    assert torch.equal(back[-17:], values[-17:]) and torch.equal(back.sign(), values.sign())
    assert back[0].abs() == values[:100].abs().double().mean().float()
    assert back[1000].abs() == values[1000].abs()                        # a block of one


def test_only_updates_travel_as_signs():
    assert make(CODECS, "sign").down.encode(torch.ones(3))["values"].dtype == np.float32
    assert make(CODECS, "int8").down is None and fitted(make(CODECS, "int8"), 5).down.encode(torch.ones(3)).keys() == {
        "steps", "scales"}


FEEDBACK = ["sign", "sign:block=7", "int8:feedback=true", "float16:feedback=true",
            "bfloat16:feedback=true,entropy=true"]


@pytest.mark.parametrize("name", FEEDBACK)
def test_with_feedback_what_was_sent_adds_up_to_what_was_meant(name):
    codec, gen = make(CODECS, name), torch.Generator().manual_seed(0)
    assert codec.feedback
    meant, sent, memory = torch.zeros(500, dtype=torch.float64), torch.zeros(500, dtype=torch.float64), None
    for _ in range(50):
        update = torch.randn(500, generator=gen) * .1 + .3
        arrays, memory = feeding_back(codec, update, memory)
        meant += update
        sent += codec.decode(arrays, 500)
    torch.testing.assert_close(sent + memory, meant, rtol=0, atol=1e-5)
    assert memory.abs().max() < 10                                       # it does not pile up


def test_without_feedback_signs_lose_what_is_small_and_constant():
    """Karimireddy et al. 2019: a small gradient beside a noisy large one has its size ignored for good."""
    codec, gen = make(CODECS, "sign:block=2"), torch.Generator().manual_seed(0)
    sums, memory = torch.zeros(2, 2), None
    for _ in range(1000):
        update = torch.tensor([torch.randn(1, generator=gen).item(), .01])
        sums[0] += codec.decode(codec.encode(update), 2)
        arrays, memory = feeding_back(codec, update, memory)
        sums[1] += codec.decode(arrays, 2)
    assert sums[0, 1] > 300 and abs(sums[1, 1] - 10) < 3


def test_a_memory_is_carried_to_another_support():
    before, after = torch.tensor([1, 4, 6], dtype=torch.int32), torch.tensor([0, 4, 6, 7], dtype=torch.int32)
    memory = torch.tensor([.1, .2, .3])
    assert torch.equal(carried(memory, before, after, 8), torch.tensor([0, .2, .3, 0]))
    assert carried(memory, before, before.clone(), 8) is memory


@pytest.mark.parametrize("name, a_value", [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_codecs_cost_what_they_say(name, a_value):
    arrays = make(CODECS, name).encode(torch.randn(1001))
    assert sum(array.nbytes for array in arrays.values()) == 1001 * a_value


def test_int8_costs_a_byte_a_value_and_a_scale_a_block():
    arrays = make(CODECS, "int8:block=100").encode(torch.randn(1001))
    assert sum(array.nbytes for array in arrays.values()) == 1001 + 11 * 4


def test_float32_is_exact_to_the_last_bit():
    codec = make(CODECS, "float32")
    values = torch.tensor([0., -0., 1e-45, -1e-40, 3.4e38, 1 / 3])
    assert torch.equal(codec.decode(codec.encode(values), 6).view(torch.int32), values.view(torch.int32))


def test_float16_clamps_what_it_cannot_hold():
    codec = make(CODECS, "float16")
    assert codec.decode(codec.encode(torch.tensor([1e6, -1e38, 1.0])), 3).tolist() == [65504, -65504, 1]


def test_int8_blocks_do_not_disturb_each_other():
    codec = make(CODECS, "int8:block=2")
    values = torch.tensor([127e6, -1e6, 1.27, .02, 0, 0, 127])
    torch.testing.assert_close(codec.decode(codec.encode(values), 7), values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("codec", [int8, sign])
def test_an_empty_block_is_refused(codec):
    with pytest.raises(ValueError, match="block must be at least 1 value, got 0"):
        codec(0)


@pytest.mark.parametrize("net, shape, sparsity, mib", [
    (cifar10net, (3, 32, 32), 0, 596.6), (cifar10net, (3, 32, 32), .5, 298.4), (cifar10net, (3, 32, 32), .8, 119.5),
    (cifar10net, (3, 32, 32), .9, 59.8), (cifar10net, (3, 32, 32), .95, 30.0),
    (mnistnet, (1, 28, 28), 0, 199.8), (mnistnet, (1, 28, 28), .8, 40.0), (mnistnet, (1, 28, 28), .9, 20.0)])
def test_uploads_of_200_rounds_are_those_of_the_thesis(net, shape, sparsity, mib):
    layout, x, _ = bind(net(shape, 10))
    support = layout.support(random_mask(layout, budgets(layout, sparsity), np.random.default_rng(0)))
    arrays = make(CODECS, "float32").encode(x[support])
    assert round(200 * arrays["values"].nbytes / 2 ** 20, 1) == mib


ARRAYS = {
    "bytes": np.arange(5, dtype=np.uint8), "half": np.ones((2, 3), np.float16), "float": np.ones((3, 1, 2), np.float32),
    "double": np.float64([1.5]), "flags": np.array([True, False, True]), "small": np.int16([-3]),
    "wide": np.int64([1 << 40]),
    "empty": np.empty(0, np.float32), "flat": np.empty((0, 7), np.int32), "scalar": np.array(2.5),
    "fortran": np.ones((2, 3)).T}


def test_frames_come_back_with_dtypes_shapes_and_meta():
    meta = {"kind": "update", "t": 3, "text": "snow \N{SNOWMAN}", "deep": {"list": [1, None, 2.5, True]}}
    buffer = pack(meta, ARRAYS)
    assert buffer.dtype == np.uint8 and len(buffer) % 16 == 0 and buffer[:4].tobytes() == MAGIC
    back, arrays = unpack(buffer)
    assert back == meta and list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)


@pytest.mark.parametrize("name", ARRAYS)
def test_frames_of_one_array(name):
    assert np.array_equal(unpack(pack({}, {"only": ARRAYS[name]}))[1]["only"], ARRAYS[name])


def test_an_empty_frame():
    assert unpack(pack({}, {})) == ({}, {})


def test_unpacked_arrays_are_views():
    buffer = pack({}, {"a": np.zeros(4, np.float32)})
    assert np.shares_memory(unpack(buffer)[1]["a"], buffer)


def test_equal_messages_are_equal_bytes_whatever_the_memory_held():
    frames = [pack({"t": 1}, {"a": np.ones(3, np.uint8)}).tobytes() for _ in range(5)]
    assert len(set(frames)) == 1


def test_every_truncation_is_noticed():
    buffer = pack({"kind": "update"}, {"a": np.arange(20, dtype=np.float32), "b": np.arange(3)})
    for length in range(len(buffer)):
        with pytest.raises(WireError):
            unpack(buffer[:length])


def test_bytes_too_many_are_noticed():
    buffer = pack({}, {"a": np.ones(3)})
    with pytest.raises(WireError, match="whose header speaks of"):
        unpack(np.concatenate([buffer, np.zeros(16, np.uint8)]))
    with pytest.raises(WireError, match="damaged on its way: "):
        unpack(np.concatenate([buffer, np.ones(16, np.uint8)]))


def test_every_flipped_bit_is_noticed():
    buffer = pack({"kind": "update", "t": 3}, {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2))})
    for place in range(8 * len(buffer)):
        damaged = buffer.copy()
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(WireError, match="not a message of this version|damaged on its way"):
            unpack(damaged)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1000, 1001])
def test_a_checksum_sees_every_byte_of_any_length(length):
    buffer = np.random.default_rng(length).integers(0, 256, length).astype(np.uint8)
    for place in range(length):
        damaged = buffer.copy()
        damaged[place] ^= 1 + place % 255
        assert checksum(damaged) != checksum(buffer)
    assert checksum(buffer) == checksum(buffer.copy()) < 1 << 64


@pytest.mark.parametrize("start", [b"fmp1", b"\0\0\0\0", b"PK\3\4"])
def test_another_magic_is_refused(start):
    buffer = pack({}, {}).copy()
    buffer[:4] = np.frombuffer(start, np.uint8)
    with pytest.raises(WireError, match="not a message of this version"):
        unpack(buffer)


def header_only(text):
    """A frame whose header is ``text``."""
    text = text.ljust(-(-len(text) // 16) * 16)
    return signed(np.frombuffer(MAGIC + np.array(len(text), "<u4").tobytes() + bytes(8) + text, np.uint8))


def signed(buffer):
    """A copy whose checksum is right."""
    buffer = buffer.copy()
    buffer[8:16] = 0
    buffer[8:16] = np.array([checksum(buffer)], "<u8").view(np.uint8)
    return buffer


@pytest.mark.parametrize("header", [
    b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"meta":{}}', b'{"arrays":[]}', b'{"meta":{},"arrays":[["a"]]}',
    b'{"meta":{},"arrays":[["a","<f4",[3]]]}', b'{"meta":{},"arrays":[["a","no",[0]]]}',
    b'{"meta":{},"arrays":[["a","|O8",[0]]]}', b'{"meta":{},"arrays":[["a","<f4",[99999999999999999999]]]}',
    b'{"meta":{},"arrays":[["a","<f4",[-1]]]}', b'{"meta":{},"arrays":[["a","<f4","x"]]}', b'{"meta":{},"arrays":7}'])
def test_damaged_headers_are_refused(header):
    with pytest.raises(WireError):
        unpack(header_only(header))


def test_a_changed_byte_never_escapes_as_another_exception():
    buffer = pack({"kind": "update", "t": 3}, {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2))})
    length = 16 + int(buffer[4:8].view("<u4")[0])
    escaped = set()
    for place in range(length):
        for value in (0, 34, 45, 48, 57, 93, 101, 255):
            damaged = buffer.copy()
            damaged[place] = value
            try:
                unpack(signed(damaged))
            except WireError:
                pass
            except Exception as error:
                escaped.add(f"{type(error).__name__}: {error}")
    assert escaped == set()


def test_meta_must_be_json():
    with pytest.raises(TypeError):
        pack({"array": np.ones(3)}, {})


def test_the_bench_tells_bytes_speed_and_libraries(fedmpi):
    output = fedmpi(1, "bench", "wire", "--weights", 60_000, "--repeats", 1)
    bytes_of = {line[:34].strip(): line[34:].split()[1] for line in output.splitlines() if line.startswith("random")}
    assert len(bytes_of) == 8 and all(1 <= float(ratio) < 1.04 for ratio in bytes_of.values())
    assert all(name in output for name in ("zlib Huffman only", "zstandard 1", "int8:entropy=true", "scatter", "dense"))


def test_a_message_in_pieces_is_the_message_packed():
    arrays = {"odd": np.arange(5, dtype=np.float32), "none": np.empty((0, 3)), "bits": np.array([1, 2, 255], np.uint8),
              "turned": np.arange(12.0).reshape(3, 4).T}
    parts = frame.pieces({"a": 1}, arrays)
    whole = np.concatenate(parts)
    assert whole.tobytes() == frame.pack({"a": 1}, arrays).tobytes()
    assert len(whole) == frame.size({"a": 1}, arrays)
    into = np.full(len(whole), 7, np.uint8)
    assert frame.pack({"a": 1}, arrays, into) is into and (into == whole).all()
    # Its own memory, without a copy.
    assert any(np.shares_memory(part, arrays["odd"]) for part in parts)
