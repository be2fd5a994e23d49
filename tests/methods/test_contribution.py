"""Contributions and weightings: the contracts over the catalogue, then scores and weights by hand."""

import contracts
import pytest
import torch

from fedmpi.catalog import CONTRIBUTIONS, WEIGHTINGS
from fedmpi.methods.contribution.cosine import (_by_passes, _by_products, _gram, cosine, cosines,
                                                loo_cosine)
from fedmpi.methods.contribution.loo import loo
from fedmpi.core.parts import Cohort, Round, Updates
from fedmpi.laws import scoring
from fedmpi.methods.weighting.minmax import minmax
from fedmpi.methods.weighting.proportional import proportional
from fedmpi.methods.weighting.relu import relu
from fedmpi.methods.weighting.softmax import softmax
from fedmpi.methods.weighting.tanh import tanh
from fedmpi.methods.weighting.thesis import thesis

SPECS = [*CONTRIBUTIONS, "loo:of=accuracy"]
WEIGHINGS = [*WEIGHTINGS, "thesis:schedule=thesis,start=zero", "thesis:gamma=1", "relu:memory=0,floor=0",
             "relu:memory=1",
             "proportional:size_power=0", "tanh:score_power=2", "softmax:standard=false", "min-max:floor=0,memory=0"]
SIZES = torch.tensor([10., 20., 30., 40.], dtype=torch.float64)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def updates(U, B=None, trained=None):
    U = torch.as_tensor(U, dtype=torch.float32)
    return Updates(U, B, torch.arange(U.shape[1], dtype=torch.int32), torch.ones(len(U), dtype=torch.float64),
                   U.shape[1] if trained is None else trained)


def cohort(clients, given=None, t=1, rounds=200):
    shares = SIZES[clients] / SIZES[clients].sum() if max(clients) < 4 else None
    return Cohort(torch.tensor(clients), given, Round(t, rounds), shares, None, None)


@pytest.mark.parametrize("spec", SPECS)
def test_contributions_keep_the_contract(spec):
    scoring.contribution(spec)


@pytest.mark.parametrize("spec", WEIGHINGS)
def test_weightings_keep_the_contract(spec):
    scoring.weighting(spec)


@pytest.mark.parametrize("weighting", ["relu", "softmax", "thesis:schedule=thesis", "uniform"])
def test_absent_clients_keep_their_state_in_real_rounds(weighting):
    run, state = contracts.assembled(contribution="loo", weighting=weighting, clients=5, cohort=2, rounds=4)
    for after in contracts.run_rounds(run, state, 3)[0]:
        absent = after["last_round_of"] == state["last_round_of"]
        for name, tensor in after["weighting"].items():
            old = state["weighting"][name]
            a, b = (v[absent].double() for v in (tensor, old))
            scale = float(b.sum() / a.sum()) if name == "weights" else 1
            torch.testing.assert_close(a * scale, b, rtol=1e-12, atol=0)
        state = after


# --- cosines ---

@pytest.mark.parametrize("a, r",
                         [([.9, .5, .1, 0, .7], [.2, .2, .2, .2, .2]), ([.3, .3, .8, .6, -.4], [.5, .1, .1, .2, .1])])
def test_self_term_formula_of_the_methods(a, r):
    """``cos(u_n, U) = (a_n A + (1 - a_n^2) r_n) / |U|`` for u_n = a_n c + sqrt(1 - a_n^2) e_n."""
    a, r = double(*a), double(*r)
    u = torch.cat([a[:, None], torch.diag((1 - a * a).sqrt())], dim=1)
    A = float(r @ a)
    norm = (A ** 2 + (r * r * (1 - a * a)).sum()).sqrt()
    scales = torch.tensor([1., 10, .1, 3, 7])[:, None]                       # lengths do not matter
    got = cosines(updates(u.float() * scales), r)
    torch.testing.assert_close(got, (a * A + (1 - a * a) * r) / norm, rtol=0, atol=1e-6)
    others = A - r * a                                                       # without the client itself
    left = (others ** 2 + (r * r * (1 - a * a)).sum() - r * r * (1 - a * a)).sqrt()
    torch.testing.assert_close(cosines(updates(u.float() * scales), r, True), a * others / left, rtol=0, atol=1e-6)


