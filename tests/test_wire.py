"""Positions, values and frames: what arrives is what was sent, in exactly the bytes announced, or a WireError."""

import contracts
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.catalog import CODECS, make
from fedmpi.errors import WireError
from fedmpi.flat import bind
from fedmpi.mask import budgets, random_mask
from fedmpi.models.cifar10net import cifar10net
from fedmpi.models.mnistnet import mnistnet
from fedmpi.wire.frame import MAGIC, checksum, pack, unpack
from fedmpi.wire.positions import CODES, decode, encode
from fedmpi.wire.values import int8

RNG = np.random.default_rng(0)
CASES = {  # name -> (positions, n)
    "nothing of nothing": ([], 0), "empty": ([], 9), "single": ([4], 9), "first": ([0], 9), "last": ([8], 9),
    "only": ([0], 1), "full": (range(9), 9), "full bytes": (range(16), 16),
    "random": (np.flatnonzero(RNG.random(3000) < .1), 3000), "dense": (np.flatnonzero(RNG.random(3000) < .97), 3000),
    "runs": ([*range(5, 40), *range(41, 42), *range(300, 1000)], 1000), "run to the end": (range(500, 2000), 2000),
    "gap 254": ([254], 2000), "gap 255": ([255], 2000), "gap 256": ([256], 2000), "gap 510": ([510, 1021], 2000),
    "gaps of multiples of 255": ([255, 255 + 511, 255 + 511 + 766], 2000), "far": ([99_999], 100_000),
    "65536": ([0, 65_535], 65_536), "65537": ([0, 65_536], 65_537),
    "hole of 255": ([*range(0, 300), *range(555, 2000)], 2000)}
SETS = st.integers(0, 1500).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0)), max_size=n)))


def case(name):
    index, n = CASES[name]
    return np.array(list(index), np.int32), n


def sparse_sets(draw_from):
    n, chosen = draw_from
    return np.array(sorted(chosen), np.int32), n


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("code", CODES)
def test_every_position_code_alone(code, name):
    contracts.check_positions(code, *case(name))


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(drawn=SETS)
def test_announced_size_is_the_encoded_size(code, drawn):
    index, n = sparse_sets(drawn)
    contracts.check_positions(code, index, n)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(drawn=SETS, seed=st.integers(0, 9), flips=st.integers(0, 40))
def test_positions_come_back_in_the_smallest_code(drawn, seed, flips):
    index, n = sparse_sets(drawn)
    bits = np.zeros(n, bool)
    bits[index] = True
    gen = np.random.default_rng(seed)
    bits[gen.integers(0, n, min(flips, n))] ^= True
    for known in (None, np.flatnonzero(bits).astype(np.int32)):
        meta, array = encode(index, n, known)
        assert np.array_equal(decode(meta, array, known), index) and decode(meta, array, known).dtype == np.int32
        assert array.nbytes == smallest(index, n, known) and meta["k"] == len(index)


def smallest(index, n, known):
    """The least bytes of all codes, by encoding with each."""
    wanted = [index] if known is None else [index, np.setxor1d(known, index).astype(np.int32)]
    if known is not None and len(wanted[1]) == 0:
        return 0
    return min(code.encode(what, n).nbytes
               for what in wanted for code in CODES.values() if code.size(what, n) < 1 << 62)


@pytest.mark.parametrize("index, n, code, size", [
    (range(9), 9, "all", 0),
    (range(0, 4000, 2), 4000, "bitmap", 500),
    (range(0, 4000, 50), 4000, "gaps", 80),
    ([i for i in range(4000) if i % 50], 4000, "holes", 80),
    (range(1000, 3000), 4000, "runs", 3 + 1 + 7 + 1),           # 1000 = 3 * 255 + 235; 1999 between = 7 * 255 + 214
    ([60_000], 65_536, "index16", 2),
    ([90_000], 100_000, "index32", 4)])
def test_each_code_is_chosen_where_it_is_smallest(index, n, code, size):
    meta, array = encode(np.array(index, np.int32), n)
    assert (meta["code"], array.nbytes) == (code, size)


def test_few_changes_travel_as_flips():
    known = np.arange(0, 10_000, 2, dtype=np.int32)
    index = np.setxor1d(known, [1, 2]).astype(np.int32)          # 1 came, 2 went
    meta, array = encode(index, 10_000, known)
    assert meta == {"code": meta["code"], "n": 10_000, "k": 5000} and meta["code"].startswith("flip-")
    assert array.nbytes == 2 and np.array_equal(decode(meta, array, known), index)


def test_the_same_set_costs_nothing():
    index = np.array([1, 5], np.int32)
    meta, array = encode(index, 9, index.copy())
    assert (meta, array.nbytes) == ({"code": "same", "n": 9, "k": 2}, 0)
    assert np.array_equal(decode(meta, array, index), index)


def test_a_useless_known_set_is_not_used():
    known = np.arange(0, 4000, 7, dtype=np.int32)
    meta, array = encode(np.arange(4000, dtype=np.int32), 4000, known)
    assert meta["code"] == "all" and array.nbytes == 0


@pytest.mark.parametrize("code", ["same", "flip-gaps"])
def test_decode_refuses_differences_without_the_known_set(code):
    with pytest.raises(WireError, match="does not hold"):
        decode({"code": code, "n": 9, "k": 2}, np.zeros(2, np.uint8))


def test_decode_refuses_an_unknown_code():
    with pytest.raises(WireError, match="unknown position code 'morse'"):
        decode({"code": "morse", "n": 9, "k": 2}, np.zeros(2, np.uint8))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_decode_refuses_another_count(code, wrong):
    index, n = (np.arange(9), 9) if code == "all" else (np.array([2, 3, 4, 6, 8]), 9)
    array = CODES[code].encode(index.astype(np.int32), n)
    with pytest.raises(WireError, match=f"{len(index) + wrong} positions below {n} announced, got {len(index)}"):
        decode({"code": code, "n": n, "k": len(index) + wrong}, array)


def test_same_refuses_a_known_set_of_another_count():
    with pytest.raises(WireError, match="3 positions"):
        decode({"code": "same", "n": 9, "k": 3}, np.empty(0, np.uint8), np.array([1, 2], np.int32))


@pytest.mark.parametrize("code, array", [
    ("gaps", np.array([3, 200], np.uint8)), ("holes", np.array([3, 200], np.uint8)),
    ("runs", np.array([3, 200], np.uint8)), ("runs", np.array([3, 1, 1], np.uint8)),
    ("index16", np.array([3, 9], np.uint16)), ("index32", np.array([-1, 3], np.int32)),
    ("flip-gaps", np.array([3, 200], np.uint8)), ("flip-holes", np.array([3, 200], np.uint8))])
def test_decode_refuses_positions_that_do_not_fit(code, array):
    with pytest.raises(WireError):
        decode({"code": code, "n": 9, "k": 2}, array, np.array([0, 1], np.int32))


@pytest.mark.parametrize("name", CODECS)
def test_codecs_keep_their_bounds(name):
    contracts.check_codec(name)


@pytest.mark.parametrize("block", [1, 7, 256, 5000])
def test_int8_keeps_its_bound_for_any_block(block):
    contracts.check_codec(f"int8:block={block}")


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


def test_int8_refuses_an_empty_block():
    with pytest.raises(ValueError, match="block must be at least 1 value, got 0"):
        int8(0)


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
