"""Game-theoretic contributions on table games with known answers: axioms, budgets, stopping, agreement."""

import itertools
import math

import games
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.methods.contribution import comfedsv as completion
from fedmpi.methods.contribution import gtg_shapley, tmc_shapley
from fedmpi.methods.contribution.game import gains, powerset, prefixes, shapley_value
from fedmpi.methods.contribution.gtg_shapley import assigned
from fedmpi.methods.contribution.least_core import least_deficit, least_norm
from fedmpi.methods.contribution.shapley_mc import half_width
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Facts, Updates

EXACT = ["shapley", "mr-shapley", "banzhaf:limit=12", "least-core"]
SAMPLED = ["shapley-mc", "shapley-mc:antithetic=false,tolerance=0", "tmc-shapley", "tmc-shapley:tolerance=0,lanes=3",
           "gtg-shapley", "gtg-shapley:balance=false,eps_inside=0", "comfedsv", "least-core-mc",
           "banzhaf:limit=1,samples=64"]
ALL = EXACT + SAMPLED + ["accuracy-gain", "loss-gain"]
SHAPLEY = ["shapley", "mr-shapley", "shapley-mc", "tmc-shapley:tolerance=0", "gtg-shapley:eps_inside=0", "comfedsv"]
TERMS = [.5, -.2, .1, 0., .3]


def part(spec):
    return make(catalog.CONTRIBUTIONS, spec)


def refusals(spec, cohort):
    """Why an estimator cannot work for a cohort."""
    return list(part(spec).refuses(Facts(None, largest=cohort)))


def played(spec, v, seed=0, clients=None, **options):
    """``(Scores, Asked)`` of one round of the game ``v`` among all its players, or ``clients``."""
    made, C = part(spec), int(math.log2(len(v)))
    cohort = games.cohort(C if clients is None else clients, **options)
    asked = games.Asked(v, cohort.clients)
    return made.score(made.init(torch.ones(C).double()), cohort, asked, np.random.default_rng(seed)), asked


def phi(spec, v, seed=0, **options):
    return played(spec, v, seed, **options)[0].phi


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=tolerance)


# --- laws ---

@pytest.mark.parametrize("spec", SHAPLEY + ["banzhaf", "least-core", "loss-gain"])
def test_additive_games_pay_their_terms(spec):
    close(phi(spec, games.additive(TERMS, start=-2.3)), TERMS, 1e-7)


@pytest.mark.parametrize("spec", SHAPLEY)
@pytest.mark.parametrize("v", [games.GLOVE, games.ODD, games.random(5, 1), games.saturating([.9, .5, .1, -.3])],
                         ids=["glove", "odd", "random", "saturating"])
def test_scores_sum_to_what_all_gained(spec, v):
    assert float(phi(spec, v).sum()) == pytest.approx(float(v[-1] - v[0]), abs=1e-9)