def test_without_agreement_cosine_pays_size_and_leave_one_out_nothing():
    r = double(.4, .3, .2, .1)
    private = updates(torch.eye(4) * 5)
    torch.testing.assert_close(cosines(private, r), r / r.norm())            # a_n = 0: exactly in proportion to r
    assert cosines(private, r, leave_one_out=True).abs().max() < 1e-12


def test_cosines_by_hand():
    given, r = updates([[2., 0], [0, 3], [-1, 0]]), double(.5, .3, .2)
    # units e1, e2, -e1; U = (.3, .3)
    torch.testing.assert_close(cosines(given, r), double(1, 1, -1) / 2 ** .5)
    # without 1: (-.2, .3); without 2: (.3, 0); without 3: (.5, .3)
    torch.testing.assert_close(cosines(given, r, True), double(-.2 / .13 ** .5, 0, -.5 / .34 ** .5))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_a_zero_update_scores_zero_and_disturbs_nobody(own, leave_one_out):
    U = torch.tensor([[1., 2, 0], [0, 0, 0], [2, 1, 1]])
    B = torch.ones(3, 3, dtype=torch.bool) if own else None
    psi = cosines(updates(U, B), double(.4, .2, .4), leave_one_out)
    others = cosines(updates(U[[0, 2]], None if B is None else B[:2]), double(.5, .5), leave_one_out)
    assert float(psi[1]) == 0
    torch.testing.assert_close(psi[[0, 2]], others)
    assert not cosines(updates(U * 0, B), double(.4, .2, .4), leave_one_out).any()


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_held_cosines_equal_plain_ones_where_all_masks_are_full(leave_one_out):
    gen = torch.Generator().manual_seed(0)
    U, r = torch.randn(6, 300, generator=gen), torch.rand(6, generator=gen, dtype=torch.float64)
    r = r / r.sum()
    plain = cosines(updates(U), r, leave_one_out)
    torch.testing.assert_close(cosines(updates(U, torch.ones(6, 300, dtype=torch.bool)), r, leave_one_out), plain)


def test_held_cosines_by_hand():
    B = torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.bool)
    given = updates([[3., 4, 0], [0, 1, 0]], B)
    # units (.6, .8, -), (-, 1, 0); means over holders (.6, .9, 0)
    expected = double((.36 + .72) / (.36 + .81) ** .5, 1.0)
    torch.testing.assert_close(cosines(given, double(.5, .5)), expected)
    # without itself the first sees (-, 1), the second (.8, -)
    torch.testing.assert_close(cosines(given, double(.5, .5), True), double(.8, 1.0))


def test_a_small_mask_alone_does_not_lower_a_score():
    """Both point along the common direction on what they hold."""
    U, B = torch.ones(3, 8), torch.ones(3, 8, dtype=torch.bool)
    U[2, 2:], B[2, 2:] = 0, False
    psi = cosines(updates(U, B), double(.3, .3, .4), True)
    assert float(psi[2]) == pytest.approx(1) and cosines(updates(U), double(.3, .3, .4), True)[2] < .6


