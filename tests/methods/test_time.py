"""Virtual time: devices, who is drawn, when the server merges, and the seconds that all this takes."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.methods.timing.fedasync import fedasync
from fedmpi.methods.timing.fedbuff import fedbuff
from fedmpi.methods.timing.sync import sync
from fedmpi.catalog import TIMINGS, DEVICES, SAMPLERS
from fedmpi.plugins.spec import make
from fedmpi.core.virtual_time import dropped, durations, earliest, in_time, round_s
from fedmpi.methods.devices.constant import constant
from fedmpi.methods.devices.drawn import drawn
from fedmpi.methods.devices.none import none
from fedmpi.methods.devices.tiers import tiers
from fedmpi.methods.devices.trace import trace
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Fleet, ClientRecords
from fedmpi.core.rng import stream
from fedmpi.methods.sampler.contribution import contribution, probabilities
from fedmpi.methods.sampler.power_of_choice import choose, power_of_choice
from fedmpi.methods.sampler.race import race
from fedmpi.methods.sampler.size import size
from fedmpi.methods.sampler.uniform import uniform

TRACE = """# two clients
client,time_s,gflops,down_mbit,up_mbit,latency_ms,dropout,available
0,0,2,8,4,10,0,1
1,50,3,,,,0.5,1

0,100,4,8,4,10,0.25,0
1,60,inf,16,8,0,0,1
"""


def draw_of(seed=0):
    """``draw(*key)`` as the engine gives it; the purpose's number is this test's own."""
    return lambda *key: stream(seed, 99, *key)


def rng(seed=0):
    return np.random.default_rng(seed)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.fixture
def written(tmp_path):
    """``written(text) -> path`` of a trace."""
    def write(text):
        path = tmp_path / "fleet.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# --- devices ---

def check_devices(devices, N):
    """Shapes, types and ranges at any moment; the same arguments give the same fleet, in any order of calls."""
    moments = [0.0, 1.0, 3599.9, 3600.0, 1e5, 1e9]
    first = [devices.at(seconds, N, draw_of(7)) for seconds in moments]
    again = [devices.at(seconds, N, draw_of(7)) for seconds in reversed(moments)][::-1]
    assert all(same(a, b) for a, b in zip(first, again))
    for fleet in first:
        assert all(column.shape == (N,) for column in fleet)
        assert all(column.dtype == torch.float64 for column in fleet[:-1]) and fleet.available.dtype == torch.bool
        assert all(bool((column > 0).all()) for column in (fleet.speed, fleet.down, fleet.up))
        assert bool((fleet.latency >= 0).all()) and bool(((fleet.dropout >= 0) & (fleet.dropout <= 1)).all())


@pytest.mark.parametrize("spec", [name for name in DEVICES if name != "trace"] + [
    "constant:availability=0.5", "drawn:availability=0.3,diurnal=true,correlation=-1",
    "drawn:correlation=0.5,link_sigma=0", "tiers:slow=0.5,fast=0.5,links=false,dropout=0.9",
    "constant:gflops=inf,up_mbit=inf,latency_ms=0"])
@pytest.mark.parametrize("N", [1, 3, 50])
def test_a_fleet_is_a_pure_function_of_seed_and_time(spec, N):
    check_devices(make(DEVICES, spec), N)


def test_a_trace_is_a_fleet_too(written):
    for options in ({}, {"period_s": 150.0}):
        check_devices(trace(file=written(TRACE), **options), 5)


def test_none_takes_no_time_and_nobody_is_away():
    fleet = none().at(123.0, 3, draw_of())
    assert bool(fleet.available.all()) and not fleet.dropout.any()
    assert durations(fleet, torch.tensor([2, 0]), double(1e9, 1), double(1e15, 0), double(5, 5)).tolist() == [0, 0]


def test_units_are_those_of_the_options():
    fleet = constant(gflops=2, down_mbit=8, up_mbit=4, latency_ms=10, dropout=0.1).at(0.0, 2, draw_of())
    assert [column[1].item() for column in fleet] == [2e9, 1e6, 0.5e6, 0.01, 0.1, True]


def test_availability_has_its_probability_and_holds_for_a_slot():
    devices, N = constant(availability=0.3, slot_s=10), 4000
    slots = torch.stack([devices.at(10.0 * slot, N, draw_of(1)).available for slot in range(20)]).double()
    assert abs(slots.mean() - 0.3) < 4 * math.sqrt(0.21 / slots.numel())
    assert abs((slots[:-1] * slots[1:]).mean() - 0.09) < 0.01                         # slots are drawn apart
    assert torch.equal(devices.at(49.9, N, draw_of(1)).available.double(), slots[4])
    assert not torch.equal(devices.at(0.0, N, draw_of(2)).available.double(), slots[0])


def test_drawn_devices_have_the_medians_sigmas_and_correlation_asked_for():
    fleet = drawn(gflops=3, speed_sigma=0.8, down_mbit=16, up_mbit=4, link_sigma=0.5, correlation=0.6).at(
        0.0, 20000, draw_of(3))
    speed, down, up = torch.log(fleet.speed / 3e9), torch.log(fleet.down / 2e6), torch.log(fleet.up / 0.5e6)
    assert abs(speed.mean()) < 0.03 and abs(speed.std() - 0.8) < 0.02
    assert abs(down.mean()) < 0.02 and abs(down.std() - 0.5) < 0.02
    assert abs(torch.corrcoef(torch.stack([speed, down]))[0, 1] - 0.6) < 0.02
    torch.testing.assert_close(down, up)


def test_drawn_devices_stay_as_they_are_and_do_not_depend_on_how_many_there_are():
    devices = drawn(availability=0.5)
    few, many = devices.at(0.0, 5, draw_of()), devices.at(1e6, 500, draw_of())
    assert same(few[:-1], [column[:5] for column in many[:-1]])


def test_without_spread_drawn_is_constant():
    options = {"availability": 0.4, "dropout": 0.1}
    a = drawn(speed_sigma=0, link_sigma=0, **options).at(5e4, 30, draw_of())
    assert same(a, constant(**options).at(5e4, 30, draw_of()))


def test_diurnal_clients_are_on_for_their_share_of_the_day_in_one_piece():
    devices, N, steps = drawn(diurnal=True, availability=0.25, period_h=24), 200, 96
    day = torch.stack([devices.at(900.0 * step, N, draw_of()).available for step in range(steps)])
    assert bool(((day.sum(0) - 24).abs() <= 1).all())                                 # 24 of the day's 96 quarters
    assert bool(((day != day.roll(1, 0)).sum(0) == 2).all())                          # once on, once off
    assert (day.double().mean(1) - 0.25).abs().max() < 0.15                           # phases are spread
    assert torch.equal(devices.at(86400.0 * 5 + 450, N, draw_of()).available, devices.at(450.0, N, draw_of()).available)


@pytest.mark.parametrize("N, slow, middle, fast", [(10, 3, 5, 2), (1, 0, 1, 0), (100, 30, 50, 20)])
def test_tiers_have_exact_shares(N, slow, middle, fast):
    fleet = tiers(gflops=1, slow=0.3, fast=0.2, slow_factor=0.25, fast_factor=8, down_mbit=8).at(0.0, N, draw_of())
    counts = [int((fleet.speed == speed).sum()) for speed in (0.25e9, 1e9, 8e9)]
    assert counts == [slow, middle, fast] and torch.equal(fleet.down / 1e6, fleet.speed / 1e9)
    assert bool((tiers(links=False, down_mbit=8).at(0.0, N, draw_of()).down == 1e6).all())


@pytest.mark.parametrize("spec", [
    "constant:gflops=0", "constant:down_mbit=nan", "constant:latency_ms=-1", "constant:dropout=1.5",
    "constant:availability=0", "constant:slot_s=0", "drawn:speed_sigma=-1", "drawn:link_sigma=inf",
    "drawn:correlation=2", "drawn:diurnal=true", "drawn:period_h=0",
    "tiers:slow=0.9,fast=0.2", "tiers:slow_factor=2", "tiers:fast_factor=0.5",
    "tiers:slow=nan", "trace:period_s=-1", "trace"])
def test_impossible_devices_are_refused(spec):
    with pytest.raises(UserError, match=f"^{spec}: .* must .*got "):
        make(DEVICES, spec)


# --- traces ---

def test_rows_of_a_trace_hold_until_the_next(written):
    devices = trace(file=written(TRACE))
    fleet = devices.at(0.0, 3, draw_of())
    assert fleet.speed.tolist() == [2e9, 3e9, 2e9] and fleet.available.tolist() == [True, False, True]
    assert fleet.down.tolist() == [1e6, math.inf, 1e6] and fleet.latency.tolist() == [0.01, 0, 0.01]
    assert devices.at(50.0, 2, draw_of()).available.tolist() == [True, True]
    assert devices.at(59.9, 2, draw_of()).dropout.tolist() == [0, 0.5]
    assert devices.at(60.0, 2, draw_of()).speed.tolist() == [2e9, math.inf]
    late = devices.at(1e9, 2, draw_of())
    assert late.speed.tolist() == [4e9, math.inf] and late.available.tolist() == [False, True]


def test_a_trace_may_repeat(written):
    devices = trace(file=written(TRACE), period_s=200.0)
    assert same(devices.at(30.0, 4, draw_of()), devices.at(1030.0, 4, draw_of()))
    before = devices.at(10.0, 2, draw_of())                     # client 1 has its last row still
    assert before.speed.tolist() == [2e9, math.inf] and before.available.tolist() == [True, True]


def test_missing_columns_have_their_usual_values_and_the_digest_is_that_of_the_file(written):
    text = "client\n1\n0\n"
    devices = trace(file=written(text))
    assert devices.digest == hashlib.sha256(text.encode()).hexdigest()
    assert same(devices.at(7.0, 3, draw_of()), none().at(7.0, 3, draw_of()))
    assert none().digest == constant().digest == ""


@pytest.mark.parametrize("text, message", [
    ("", "a header and a row, got no row"), ("client\n", "got no row"), ("# nothing\n\n", "got no row"),
    ("client,speed\n0,1\n", "line 1: columns must be among client, .*got 'speed'"),
    ("time_s,gflops\n0,1\n", "line 1: the header must name client"),
    ("client,client\n0,0\n", "line 1: .*no column twice"),
    ("client,gflops\n0,1\n1\n", "line 3: expected 2 values, got 1"),
    ("client,gflops\n0,fast\n", "line 2: gflops must be a number, got 'fast'"),
    ("client,gflops\n0,0\n", "line 2: gflops must be > 0 .*got 0"),
    ("client,gflops\n0,nan\n", "line 2: gflops must be"),
    ("client,time_s\n0,-1\n", "line 2: time_s must be >= 0"), ("client,time_s\n0,inf\n", "line 2: time_s must be"),
    ("client,dropout\n0,2\n", r"line 2: dropout must be in \[0, 1\], got 2"),
    ("client,available\n0,0.5\n", "line 2: available must be 0 or 1, got 0.5"),
    ("client\n-1\n", "line 2: client must be a whole number >= 0, got '-1'"),
    ("client\n1.5\n", "line 2: client must be"),
    ("client,gflops\n,1\n", "line 2: client must be .*got ''"),
    ("client,time_s\n0,1\n\n0,1.0\n", "line 4: client 0 has a row at 1.0 s already, in line 2"),
    ("client\n0\n2\n", "numbered from 0 without gaps, got no client 1"), ("client\n1\n", "got no client 0"),
    ("client,time_s\n0,200\n", "line 2: time_s must be below period_s=100.0, got 200")])
def test_a_damaged_trace_is_told_by_line(written, text, message):
    with pytest.raises(UserError, match=message):
        make(DEVICES, f"trace:file={written(text)},period_s=100")


def test_a_trace_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match="absent.csv' cannot be read: No such file"):
        make(DEVICES, f"trace:file={tmp_path / 'absent.csv'}")
    (tmp_path / "binary").write_bytes(b"client\n\xff\xfe\n")
    with pytest.raises(UserError, match="must be UTF-8"):
        make(DEVICES, f"trace:file={tmp_path / 'binary'}")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_trace_is_what_a_search_row_by_row_finds(tmp_path_factory, data):
    clients = data.draw(st.integers(1, 4))
    rows = [(n, float(t), data.draw(st.integers(1, 99))) for n in range(clients)
            for t in data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True))]
    path = tmp_path_factory.mktemp("t") / "t.csv"
    lines = [f"{n},{t},{g}\n" for n, t, g in data.draw(st.permutations(rows))]
    path.write_text("client,time_s,gflops\n" + "".join(lines))
    now = data.draw(st.floats(0, 25))
    fleet = trace(file=str(path)).at(now, 6, draw_of())
    for n in range(6):
        own = sorted((t, g) for who, t, g in rows if who == n % clients)
        begun = [row for row in own if row[0] <= now]
        assert fleet.speed[n] == 1e9 * (begun[-1] if begun else own[0])[1] and bool(fleet.available[n]) == bool(begun)


# --- samplers ---

def known_of(N=6, away=(), sizes=None, scores=None, losses=None):
    available = torch.ones(N, dtype=torch.bool)
    available[list(away)] = False
    nothing = torch.full((N,), torch.nan, dtype=torch.float64)
    return ClientRecords(available, torch.arange(1, N + 1, dtype=torch.float64) if sizes is None else double(*sizes),
                 nothing if scores is None else double(*scores), nothing if losses is None else double(*losses))


def frequencies(sampler, count, known, times=4000):
    """(N,) how often each client is drawn."""
    hits, gen = torch.zeros(len(known.available), dtype=torch.float64), rng(5)
    for _ in range(times):
        hits[sampler.draw(gen, count, known)] += 1
    return hits / times


def inclusion(p, count):
    """(n,) exact inclusion probabilities of drawing one after the other in proportion to p, by enumeration."""
    found = np.zeros(len(p))
    for order in itertools.permutations(range(len(p)), count):
        left, chance = sum(p), 1.0
        for n in order:
            chance, left = chance * p[n] / left, left - p[n]
        found[list(order)] += chance
    return found


SPECS = list(SAMPLERS) + ["contribution:floor=0,temperature=1", "power-of-choice:candidates=3,remembered=true",
                          "power-of-choice:candidates=1"]


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), N=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_distinct_available_sorted_clients_and_all_where_there_are_no_more(spec, data, N, seed):
    sampler = make(SAMPLERS, spec)
    away = data.draw(st.sets(st.integers(0, N - 1)))
    values = st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=N, max_size=N)
    known = known_of(N, away, scores=data.draw(values), losses=data.draw(values),
                     sizes=data.draw(st.lists(st.integers(0, 9), min_size=N, max_size=N)))
    before = ClientRecords(*(column.clone() for column in known))
    count = data.draw(st.integers(1, N))
    clients = sampler.draw(rng(seed), count, known)
    assert clients.dtype == torch.int64 and len(clients) == min(count, N - len(away))
    assert clients.tolist() == sorted(set(clients.tolist())) and not set(clients.tolist()) & away
    assert torch.equal(clients, sampler.draw(rng(seed), count, known))
    assert all(torch.equal(a, b) or torch.equal(a.isnan(), b.isnan()) for a, b in zip(before, known))
    assert torch.equal(sampler.draw(rng(seed), N, known_of(N)), torch.arange(N))


@pytest.mark.parametrize("N, count", [(10, 3), (33, 32), (7, 1)])
def test_uniform_draws_what_runs_without_devices_have_always_drawn(N, count):
    drawn_now = uniform().draw(rng(4), count, known_of(N))
    assert drawn_now.tolist() == np.sort(rng(4).choice(N, count, replace=False)).tolist()


def test_uniform_is_uniform_over_who_is_there():
    often = frequencies(uniform(), 2, known_of(5, away=[1]))
    assert often[1] == 0 and (often[[0, 2, 3, 4]] - 0.5).abs().max() < 0.035


@pytest.mark.parametrize("sizes, count", [((5, 3, 2), 2), ((10, 1, 1, 1), 2), ((4, 3, 2, 1, 0), 3)])
def test_size_draws_one_after_the_other_in_proportion(sizes, count):
    often = frequencies(size(), count, known_of(len(sizes), sizes=sizes))
    assert np.abs(often.numpy() - inclusion(sizes, count)).max() < 0.035          # more than 4 standard errors of 4000


def test_a_race_is_in_the_order_of_the_draw_and_who_weighs_nothing_comes_last():
    gen = rng(1)
    orders = [race(gen, [8., 0., 2., 0.], 4).tolist() for _ in range(2000)]
    assert all(set(order[:2]) == {0, 2} for order in orders)
    assert abs(np.mean([order[0] == 0 for order in orders]) - 0.8) < 0.04
    assert abs(np.mean([order[2] == 1 for order in orders]) - 0.5) < 0.05


def test_probabilities_by_contribution_by_hand():
    scores = double(3, -1, math.nan, 1)                       # gains 3, 0, their mean 4/3, 1
    expected = 0.2 / 4 + 0.8 * double(3, 0, 4 / 3, 1) / (16 / 3)
    torch.testing.assert_close(probabilities(scores, 0.2, 0.0), expected)
    everybody = torch.full((4,), 0.25, dtype=torch.float64)
    for alike in (double(-1, -2, -3, -4), double(2, 2, 2, 2), torch.full((4,), torch.nan, dtype=torch.float64)):
        torch.testing.assert_close(probabilities(alike, 0.0, 0.0), everybody)
    torch.testing.assert_close(probabilities(double(2, 2, 2, 2), 0.0, 1.0), everybody)
    soft = probabilities(double(1, -1, math.nan), 0.0, 2.0)   # standard deviation 1
    gain = double(math.exp(.5), math.exp(-.5))
    torch.testing.assert_close(soft, torch.cat([gain / gain.sum(), double(.5)]) / 1.5)


def test_contributors_are_drawn_more_often_and_nobody_is_forgotten():
    known = known_of(4, scores=(6, 2, -1, math.nan))
    often = frequencies(contribution(floor=0.2), 1, known)
    expected = 0.05 + 0.8 * double(6, 2, 0, 8 / 3) / (32 / 3)
    assert (often - expected).abs().max() < 0.035


def test_power_of_choice_keeps_the_largest_losses():
    sampler = power_of_choice(candidates=4)
    assert sampler.candidates == 4
    kept = sampler.choose(2, torch.tensor([1, 4, 5, 7]), double(0.5, 2.0, math.nan, 1.0))
    assert kept.dtype == torch.int64 and kept.tolist() == [4, 7]
    assert choose(2, torch.tensor([1, 4, 5, 7]), double(1, 1, 1, 1)).tolist() == [1, 4]
    assert choose(3, torch.tensor([1, 4, 5]), double(math.nan, 3, math.inf)).tolist() == [1, 4, 5]


def test_candidates_are_drawn_by_size():
    often = frequencies(power_of_choice(candidates=2), 2, known_of(3, sizes=(5, 3, 2)))
    assert np.abs(often.numpy() - inclusion((5, 3, 2), 2)).max() < 0.035


def test_remembered_losses_decide_and_the_unheard_go_first():
    sampler = power_of_choice(candidates=6, remembered=True)
    assert sampler.candidates == 0 and sampler.choose is None
    known = known_of(6, losses=(1, 5, 2, math.nan, 4, 3))
    assert sampler.draw(rng(), 1, known).tolist() == [3] and sampler.draw(rng(), 3, known).tolist() == [1, 3, 4]
    first = frequencies(sampler, 1, known_of(3, sizes=(5, 3, 2)))                 # nobody heard of: by size
    assert (first - double(.5, .3, .2)).abs().max() < 0.035
    alike = known_of(3, sizes=(1, 1, 1), losses=(1, 2, 3))
    of_two = frequencies(power_of_choice(candidates=2, remembered=True), 1, alike)
    assert (of_two - double(0, 1 / 3, 2 / 3)).abs().max() < 0.035                 # the better of two random ones


@pytest.mark.parametrize("spec", ["contribution:floor=2", "contribution:temperature=-1", "contribution:temperature=inf",
                                  "power-of-choice:candidates=0"])
def test_impossible_samplers_are_refused(spec):
    with pytest.raises(UserError, match=f"^{spec}: .* must be"):
        make(SAMPLERS, spec)


# --- timing ---

def test_sync_waits_for_all_unless_told():
    assert sync()[:6] == (math.inf, 0.0, 0, 0, None, False)
    assert sync(deadline=30.0, over=0.3)[:3] == (30.0, 0.3, 0)


@pytest.mark.parametrize("options, expected", [
    ({"staleness": "constant"}, [.6, .6, .6, .6]), ({}, [.6, .3, .2, .06]),
    ({"staleness": "hinge", "a": 10.0, "b": 4.0}, [.6, .6, .6 / 41, .6 / 951]),
    ({"alpha": 1.0, "staleness": "polynomial", "a": 1.0}, [1, 1 / 4, 1 / 9, 1 / 100])])
def test_staleness_as_fedasync_defines_it(options, expected):
    part = fedasync(**options)
    torch.testing.assert_close(part.discount(double(0, 3, 8, 99)), double(*expected))
    assert part.buffer == 1 and part.mixing and part.deadline == math.inf


def test_fedbuff_scales_by_the_root_of_staleness():
    part = fedbuff(server_lr=2.0, concurrency=7)
    assert (part.buffer, part.concurrency, part.mixing) == (10, 7, False)
    torch.testing.assert_close(part.discount(double(0, 3, 8)), double(2, 1, 2 / 3))
    assert fedbuff().discount(double(0)).tolist() == [1.0]


@pytest.mark.parametrize("spec", [
    "sync:deadline=-1", "sync:deadline=nan", "sync:over=-0.1", "sync:over=inf", "fedasync:alpha=0",
    "fedasync:alpha=1.1", "fedasync:staleness=linear",
    "fedasync:a=-1", "fedasync:b=nan", "fedasync:concurrency=-1", "fedbuff:buffer=0",
    "fedbuff:a=inf", "fedbuff:server_lr=0", "fedbuff:concurrency=-1"])
def test_impossible_timing_is_refused(spec):
    with pytest.raises(UserError, match=f"^{spec}: .* must be"):
        make(TIMINGS, spec)


# --- the clock ---

def test_seconds_of_a_client_by_hand():
    fleet = Fleet(double(1e9, 2e9, math.inf), double(100, 200, math.inf), double(10, math.inf, 20), double(.5, 0, .25),
                  double(0, 0, 0), torch.ones(3, dtype=torch.bool))
    found = durations(fleet, torch.tensor([2, 0, 1]), double(300, 300, 300), double(4e9, 4e9, 4e9), double(30, 40, 50))
    assert found.dtype == torch.float64 and found.tolist() == [.5 + 1.5, 1 + 3 + 4 + 4, 1.5 + 2]


@pytest.mark.parametrize("arrival, count, deadline, expected, seconds", [
    ([3, 1, 2], 3, math.inf, [1, 1, 1], 3), ([3, 1, 2], 2, math.inf, [0, 1, 1], 2), ([3, 1, 2], 2, 1.5, [0, 1, 0], 1.5),
    ([3, 1, 2], 2, 2, [0, 1, 1], 2), ([5, 5, 5], 2, math.inf, [1, 1, 0], 5), ([5, 5, 5], 3, 4, [0, 0, 0], 4),
    ([math.inf, 1], 2, math.inf, [0, 1], 1), ([math.inf, 1], 2, 9, [0, 1], 9), ([math.inf] * 2, 1, math.inf, [0, 0], 0),
    ([0, 0, 0], 2, math.inf, [1, 1, 0], 0), ([], 1, 7, [], 7), ([1, 2], 5, math.inf, [1, 1], 2)])
def test_who_answers_in_time_and_how_long_the_round_is(arrival, count, deadline, expected, seconds):
    arrival = double(*arrival)
    counted = in_time(arrival, count, deadline)
    assert counted.tolist() == [bool(each) for each in expected]
    assert round_s(arrival, counted, count, deadline) == seconds


@settings(max_examples=60, deadline=None)
@given(arrival=st.lists(st.integers(0, 6) | st.just(math.inf), max_size=8), count=st.integers(1, 8),
       deadline=st.integers(0, 7) | st.just(math.inf))
def test_nobody_counted_comes_after_somebody_who_is_not(arrival, count, deadline):
    arrival = double(*arrival)
    counted = in_time(arrival, count, deadline)
    possible = (arrival <= deadline) & arrival.isfinite()
    assert int(counted.sum()) == min(count, int(possible.sum())) and not (counted & ~possible).any()
    for row, other in itertools.product(torch.nonzero(counted).flatten(), torch.nonzero(possible & ~counted).flatten()):
        assert (arrival[row], row) < (arrival[other], other)
    assert round_s(arrival, counted, count, deadline) <= deadline


def test_who_drops_out_does_not_depend_on_who_was_asked():
    fleet = constant(dropout=0.3).at(0.0, 5000, draw_of())
    everybody = dropped(fleet, torch.arange(5000), rng(2))
    assert everybody.dtype == torch.bool and abs(everybody.double().mean() - 0.3) < 0.03
    assert torch.equal(dropped(fleet, torch.tensor([17, 4, 4000]), rng(2)), everybody[[17, 4, 4000]])
    never, always = (fleet._replace(dropout=torch.full_like(fleet.dropout, p)) for p in (0.0, 1.0))
    assert not dropped(never, torch.arange(5000), rng()).any() and dropped(always, torch.arange(5000), rng()).all()


@pytest.mark.parametrize("finish, lower, number, row", [
    ([3, 1, 2], [0, 0, 0], [0, 1, 2], 1), ([3, math.nan, 2], [0, 2.5, 0], [0, 1, 2], 2),
    ([3, math.nan, 2], [0, 1.5, 0], [0, 1, 2], 1), ([2, 2, math.nan], [9, 9, 2], [7, 5, 3], 2),
    ([2, 2, math.nan], [9, 9, 2], [7, 5, 8], 1), ([0], [math.nan], [4], 0)])
def test_the_earliest_answer_is_by_time_then_by_start(finish, lower, number, row):
    state = {"finish": double(*finish), "number": torch.tensor(number)}
    assert earliest(state, double(*lower)) == row


@settings(max_examples=60, deadline=None)
@given(data=st.data(), M=st.integers(1, 6))
def test_finding_out_late_gives_the_same_order_of_arrivals(data, M):
    """An event loop that knows each finish only when it must, against sorting by the truth."""
    truth = double(*(data.draw(st.integers(0, 5)) for _ in range(M)))
    lower = truth * data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    number = torch.tensor(data.draw(st.permutations(range(M))))
    state, arrived = {"finish": torch.full_like(truth, torch.nan), "number": number}, []
    left = torch.arange(M)
    while len(left):
        part = {name: column[left] for name, column in state.items()}
        row = left[earliest(part, lower[left])]
        if state["finish"][row].isnan():
            state["finish"][left] = truth[left]
            continue
        arrived.append(int(row))
        left = left[left != row]
    assert arrived == sorted(range(M), key=lambda m: (truth[m], number[m]))