@pytest.mark.parametrize("spec", EXACT + ["comfedsv:permutations=24"])
def test_likes_are_paid_alike_and_a_null_player_nothing(spec):
    found = phi(spec, games.ODD)
    assert float(found[0] - found[1]) == pytest.approx(0, abs=1e-7)
    assert spec == "least-core" or float(found[2]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("spec", ["shapley-mc", "tmc-shapley:tolerance=0", "gtg-shapley:eps_inside=0",
                                  "banzhaf:limit=1"])
def test_a_null_player_gets_nothing_of_samples_either(spec):
    assert float(phi(spec, games.ODD)[2]) == pytest.approx(0, abs=.5 if "banzhaf" in spec else 1e-12)


@pytest.mark.parametrize("spec", ["shapley", "banzhaf", "shapley-mc:permutations=8,tolerance=0",
                                  "gtg-shapley:balance=false,eps_inside=0,permutations=5,eps_round=0"])
def test_scores_are_linear_in_the_game(spec):
    a, b = games.random(5, 2), games.random(5, 3)
    close(phi(spec, 2 * a - 3 * b), 2 * phi(spec, a) - 3 * phi(spec, b))


@pytest.mark.parametrize("spec", ALL + ["shapley-mc:batch=4", "tmc-shapley:window=20", "gtg-shapley:permutations=999"])
@pytest.mark.parametrize("factor", [2.0 ** 20, 2.0 ** -20])
def test_the_unit_of_the_utility_does_not_matter(spec, factor):
    """Neither for what is asked, nor for the scores in that unit; powers of 2 scale without rounding."""
    v = games.saturating(np.linspace(.4, 1.2, 6)) - 2.3
    (found, asked), (scaled, again) = played(spec, v), played(spec, factor * v)
    assert asked.distinct == again.distinct and asked.calls == again.calls
    close(scaled.phi / factor, found.phi, 1e-7 if "core" in spec else 1e-12)
    assert found.error is None or torch.allclose(scaled.error / factor, found.error, rtol=1e-9)


@pytest.mark.parametrize("spec", ALL)
def test_a_constant_game_pays_exactly_nothing(spec):
    found, _ = played(spec, torch.full((16,), -2.3026, dtype=torch.float64))
    assert found.phi.tolist() == [0.0] * 4
    assert found.error is None or found.error.tolist() == [0.0] * 4


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("v", [[1., 3.], [1., 3., 2., 7.]])
def test_one_client_and_two(spec, v):
    v = torch.tensor(v, dtype=torch.float64)
    found, _ = played(spec, v)
    C = len(v) // 2
    assert found.phi.shape == (C,) and found.phi.dtype == torch.float64 and bool(found.phi.isfinite().all())
    assert found.error is None or bool((found.error >= 0).all())
    if spec in EXACT[:3] + ["gtg-shapley", "comfedsv"]:
        close(found.phi, [2.] if C == 1 else [3.5, 2.5], 1e-7)


@pytest.mark.parametrize("spec", ALL)
def test_scores_follow_clients_whatever_the_order_of_rows(spec):
    v, order = games.random(5, 4), [3, 0, 4, 2, 1]
    close(phi(spec, v, clients=order), phi(spec, v)[order], 0)


@pytest.mark.parametrize("spec", EXACT)
def test_names_of_players_do_not_matter(spec):
    v, order = games.random(5, 5), [3, 0, 4, 2, 1]
    close(phi(spec, games.swapped(v, order))[order], phi(spec, v))


@pytest.mark.parametrize("spec", ALL)
def test_equal_generators_give_equal_scores(spec):
    v = games.random(6, 6)
    assert torch.equal(phi(spec, v, 7), phi(spec, v, 7))
    if spec in SAMPLED:
        assert not torch.equal(phi(spec, v, 7), phi(spec, v, 8))


@pytest.mark.parametrize("spec", [s for s in ALL if "-gain" not in s])
def test_the_kind_of_utility_is_an_option(spec):
    assert played(spec, games.ODD)[1].of == {"loss"}
    assert played(spec + ("," if ":" in spec else ":") + "of=accuracy", games.ODD)[1].of == {"accuracy"}
    with pytest.raises(UserError, match="of must be loss, headline or accuracy, got 'auc'"):
        part(spec.partition(":")[0] + ":of=auc")


@pytest.mark.parametrize("spec, message", [
    ("shapley:limit=40", "limit must be in 1..24"), ("shapley-mc:budget=1", "budget must be 0"),
    ("gtg-shapley:budget=-1", "budget must be 0"), ("tmc-shapley:budget=1", "budget must be 0"),
    ("shapley-mc:confidence=1", "confidence must be in"), ("shapley-mc:permutations=2", "permutations must be >= 4"),
    ("tmc-shapley:tolerance=-1", "tolerance must be >= 0"), ("tmc-shapley:lanes=0", "lanes must be >= 1"),
    ("gtg-shapley:eps_round=-1", "eps_round"), ("gtg-shapley:permutations=0", "permutations must be >= 1"),
    ("mr-shapley:decay=0", "decay must be in"), ("or-shapley:every=-1", "every must be >= 0"),
    ("comfedsv:ridge=0", "ridge must be > 0"), ("comfedsv:rank=0", "rank"),
    ("least-core-mc:samples=0", "samples must be >= 1"),
    ("banzhaf:samples=3", "samples must be >= 4"), ("shapley-mc:tolerance=-.1", "tolerance must be >= 0")])
def test_options_out_of_range_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        part(spec)


@pytest.mark.parametrize("spec", ["shapley:limit=3", "mr-shapley:limit=3", "least-core:limit=3", "or-shapley:limit=3"])
def test_too_large_cohorts_are_refused_with_the_way_out(spec):
    assert refusals(spec, 3) == []
    line, = refusals(spec, 4)
    assert line.startswith("a cohort of 4 clients has 2^4 coalitions, and limit=3 clients; use ")


# --- exact values ---

@pytest.mark.parametrize("v", [games.random(6, 8), games.saturating([1., .4, .2, -.1, 0.]), games.GLOVE, games.ODD],
                         ids=["random", "saturating", "glove", "odd"])
def test_shapley_agrees_with_all_permutations(v):
    close(phi("shapley", v), games.shapley(v), 1e-12)


def test_shapley_of_known_games():
    close(phi("shapley", games.squares(6)), [6.] * 6, 1e-12)
    close(phi("shapley", games.GLOVE), [2 / 3, 1 / 6, 1 / 6], 1e-12)
    found, asked = played("shapley", games.squares(12))
    assert asked.calls == 1 and len(asked.distinct) == 4096 and found.error is None
    close(found.phi, [12.] * 12, 1e-9)


def test_banzhaf_of_known_games():
    close(phi("banzhaf", games.MAJORITY), [.5] * 3, 1e-15)
    close(phi("banzhaf", games.GLOVE), [.75, .25, .25], 1e-15)


def test_gain_is_the_gain_of_one_alone():
    v = games.random(4, 9)
    found, asked = played("loss-gain", v)
    close(found.phi, [v[1] - v[0], v[2] - v[0], v[4] - v[0], v[8] - v[0]], 0)
    assert (asked.calls, len(asked.distinct), asked.of) == (1, 5, {"loss"})
    assert played("accuracy-gain", v)[1].of == {"headline"}


# --- sampled values ---

@pytest.mark.parametrize("spec", [
    "shapley-mc:tolerance=0,permutations=64,antithetic=false", "shapley-mc:tolerance=0,permutations=64",
    "tmc-shapley:tolerance=0,permutations=64,change=0", "banzhaf:limit=1,samples=64"])
def test_standard_errors_cover_the_exact_value(spec):
    """95 % intervals hold it in about 95 of 100 clients and seeds, no matter the number of clients."""
    v = games.saturating([1.2, .8, .5, .3, -.2], 2.0)
    truth = phi("banzhaf", v) if "banzhaf" in spec else games.shapley(v)
    inside = []
    for seed in range(200):
        found, _ = played(spec, v, seed)
        inside.append(((found.phi - truth).abs() <= 2.04 * found.error + 1e-12).double())
    share = float(torch.stack(inside).mean())
    assert 0.92 < share < 0.98, share


@pytest.mark.parametrize("spec", ["shapley-mc:tolerance=0.002", "tmc-shapley:tolerance=0,change=0,permutations=4000",
                                  "banzhaf:limit=1,samples=9000"])
def test_long_sampling_comes_close(spec):
    v = games.random(5, 10)
    truth = phi("banzhaf", v) if "banzhaf" in spec else games.shapley(v)
    found, _ = played(spec, v)
    assert bool(((found.phi - truth).abs() < 4 * found.error).all()) and float(found.error.max()) < 0.05


def test_antithetic_pairs_have_smaller_errors_where_gains_fall():
    v = games.saturating(np.linspace(.1, 1, 8))
    plain, _ = played("shapley-mc:tolerance=0,permutations=200,antithetic=false", v)
    pairs, _ = played("shapley-mc:tolerance=0,permutations=200", v)
    assert float((pairs.error / plain.error).mean()) < 0.7


def test_sampling_stops_at_its_confidence():
    v = games.saturating(np.linspace(.1, 1, 8))
    costs = [len(played(f"shapley-mc:tolerance={tolerance},batch=8", v)[1].distinct) for tolerance in (.2, .03, .005)]
    assert costs[0] < costs[1] < costs[2]
    found, asked = played("shapley-mc:tolerance=0.03,batch=8", v)
    assert float(found.error.max()) * 1.96 <= .03 * float(v[-1])
    assert played("shapley-mc", games.additive(TERMS))[1].calls == 1


def test_intervals_by_hand():
    """Means 1 and 5 with standard errors 1 and 0; Student's t at one degree of freedom is tan."""
    draws = torch.tensor([[0., 5.], [2., 5.]], dtype=torch.float64)
    for confidence in (.5, .95):
        assert half_width(draws, confidence) == pytest.approx(math.tan(math.pi * confidence / 2))
    assert half_width(draws[:1], .95) == math.inf


def test_truncated_sampling_is_still_by_hand():
    """The mean went from 1.5 to 3 over the last two rows: by half of what it is."""
    moving = torch.tensor([[1.], [2.], [3.], [6.]], dtype=torch.float64)
    for factor in (1, 1000, .001, -1):
        for gone, share in ((1, 1 / 3), (2, 1 / 2), (3, 2 / 3)):
            assert tmc_shapley.settled(factor * moving, gone, share + .01)
            assert not tmc_shapley.settled(factor * moving, gone, share - .01)
    assert not tmc_shapley.settled(moving, 4, 9.)
    one_of_two = torch.cat([moving, torch.ones(4, 1).double()], dim=1)
    assert tmc_shapley.settled(one_of_two, 2, .26) and not tmc_shapley.settled(one_of_two, 2, .24)
    assert tmc_shapley.settled(0 * moving, 2, .05)


def test_guided_sampling_is_still_by_hand():
    """41 at ``row`` and 1 elsewhere: the mean is 1 before, 2 at the end. Each of ten means before the last counts."""
    for factor in (1, 1000, .001, -1):
        for row, share in ((30, 1 / 2), (29, (70 / 30 - 2) / 2), (39, 1 / 2)):
            moving = torch.ones(40, 1).double()
            moving[row] = 41
            assert gtg_shapley.settled(factor * moving, share + .01)
            assert not gtg_shapley.settled(factor * moving, share - .01)
            one_of_two = torch.cat([moving, torch.ones(40, 1).double()], dim=1)
            assert gtg_shapley.settled(one_of_two, share / 2 + .01)
            assert not gtg_shapley.settled(one_of_two, share / 2 - .01)
    still = torch.ones(30, 2).double()
    assert gtg_shapley.settled(still, .05) and not gtg_shapley.settled(still[1:], .05)


def test_pairs_of_coalitions_pay_a_sole_earner_exactly_and_others_without_bias():
    for seed in range(5):
        assert float(phi("banzhaf:limit=1,samples=4", games.additive([2., 0, 0], start=-1.), seed)[0]) == 2
    v = games.random(4, 2)
    found, exact = phi("banzhaf:limit=1,samples=100000", v), phi("banzhaf", v)
    close(found, exact, .013)                          # 3 standard errors; the largest is .68, a factor of 1.03 is seen
    assert float(exact.abs().max()) > .67


def test_permutations_are_a_maximum():
    assert played("shapley-mc:tolerance=0,permutations=12,batch=4", games.random(8, 11))[1].calls == 3
    assert played("tmc-shapley:tolerance=0,permutations=12,lanes=4", games.random(8, 11))[1].calls == 1 + 3 * 8
    assert played("gtg-shapley:eps_inside=0,permutations=9", games.random(8, 11))[1].calls == 2 + 2 * 8


def test_truncated_sampling_stops_when_it_is_still():
    v = games.saturating(np.linspace(.5, 1, 8))
    long, short = (played(f"tmc-shapley:tolerance={t},permutations=2000", v) for t in (0, .2))
    assert len(short[1].distinct) < len(long[1].distinct) <= 256
    assert 1 < long[1].calls < 1 + 2000 / 20 * 8
    assert bool((short[0].phi <= long[0].phi + .02).all())               # what truncation leaves out is a gain here
    assert played("tmc-shapley", games.additive([1., 1., 1.]))[1].calls <= 1 + 6 * 3


@pytest.mark.parametrize("spec", ["shapley-mc:tolerance=0", "shapley-mc:tolerance=0,antithetic=false,batch=3",
                                  "tmc-shapley:tolerance=0", "tmc-shapley:lanes=5", "gtg-shapley",
                                  "gtg-shapley:balance=false,eps_inside=0.2"])
@pytest.mark.parametrize("budget", [20, 37, 51, 200, 255, 256])
def test_budgets_are_never_exceeded(spec, budget):
    for seed in range(3):
        found, asked = played(f"{spec}{',' if ':' in spec else ':'}budget={budget}", games.random(8, seed), seed)
        assert len(asked.distinct) <= budget and bool(found.phi.isfinite().all())


@pytest.mark.parametrize("spec, least", [("shapley-mc", 16), ("shapley-mc:antithetic=false", 9), ("tmc-shapley", 9),
                                         ("gtg-shapley", 10)])
def test_budgets_that_pay_for_nothing_are_refused(spec, least):
    text = spec + ("," if ":" in spec else ":") + "budget="
    assert refusals(text + str(least), 8) == []
    phi(text + str(least), games.random(8, 0))
    assert refusals(text + str(least - 1), 8) == [
        f"a budget of {least - 1} coalitions does not pay for 8 clients; it takes {least}"]


def test_between_round_truncation_costs_two_utilities():
    v = games.random(6, 1)
    v[-1] = v[0] * (1 + 5e-5)
    found, asked = played("gtg-shapley", v)
    assert found.phi.tolist() == [0.0] * 6 and len(asked.distinct) == 2
    assert len(played("gtg-shapley:eps_round=0", v)[1].distinct) > 2


def test_a_truncated_lane_asks_for_nothing_more():
    v = games.table(6, lambda S: float(len(S) > 1))                     # nothing to gain after the second
    found, asked = played("gtg-shapley", v)
    assert {bin(b).count("1") for b in asked.distinct} == {0, 1, 2, 6}
    close(found.phi, [1 / 6] * 6, 1e-12)
    assert {bin(b).count("1") for b in played("tmc-shapley", v)[1].distinct} == {0, 1, 2, 6}


@pytest.mark.parametrize("spec", ["gtg-shapley:permutations=1", "gtg-shapley:permutations=1,balance=false"])
@pytest.mark.parametrize("C", [2, 5, 9])
def test_guided_sampling_has_each_client_at_each_position_once(spec, C):
    """So a game whose gains depend on size alone, or on the client alone, is solved by one square."""
    close(phi(spec + ",eps_inside=0", games.squares(C)), [C] * C)
    close(phi(spec + ",eps_inside=0", games.additive(np.arange(C) - 1.5)), np.arange(C) - 1.5)


def test_a_small_budget_is_spent_evenly():
    """All clients' gains at the first positions, and equal shares of what is left."""
    v = games.squares(10)
    found, asked = played("gtg-shapley:budget=51", v)
    close(found.phi, [10.] * 10, 1e-9)
    sizes = [bin(b).count("1") for b in asked.distinct]
    assert sizes.count(1) == 10 and sizes.count(10) == sizes.count(0) == 1 and {2, 3, 4} <= set(sizes)
    assert float(phi("gtg-shapley:budget=51", games.random(10, 2)).sum()) == pytest.approx(
        float(games.random(10, 2)[-1] - games.random(10, 2)[0]), abs=1e-9)


def test_assignment_never_sends_a_player_twice():
    gen, joined = np.random.default_rng(0), torch.zeros(7, 7, dtype=torch.bool)
    for _ in range(7):
        players = assigned(torch.from_numpy(gen.random((7, 7))), joined)
        assert not bool(joined[torch.arange(7), players].any()) and sorted(players.tolist()) == list(range(7))
        joined[torch.arange(7), players] = True


def rank_correlations(make, spec, seeds):
    played_games = [make(seed) for seed in range(seeds)]
    return np.array([spearmanr(phi("shapley", v), phi(spec, v, seed))[0] for seed, v in enumerate(played_games)])


def graded(seed):
    gen = np.random.default_rng(seed)
    return games.averaging(gen.permutation(np.linspace(0, 1, 10)), gen, noise=.002)


def saturated(seed):
    gen = np.random.default_rng(seed)
    return games.saturating(gen.permutation(np.linspace(-.2, .6, 10)))


@pytest.mark.parametrize("make", [graded, saturated])
def test_fifty_one_of_1024_coalitions_rank_graded_clients(make):
    rho = rank_correlations(make, "gtg-shapley:budget=51", 40)
    assert np.median(rho) >= .97 and (rho >= .95).mean() >= .9 and rho.min() >= .9, np.sort(rho)[:5]


# --- over rounds ---

def test_rounds_add_up_with_decay_and_absent_clients_add_nothing():
    v = games.additive(TERMS)
    for decay in (1.0, 0.5):
        made, gen = part(f"mr-shapley:decay={decay}"), np.random.default_rng(0)
        state, expected = made.init(torch.ones(5).double()), torch.zeros(5).double()
        for t, who in enumerate([[0, 1, 2, 3, 4], [1, 4], [3, 0]], start=1):
            now = games.cohort(who, t=t)
            found = made.score(state, now, games.Asked(v, now.clients), gen)
            expected[who] += decay ** t * torch.tensor(TERMS, dtype=torch.float64)[who]
            close(found.phi, expected[who])
            close(found.state["total"], expected)
            assert state is not found.state
            state = found.state


class Models:
    """A utility that merges linearly by shares, as the engine does: ``-|x_S - goal|^2``; ``on`` rebuilds."""

    def __init__(self, cohort, goal):
        self.cohort, self.goal = cohort, goal

    def on(self, updates, x):
        return Models(self.cohort._replace(updates=updates, x=x), self.goal)

    def models(self, coalitions):
        W = coalitions * self.cohort.shares
        W = W / W.sum(dim=1, keepdim=True).clamp(min=1e-300)
        moved = torch.zeros(len(W), len(self.cohort.x)).double()
        moved[:, self.cohort.updates.support.long()] = W @ self.cohort.updates.U.double()
        return self.cohort.x.double() + moved

    def __call__(self, coalitions, of="loss"):
        return -(self.models(coalitions) - self.goal).square().sum(dim=1)


def trained(rounds, shares, who=None, seed=0, size=1.0):
    """``(cohorts, layout, P)`` of rounds in which x moves by the mean update on half the positions."""
    layout, x, _ = bind(torch.nn.Linear(3, 2))
    x, gen, cohorts = x.detach().clone(), torch.Generator().manual_seed(seed), []
    for t in range(1, rounds + 1):
        clients = torch.arange(len(shares)) if who is None else torch.tensor(who[t - 1])
        support = torch.nonzero(layout.real).flatten()[t % 2::2].int()
        U = size * torch.randn(len(clients), len(support), generator=gen)
        r = shares[clients] / shares[clients].sum()
        updates = Updates(U, None, support, torch.ones(len(clients)).double(), int((support < layout.R).sum()))
        cohorts.append(games.cohort(clients, t, rounds, updates, r, x, layout))
        x = x.index_add(0, support, r.float() @ U)
    return cohorts, layout, x


def test_reconstruction_ends_at_the_trained_model():
    shares = torch.tensor([.1, .2, .3, .4], dtype=torch.float64)
    cohorts, layout, last = trained(4, shares)
    made, goal = part("or-shapley"), torch.zeros(layout.P)
    state = made.init(shares)
    for now in cohorts:
        found = made.score(state, now, Models(now, goal), np.random.default_rng(0))
        assert (found.phi == 0).all() == (now.now.t < 4)
        state = found.state
    start = cohorts[0].x
    torch.testing.assert_close(start + state["sum"].sum(dim=0), last, rtol=1e-5, atol=1e-5)
    assert float(found.phi.sum()) == pytest.approx(float(start.square().sum() - last.square().sum()), rel=1e-4)
    direct = sum(c.updates.U @ torch.eye(layout.P)[c.updates.support.long()] for c in cohorts)
    v = games.table(4, lambda S: -(start + sum((shares[n] * direct[n] for n in S), torch.zeros(layout.P))
                                   / (sum(shares[n] for n in S) if S else 1)).square().sum())
    close(found.phi, games.shapley(v), 1e-4)


def test_reconstruction_from_small_steps_is_the_sum_of_the_rounds():
    """Where steps are small the loss is linear in them, and both are the same up to the step's size."""
    shares = torch.tensor([.1, .2, .3, .4], dtype=torch.float64)
    cohorts, layout, last = trained(4, shares, size=1e-3)
    goal = torch.ones(layout.P) * layout.real
    by_rounds, whole = part("mr-shapley:of=loss"), part("or-shapley:of=loss")
    states = [by_rounds.init(shares), whole.init(shares)]
    for now in cohorts:
        found = [made.score(state, now, Models(now, goal), None) for made, state in zip((by_rounds, whole), states)]
        states = [scores.state for scores in found]
    close(found[1].phi, found[0].phi, .002 * float(found[0].phi.abs().max()))
    gained = (cohorts[0].x - goal).square().sum() - (last - goal).square().sum()
    assert float(found[1].phi.sum()) == pytest.approx(float(gained), rel=.01)


def test_reconstruction_asks_for_accuracies_unless_told():
    class Rebuilt(games.Asked):
        def on(self, updates, x):
            return self

    shares = torch.full((2,), .5, dtype=torch.float64)
    cohorts, _, _ = trained(1, shares)
    for spec, kind in (("or-shapley", "accuracy"), ("or-shapley:of=loss", "loss")):
        made, asked = part(spec), Rebuilt(games.squares(2))
        close(made.score(made.init(shares), cohorts[0], asked, None).phi, [2., 2.])
        assert asked.of == {kind}


def test_reconstruction_plays_among_the_cohort_of_the_round():
    shares = torch.full((4,), .25, dtype=torch.float64)
    cohorts, layout, _ = trained(3, shares, who=[[0, 1, 2], [0, 3], [1, 3]])
    made = part("or-shapley:every=2")
    state = made.init(shares)
    for now in cohorts:
        found = made.score(state, now, Models(now, torch.zeros(layout.P)), np.random.default_rng(0))
        assert bool((found.phi != 0).all()) == (now.now.t >= 2) and found.phi.shape == now.clients.shape
        state = found.state
    assert state["sum"].shape == (4, layout.P) and bool((state["sum"] != 0).any(dim=1).all())


def rounds_of(games_, cohorts, spec, seed=0, N=None):
    """All rounds' ``Scores`` of ``spec``: a game a round, played by a cohort a round."""
    made = part(spec)
    state, found = made.init(torch.ones(N or int(math.log2(len(games_[0])))).double()), []
    for t, (v, who) in enumerate(zip(games_, cohorts), start=1):
        now = games.cohort(who, t=t, rounds=len(games_))
        found.append(made.score(state, now, games.Asked(v, now.clients), np.random.default_rng((seed, t))))
        state = found[-1].state
    return found


def low_rank(rounds, alike=(1, 3)):
    """Games over 4 players that are mixtures of two, in which the players ``alike`` are interchangeable."""
    a, b = games.random(4, 20), games.random(4, 21)
    order = list(range(4))
    order[alike[0]], order[alike[1]] = order[alike[1]], order[alike[0]]
    a, b = (v + games.swapped(v, order) for v in (a, b))
    mix = np.random.default_rng(5).normal(size=(rounds, 2))
    return [x * a + y * b for x, y in mix]


def test_completion_of_full_rounds_is_the_mean_over_its_orders():
    rounds = [games.random(5, seed) for seed in range(3)]
    found = rounds_of(rounds, [range(5)] * 3, "comfedsv:permutations=7")[-1]
    orders = found.state["orders"]
    sums = sum(gains(orders, v[(prefixes(orders) * (1 << torch.arange(5))).sum(dim=-1)]) for v in rounds)
    close(found.phi, sums.mean(dim=0), 1e-12)
    close(found.error, sums.std(dim=0) / 7 ** .5, 1e-12)
    assert len(found.state["values"]) == 3 and bool(found.state["seen"].all())


def test_completion_gives_clients_that_are_alike_the_same_despite_sampling():
    """Player 1 takes part more often than its like, 3."""
    rounds, seldom = low_rank(15), [[0, 2, 3], [3, 1, 0], [1, 2, 3]]
    cohorts = [range(4)] + [[0, 1, 2], [2, 1], [0, 1]] * 3 + [[0, 1, 2]] + seldom + [range(4)]
    found = rounds_of(rounds, cohorts, "comfedsv:permutations=24,rank=2,ridge=1e-8,iterations=500")[-1]
    assert len(found.state["orders"]) == 24 and found.error is None and not bool(found.state["seen"].all())
    close(found.phi, sum(games.shapley(v) for v in rounds), 1e-3)
    assert abs(float(found.phi[1] - found.phi[3])) < 1e-3
    plain = rounds_of(rounds, cohorts, "mr-shapley")[-1].phi
    assert abs(float(plain[1] - plain[3])) > 0.5                                     # what sampling does to plain sums


@pytest.mark.parametrize("rank, share", [(1, .5), (2, .5), (3, .6)])
def test_low_rank_matrices_are_recovered(rank, share):
    gen = np.random.default_rng(rank)
    full = torch.from_numpy(gen.normal(size=(20, rank)) @ gen.normal(size=(rank, 40))) * 0.03
    seen = torch.from_numpy(gen.random((20, 40)) < share)
    seen[0] = True
    filled = completion.complete(torch.where(seen, full, 0), seen, rank, 1e-9, 300)
    assert float((filled - full).abs().max()) < 1e-5


def test_completion_has_no_more_factors_than_rounds_that_saw_a_coalition():
    """The same game in every round is a matrix of rank 1, of which most columns are seen in the first round only."""
    v, gen = games.saturating([1., .8, .6, .5, .4, .3]), np.random.default_rng(0)
    cohorts = [range(6)] + [sorted(gen.choice(6, 3, replace=False).tolist()) for _ in range(5)]
    found = rounds_of([v] * 6, cohorts, "comfedsv:permutations=720")[-1]
    ratios = found.phi / (6 * games.shapley(v)[cohorts[-1]])
    assert .95 < float(ratios.min()) and float(ratios.max()) < 1.05, ratios
    assert found.error is None and bool(found.state["seen"].all(dim=0).any()) and not bool(found.state["seen"].all())


def test_what_was_observed_is_kept_and_not_fitted():
    """With so large a ridge all that was not seen is as good as nobody."""
    a, b = games.random(3, 1), games.random(3, 2)
    found = rounds_of([a, b], [[0, 1, 2], [2, 0]], "comfedsv:permutations=6,ridge=1e12")[-1]
    seen = games.table(3, lambda S: 1 not in S).bool()
    close(found.phi, (games.shapley(a) + games.shapley(torch.where(seen, b - b[0], 0)))[[2, 0]], 1e-9)


def observed(rows, gen, size):
    """``(rows (T, 2^N) where seen, 0 elsewhere; seen)``: all by everybody, then what random cohorts of ``size`` see."""
    N = int(math.log2(rows.shape[1]))
    seen = torch.ones(rows.shape, dtype=torch.bool)
    for t in range(1, len(rows)):
        away = torch.ones(N, dtype=torch.bool)
        away[torch.from_numpy(gen.choice(N, size, replace=False))] = False
        seen[t] = ~(powerset(N) & away).any(dim=1)
    return torch.where(seen, rows, 0), seen


@pytest.mark.parametrize("seed", [0, 3, 17])
def test_completion_finds_a_constant_game_with_more_factors_than_it_needs(seed):
    """With a ridge that is small from the start, entries that were not seen end at other values."""
    v = games.random(4, seed)
    rows = (v - v[0]).repeat(6, 1)
    given, seen = observed(rows, np.random.default_rng(seed), 3)
    close(completion.complete(given, seen, 3, 1e-8, 200), rows, 1e-6)


def test_completion_finds_no_absurd_values():
    """None of hundreds, which is where a ridge that is small from the start leads here."""
    gen, v = np.random.default_rng(11), games.random(4, 1100)
    rows = torch.from_numpy(gen.normal(size=(5, 1))) * (v - v[0])
    given, seen = observed(rows, gen, 2)
    assert float(completion.complete(given, seen, 1, 1e-8, 100).abs().max()) < 2 * float(given.abs().max())


@pytest.mark.parametrize("factor", [2.0 ** 20, 2.0 ** -20])
def test_completion_does_not_depend_on_the_unit(factor):
    rounds, cohorts = low_rank(5), [range(4), [0, 1, 2], [2, 1], [0, 3], [1, 2, 3]]
    found = [rounds_of([unit * v for v in rounds], cohorts, "comfedsv")[-1].phi for unit in (1, factor)]
    close(found[1] / factor, found[0])


def test_completion_without_an_opening_round_is_finite():
    found = rounds_of([games.random(6, 1), games.random(6, 2)], [[0, 4], [2, 4]], "comfedsv")
    assert all(bool(scores.phi.isfinite().all()) for scores in found) and part("comfedsv").opening


# --- least core ---

def test_least_core_of_known_games():
    close(phi("least-core", games.MAJORITY), [1 / 3] * 3, 1e-8)
    proper = games.MAJORITY[1:-1].numpy()
    S = np.array([[b >> n & 1 for n in range(3)] for b in range(1, 7)], dtype=float)
    assert least_deficit(S, proper, 1.0) == pytest.approx(1 / 3, abs=1e-9)
    close(phi("least-core", games.squares(5)), [5.] * 5, 1e-8)
    close(phi("least-core", games.GLOVE), [1., 0., 0.], 1e-8)                        # the only point of its core


@pytest.mark.parametrize("seed", range(8))
def test_least_core_is_the_least_norm_by_brute_force(seed):
    """Every set of rows that may be tight is tried; so is the sum of what tightness explains."""
    gen = np.random.default_rng(seed)
    S = np.array([[b >> n & 1 for n in range(3)] for b in range(1, 7)], dtype=float)
    v, total = gen.normal(size=6), float(gen.normal())
    v = np.round(v, 1) if seed % 2 else v                                            # ties
    e = least_deficit(S, v, total) + 1e-9
    best = np.inf
    for k in range(3):
        for rows in itertools.combinations(range(6), k):
            A = np.vstack([np.ones((1, 3)), S[list(rows)]])
            x = np.linalg.pinv(A) @ np.append(total, (v - e)[list(rows)])
            if (S @ x >= v - e - 1e-8).all() and abs(x.sum() - total) < 1e-9:
                best = min(best, float(x @ x))
    found = least_norm(S, v, total)
    assert found.sum() == pytest.approx(total, abs=1e-9) and (S @ found >= v - e - 1e-8).all()
    assert float(found @ found) == pytest.approx(best, abs=1e-6)


def test_no_allocation_has_a_smaller_deficit():
    v, gen = games.random(6, 12), np.random.default_rng(0)
    S = torch.arange(1, 63)[:, None].bitwise_right_shift(torch.arange(6)).bitwise_and(1).double()
    def deficit(x):
        return float((v[1:-1] - v[0] - S @ x).max())

    found = phi("least-core", v)
    for _ in range(300):
        move = torch.from_numpy(gen.normal(size=6) * gen.choice([.001, .1]))
        assert deficit(found + move - move.mean()) >= deficit(found) - 1e-8


def test_sampled_least_core_is_efficient_and_comes_close():
    v = games.saturating(np.linspace(-.2, 1, 7))
    exact, sampled = phi("least-core", v), phi("least-core-mc:samples=1500", v)
    close(sampled, exact, 1e-6)
    for seed in range(5):
        found, asked = played("least-core-mc:samples=10", v, seed)
        assert len(asked.distinct) <= 12 and float(found.phi.sum()) == pytest.approx(float(v[-1]), abs=1e-9)


# --- what they share ---

def test_prefixes_and_gains_by_hand():
    orders = torch.tensor([[2, 0, 1]])
    assert prefixes(orders).tolist() == [[[False] * 3, [False, False, True], [True, False, True], [True] * 3]]
    assert gains(orders, torch.tensor([[1., 2, 4, 8]])).tolist() == [[2, 4, 1]]


def test_shapley_value_of_a_large_table_is_exact():
    coalitions = torch.arange(1 << 16)[:, None].bitwise_right_shift(torch.arange(16)).bitwise_and(1).bool()
    close(shapley_value(coalitions, coalitions.double().sum(dim=1) ** 2 - 7), [16.] * 16, 1e-9)