def test_running_statistics_do_not_count():
    U = torch.tensor([[1., 0, 9], [0, 1, 9]])
    assert cosines(updates(U, trained=2), double(.5, .5), True).abs().max() < 1e-12
    held = updates(U, torch.ones(2, 3, dtype=torch.bool), trained=2)
    assert cosines(held, double(.5, .5), True).abs().max() < 1e-12


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("C", [2, 3, 32, 64])
def test_one_product_gives_the_cosines_of_two_passes(C, leave_one_out):
    """Within 1e-6: ordinary updates, the largest that are accepted, faint ones, and all of them together."""
    gen = torch.Generator().manual_seed(C)
    U = torch.randn(C, 20_000, generator=gen) + torch.randn(20_000, generator=gen) / 2
    r = torch.rand(C, generator=gen).double() + .1
    r /= r.sum()
    for scale in (1.0, 1e5, 1e-9, 10.0 ** (torch.arange(C) % 13 - 8)[:, None]):
        one, two = _by_products(_gram(U * scale), r, leave_one_out), _by_passes(U * scale, r, leave_one_out)
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("apart", [1, .3, .2, .1, .01, 1e-3, 1e-4])
def test_updates_that_nearly_cancel_are_not_scored_by_rounding_errors(apart, leave_one_out):
    """Pairs of opposites, ``apart`` from each other: where what is left of the mean is small, one product will not
    do."""
    gen = torch.Generator().manual_seed(0)
    common = torch.randn(20_000, generator=gen)
    U = torch.stack([common, -common, common, -common]) + apart * torch.randn(4, 20_000, generator=gen)
    r = torch.full((4,), .25).double()
    assert (_by_products(_gram(U), r, leave_one_out) is None) == (apart <= .1 and not leave_one_out)
    torch.testing.assert_close(cosines(updates(U), r, leave_one_out), _by_passes(U, r, leave_one_out),
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_updates_too_faint_to_square_have_the_cosines_of_large_ones(leave_one_out):
    """1e-25: their squares are 0 in float32, so the one product cannot serve."""
    U = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    r = double(.1, .2, .3, .4)
    assert not _gram(U * 1e-25).diagonal().any()
    torch.testing.assert_close(cosines(updates(U * 1e-25), r, leave_one_out), cosines(updates(U), r, leave_one_out),
                               rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 21, 300, 1 << 16])
def test_cosines_do_not_depend_on_how_updates_are_cut(monkeypatch, block):
    monkeypatch.setattr("fedmpi.core.reduce.BLOCK", block)
    U, r = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)), double(.5, .2, .3)
    unit = U.double() / U.double().norm(dim=1, keepdim=True)
    mean = r @ unit
    torch.testing.assert_close(cosines(updates(U), r), unit @ mean / mean.norm())
    others = mean - r[:, None] * unit
    torch.testing.assert_close(cosines(updates(U), r, True),
                               (unit * others).sum(1) / mean.sub(r[:, None] * unit).norm(dim=1))


def test_scores_use_the_cohorts_own_shares():
    given = cohort([0, 2], updates([[1., 0], [0, 1]]))
    torch.testing.assert_close(cosine().score({}, given, None, None).phi, double(.25, .75) / double(.25, .75).norm())
    assert loo_cosine().score({}, given, None, None).phi.abs().max() < 1e-12


# --- the thesis's mixing ---

@pytest.mark.parametrize("schedule", ["constant", "thesis"])
def test_gamma_1_gives_the_data_shares_for_all_rounds(schedule):
    init, weigh, *_ = thesis(1.0, schedule)
    state = init(SIZES)
    for t in range(1, 50):
        state, weights = weigh(state, double(.9, -.5, .1, 0), cohort([0, 1, 2, 3], t=t))
        assert torch.equal(weights, SIZES / 100)


def shares_left(gamma, schedule, rounds, normalised=False):
    """What is left of the prior after 1, 10 and 200 rounds of equal scores that sum to 5 (or to 1)."""
    sizes = double(*[1] * 9, 11)
    init, weigh, *_ = thesis(gamma, schedule, floor=0.0)
    state, left = init(sizes), {}
    phi = torch.full((10,), 0.1 if normalised else 0.5, dtype=torch.float64)
    for t in range(1, max(rounds) + 1):
        state, _ = weigh(state, phi, cohort(list(range(10)), t=t))
        left[t] = float((state["weights"] / state["weights"].sum())[9] - .1) / (.55 - .1)
    return [left[t] for t in rounds]


@pytest.mark.parametrize("gamma, expected",
                         [(.5, (.167, .003, 0)), (.7, (.318, .023, .0003)), (.9, (.643, .254, .059))])
def test_scale_mismatch_table_of_the_methods(gamma, expected):
    left = shares_left(gamma, "thesis", (1, 10, 200))
    tolerance = [0.51 * 10 ** -len(str(want).partition(".")[2]) if want else 1e-5 for want in expected]
    assert all(abs(have - want) <= t for have, want, t in zip(left, expected, tolerance, strict=True))


def test_scores_of_sum_1_would_leave_what_gamma_says():
    assert shares_left(.7, "constant", (1, 2, 3), normalised=True) == pytest.approx([.7, .49, .343])


def test_thesis_mixing_by_hand():
    init, weigh, *_ = thesis(.6, floor=.05)
    state, now = weigh(init(SIZES), double(.5, -1, 0, .1), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(now, double(.1, .2, .3, .4))                   # this round still by size
    mixed = double(.06 + .2, .05, .18, .24 + .04)                             # .12 - .4 is below the floor
    torch.testing.assert_close(state["weights"] / state["weights"].sum(), mixed / mixed.sum())
    torch.testing.assert_close(weigh(state, double(0, 0), cohort([1, 3]))[1], double(.05, .28) / .33)


def test_scores_that_start_at_zero_forget_the_sizes():
    init, weigh, *_ = thesis(.6, start="zero", floor=1e-3)
    state, now = weigh(init(SIZES), double(.5, .25, .25, 1), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(now, SIZES / 100)
    torch.testing.assert_close(state["weights"] / 100, double(.25, .125, .125, .5))
    state, now = weigh(state, double(0, 0, 0, 1), cohort([0, 1, 2, 3], t=2))
    mixed = double(.15, .075, .075, .3 + .4)
    torch.testing.assert_close(state["weights"] / state["weights"].sum(), mixed / mixed.sum())


# --- the clean rule ---

def test_clean_mixing_by_hand():
    init, weigh, *_ = relu(memory=.5, floor=0.0)
    state, weights = weigh(init(SIZES), double(3, -1, 1, 0), cohort([0, 1, 2, 3]))
    s = double(.5 * .25 + .5 * .75, .125, .125 + .125, .125)
    torch.testing.assert_close(state["score"], s)
    torch.testing.assert_close(weights, SIZES * s / (SIZES * s).sum())         # at once


def test_clean_mixing_keeps_the_cohorts_mass():
    init, weigh, *_ = relu(memory=.5, floor=0.0)
    state, _ = weigh(init(SIZES), double(1, 0), cohort([1, 2]))
    torch.testing.assert_close(state["score"], double(.25, .375, .125, .25))


def test_scores_without_a_positive_one_change_nothing():
    init, weigh, *_ = relu()
    state, weights = weigh(init(SIZES), double(-1, 0, -3, 0), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(weights, SIZES / 100)
    torch.testing.assert_close(state["score"], double(.25, .25, .25, .25))


def test_the_floor_is_a_share_of_the_mean_score():
    init, weigh, *_ = relu(memory=0.0, size_power=0.0, floor=.4)
    _, weights = weigh(init(SIZES), double(1, 0, 0, 0), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(weights, double(1, .1, .1, .1) / 1.3)


@pytest.mark.parametrize("size_power, score_power, expected", [(1, 0, [.1, .2, .3, .4]), (0, 1, [.75, 0, .25, 0]),
                                                               (0, 2, [.9, 0, .1, 0]), (0, 0, [.25] * 4)])
def test_the_powers_choose_between_size_and_score(size_power, score_power, expected):
    init, weigh, *_ = relu(memory=0.0, size_power=size_power, score_power=score_power, floor=0.0)
    _, weights = weigh(init(SIZES), double(3, 0, 1, -2), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(weights, double(*expected))


# --- leave-one-out ---

def test_loo_on_a_table_game():
    table = {(1, 1, 1): 10., (0, 1, 1): 4., (1, 0, 1): 10., (1, 1, 0): 12.}
    asked = []

    def utility(coalitions, of="loss"):
        asked.extend(tuple(map(int, row)) for row in coalitions)
        return double(*[table[key] for key in asked[-len(coalitions):]])

    phi = loo().score({}, cohort([5, 7, 9]), utility, None).phi
    assert phi.tolist() == [6, 0, -2] and len(asked) == 4


def test_loo_asks_the_real_model_once_a_client_and_once_for_all():
    run, state = contracts.assembled(contribution="loo", clients=4)
    _, rows = contracts.run_rounds(run, state, 1)
    assert rows[0]["utility_calls"] == 5


def test_loo_finds_the_client_with_wrong_labels():
    run, state = contracts.assembled(contribution="loo", weighting="relu:memory=0", clients=4,
                                     noise="symmetric:rate=1,share=0.25", lr=0.1, validation=0.3)
    states, _ = contracts.run_rounds(run, state, 4)
    labels = run.transport.worker.data
    truth = contracts.assembled(contribution="loo", clients=4, noise="none", lr=0.1,
                                validation=0.3)[0].transport.worker.data["labels"]
    wrong = [float((labels["labels"][a:b] != truth[a:b]).mean())
             for a, b in zip(labels["offsets"][:4], labels["offsets"][1:5])]
    assert sorted(wrong) == [0, 0, 0, 1]
    assert int(states[-1]["weighting"]["score"].argmin()) == wrong.index(1)


def test_size_and_uniform_by_hand():
    given = cohort([0, 2], updates(torch.zeros(2, 1))._replace(n=double(10, 30)))
    for spec, expected in (("size", [.25, .75]), ("uniform", [.5, .5])):
        phi = contracts.make(CONTRIBUTIONS, spec).score({}, given, None, None).phi
        assert (phi / phi.sum()).tolist() == expected
        weighting = contracts.make(WEIGHTINGS, spec)
        assert weighting.weigh(weighting.init(SIZES), torch.zeros(2, dtype=torch.float64),
                               given)[1].tolist() == expected


@pytest.mark.parametrize("make, gains", [
    (relu, [3, 0, 1, 0]), (proportional, [5, 0, 3, 2]), (minmax, [1, 0, .6, .4]),
    (lambda **o: softmax(2.0, standard=False, **o), [torch.e ** (v / 2) for v in (3, -2, 1, 0)]),
    (lambda **o: softmax(1.0, **o), [torch.e ** (v / 3.25 ** .5) for v in (3, -2, 1, 0)]),
    (lambda **o: tanh(2.0, **o), [torch.tanh(torch.tensor(2 * max(v, 0) / 3)).item() for v in (3, -2, 1, 0)])])
def test_maps_by_hand(make, gains):
    init, weigh, *_ = make(memory=0.0, size_power=0.0, floor=0.0)
    _, weights = weigh(init(SIZES), double(3, -2, 1, 0), cohort([0, 1, 2, 3]))
    torch.testing.assert_close(weights, double(*gains) / sum(gains), rtol=1e-6, atol=1e-9)
    _, alone = weigh(init(SIZES), double(-2.), cohort([1]))
    assert alone.tolist() == [1]


def test_who_stands_alone_scores_nothing_beside_others_of_length_0():
    gen = torch.Generator().manual_seed(0)
    for seed in range(300):
        U = torch.zeros(4, 37)
        U[seed % 4] = torch.randn(37, generator=gen)
        assert cosines(updates(U), torch.full((4,), .25).double(), True).abs().max() == 0
