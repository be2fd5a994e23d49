"""Robust merging: medians, trimmed means, Krum and trust against known answers, and the laws that all of them obey."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import trim_mean

from fedmpi.catalog import STRATEGIES
from fedmpi.plugins.spec import make
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Updates
from fedmpi.methods.strategies.krum import neighbours, squared_distances

NAMES = ["median", "trimmed-mean", "krum", "multi-krum", "geometric-median", "fltrust"]
SPECS = [*NAMES, "trimmed-mean:trim=0.3", "krum:byzantine=0", "multi-krum:select=3", "geometric-median:iterations=3"]
EXACT = "geometric-median:iterations=3000,tolerance=1e-12"


def updates(rows, held=None, trained=None, server_update=None):
    """``Updates`` of the given rows on a support that starts at 1; all trained unless ``trained`` says otherwise."""
    U = torch.as_tensor(rows, dtype=torch.float32)
    C, K = U.shape
    B = None if held is None else torch.as_tensor(held, dtype=torch.bool)
    server_update = None if server_update is None else torch.as_tensor(server_update, dtype=torch.float32)
    return Updates(U, B, torch.arange(1, K + 1).int(), torch.ones(C, dtype=torch.float64), trained or K, server_update)


def cohort(C=9, K=40, own=False, seed=0, common=1.0):
    """Random updates with a part in common, which is the server's own; with ``own`` clients lack entries."""
    gen = torch.Generator().manual_seed(seed)
    server_update = common * torch.randn(K, generator=gen)
    U = server_update + torch.randn(C, K, generator=gen)
    B = torch.rand(C, K, generator=gen) < 0.7 if own else None
    return updates(U if B is None else U * B, B, trained=K - 4, server_update=server_update)


def shares(*weights):
    w = torch.tensor(weights, dtype=torch.float64)
    return w / w.sum()


def uneven(C):
    return shares(*range(1, C + 1))


def step(spec, given, weights=None):
    """float32 (K,): what a merge adds on the support; nothing else may move."""
    weights = shares(*[1] * len(given.U)) if weights is None else weights
    x = torch.zeros(given.U.shape[1] + 2)
    strategy = make(STRATEGIES, spec)
    _, merged = strategy.merge(strategy.init(None), x, given, weights)
    assert not x.any() and merged[0] == merged[-1] == 0 and merged.dtype == torch.float32
    return merged[1:-1]


def rearranged(given, order):
    return given.rows(torch.as_tensor(order))


# --- laws of all ---

@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("weights", [shares(*[1] * 9), uneven(9), shares(1, 1, 2, 2, 3, 3, 4, 4, 5)])
def test_robust_merges_ignore_client_order(spec, own, weights):
    given = cohort(own=own)
    wanted = step(spec, given, weights)
    for order in (list(range(8, -1, -1)), [4, 0, 7, 2, 8, 1, 6, 3, 5]):
        found = step(spec, rearranged(given, order), weights[order])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["median", "trimmed-mean:trim=0.3"])
def test_columnwise_merges_ignore_client_order_to_the_last_bit(name):
    """Values on a coarse grid, so that equal votes of unequal weight meet the cut."""
    given, order = cohort(own=True), [4, 0, 7, 2, 8, 1, 6, 3, 5]
    given = given._replace(U=given.U.round())
    assert torch.equal(step(name, given, uneven(9)), step(name, rearranged(given, order), uneven(9)[order]))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("own", [False, True])
def test_robust_merges_only_read(spec, own):
    given, weights = cohort(own=own), uneven(9)
    before, kept = copy.deepcopy(given), weights.clone()
    step(spec, given, weights)
    assert torch.equal(weights, kept)
    assert all(torch.equal(a, b) for a, b in zip(given, before) if isinstance(a, torch.Tensor))


@pytest.mark.parametrize("spec", SPECS)
def test_masks_that_hold_everything_change_nothing(spec):
    given = cohort(own=True)._replace(B=None)
    full = given._replace(B=torch.ones_like(given.U, dtype=torch.bool))
    torch.testing.assert_close(step(spec, full, uneven(9)), step(spec, given, uneven(9)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_what_nobody_holds_does_not_move_in_robust_merges(spec):
    given = cohort(own=True)
    given.B[:, 5], given.U[:, 5] = False, 0
    assert step(spec, given, uneven(9))[5] == 0


@pytest.mark.parametrize("spec", SPECS)
def test_one_client_is_followed_where_it_holds(spec):
    for own in (False, True):
        given = cohort(C=1, own=own)
        given = given._replace(server_update=given.U[0])
        torch.testing.assert_close(step(spec, given), given.U[0])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("C", [2, 3, 4, 5, 10])
def test_equal_updates_are_followed_by_robust_merges(spec, C):
    row = cohort(C=1)
    given = row._replace(U=row.U.repeat(C, 1), n=torch.ones(C, dtype=torch.float64), server_update=row.U[0])
    torch.testing.assert_close(step(spec, given, uneven(C)), row.U[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("own", [False, True])
def test_robust_merges_of_nothing_leave_the_model_still(spec, own):
    given = cohort(own=own)
    assert not step(spec, given._replace(U=torch.zeros_like(given.U)), uneven(9)).any()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("own", [False, True])
def test_a_client_of_weight_zero_plays_no_part(spec, own):
    given, weights = cohort(own=own), shares(1, 2, 0, 3, 4, 5, 0, 6, 7)
    given.U[2] *= 100
    present = weights > 0
    torch.testing.assert_close(step(spec, given, weights), step(spec, given.rows(present), weights[present]),
                               rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("own", [False, True])
def test_robust_merges_are_finite_whatever_comes(spec, own):
    for seed, scale in enumerate((0.0, 1e-42, 1e-30, 1e-12, 1e6, 1e18, 1e30)):
        given = cohort(own=own, seed=seed)
        given.U[0] = 0
        given.U[1:4] *= scale
        given.U[4] = given.U[5]
        if own:
            given.B[6] = False                                            # holds nothing
            given.B[:, 3] = False
            given.B[7:, :20], given.B[8, 20:] = False, False              # nothing in common with some
            given = given._replace(U=torch.where(given.B, given.U, 0.0))
        root = given.server_update
        for server_update in (root, torch.zeros_like(root), root * 1e-40, root * 1e10):
            for weights in (uneven(9), shares(1, 1e-12, 1e-300, 0, 0, 1, 1, 1, 1)):
                assert bool(step(spec, given._replace(server_update=server_update), weights).isfinite().all())


@pytest.mark.parametrize("spec", ["median", "trimmed-mean:trim=0.25", "krum:byzantine=0.25",
                                  "multi-krum:byzantine=0.25", "geometric-median", "fltrust"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("size", [10.0, 1e3, 1e6, 1e20])
def test_a_quarter_of_liars_cannot_drag_the_model_away(spec, own, size):
    """FedAvg goes with them; here the step stays as near the common part as an honest update. Under masks a quarter of
    the holders of every entry lie."""
    given = cohort(C=12)
    honest = (given.U - given.server_update)[:9, :36].norm(dim=1).max()
    given.U[9:] = -size * given.server_update.sign()
    if own:
        B = (torch.arange(12)[:, None] + torch.arange(40)) % 3 > 0
        given = given._replace(U=given.U * B, B=B)
    assert (step(spec, given) - given.server_update)[:36].norm() < 1.1 * honest
    assert (step("fedavg", given) - given.server_update)[:36].norm() > 1.2 * honest


@pytest.mark.parametrize("name", ["krum", "multi-krum", "geometric-median", "fltrust"])
@pytest.mark.parametrize("own", [False, True])
def test_running_statistics_do_not_decide_in_robust_merges(name, own):
    given = cohort(own=own)
    other = given._replace(U=given.U.clone(), server_update=given.server_update.clone())
    other.U[2, 36:], other.server_update[36:] = 1e4, -1e4
    assert torch.equal(step(name, given, uneven(9))[:36], step(name, other, uneven(9))[:36])


@pytest.mark.parametrize("name", NAMES)
def test_usual_parts_of_robust_merging(name):
    part = make(STRATEGIES, name)
    assert (part.pruner, part.contribution, part.before is not None) == ("dense", "uniform", name == "fltrust")


# --- median ---

@pytest.mark.parametrize("C", [1, 2, 3, 4, 7, 10, 12, 20, 32, 33, 42])
def test_median_is_numpys(C):
    given = cohort(C=C, K=5000)                                           # more than a block of columns
    assert np.array_equal(step("median", given).numpy(), np.median(given.U.numpy(), axis=0))


@pytest.mark.parametrize("C", [1, 2, 5, 8])
def test_median_is_that_of_the_holders(C):
    given = cohort(C=C, K=300, own=True)
    wanted = [np.median(column[held]) if held.any() else 0
              for column, held in zip(given.U.T.numpy(), given.B.T.numpy())]
    assert np.array_equal(step("median", given).numpy(), np.array(wanted, np.float32))


@pytest.mark.parametrize("weights, wanted", [((1, 1, 1), 2), ((3, 1, 1), -1), ((1, 1, 3), 7), ((2, 1, 1), 0.5),
                                             ((1, 1, 2), 4.5), ((.3, .3, .4), 2), ((1, 0, 1), 3), ((0, 0, 1), 7)])
def test_weighted_median_by_hand(weights, wanted):
    assert step("median", updates([[-1.], [2], [7]]), shares(*weights)).tolist() == [wanted]


def test_weighted_median_of_holders_by_hand():
    """Without the first client the weights .2 and .3 are left, of which the second is more than half."""
    given = updates([[1., 9, -0.0], [2, 2, 0], [3, 3, 4]], [[1, 0, 1], [1, 1, 1], [1, 1, 0]])
    assert step("median", given, shares(.5, .2, .3)).tolist() == [1.5, 3, 0]


@pytest.mark.parametrize("spec", ["median", EXACT])
def test_a_client_of_twice_the_weight_is_that_client_twice(spec):
    given = cohort(C=5, own=True)
    twice = step(spec, rearranged(given, [0, 0, 1, 2, 2, 2, 3, 4]))
    torch.testing.assert_close(step(spec, given, shares(2, 1, 3, 1, 1)), twice, rtol=1e-4, atol=1e-5)


# --- trimmed mean ---

def naive_trimmed_mean(given, trim, weights):
    found = []
    for k in range(given.U.shape[1]):
        votes = sorted((float(given.U[n, k]), float(weights[n])) for n in range(len(given.U))
                       if given.B is None or given.B[n, k])
        cut = math.floor(trim * len(votes) + 1e-9)
        votes = votes[cut: len(votes) - cut]
        found.append(sum(v * w for v, w in votes) / sum(w for _, w in votes) if votes else 0)
    return torch.tensor(found)


@pytest.mark.parametrize("C", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.29, 0.45, 0.4999999999999])
@pytest.mark.parametrize("own", [False, True])
def test_trimmed_mean_is_that_of_a_loop(C, trim, own):
    given = cohort(C=C, own=own)
    for weights in (shares(*[1] * C), uneven(C)):
        torch.testing.assert_close(step(f"trimmed-mean:trim={trim}", given, weights),
                                   naive_trimmed_mean(given, min(trim, 0.499), weights))


def test_trimmed_mean_is_scipys():
    given = cohort(C=20)
    wanted = torch.from_numpy(trim_mean(given.U.numpy(), 0.15))
    torch.testing.assert_close(step("trimmed-mean:trim=0.15", given), wanted)


def test_trimmed_mean_by_hand():
    """Of five a fifth goes at either end, of the four holders of the second entry nothing."""
    given = updates([[100., 8], [1, 0], [2, 4], [3, 0], [-100, 99]], [[1, 1], [1, 1], [1, 1], [1, 1], [1, 0]])
    assert step("trimmed-mean:trim=0.2", given, shares(.2, .1, .2, .1, .4)).tolist() == pytest.approx([2, 4])
    assert step("trimmed-mean:trim=0.2", given, shares(.2, .1, .3, .1, .3))[0] == pytest.approx(2)
    assert step("trimmed-mean:trim=0.2", given, shares(.2, .2, .1, .1, .4))[0] == pytest.approx(1.75)


def test_trimming_counts_despite_rounding():
    """.29 of 100 is 28.999... in floating point."""
    given = updates([[float(n ** 2)] for n in range(100)])
    assert float(step("trimmed-mean:trim=0.29", given)) == pytest.approx(sum(n ** 2 for n in range(29, 71)) / 42)


def test_trimming_nothing_is_fedavg():
    given = cohort(own=True)
    torch.testing.assert_close(step("trimmed-mean:trim=0", given, uneven(9)), step("fedavg", given, uneven(9)))


# --- Krum ---

def naive_distance(given, a, b):
    common = [k for k in range(given.trained) if given.B is None or (given.B[a, k] and given.B[b, k])]
    total = sum((float(given.U[a, k]) - float(given.U[b, k])) ** 2 for k in common)
    return total * given.trained / len(common) if common else math.inf


def naive_order(given, f):
    """The clients by their Krum score."""
    C = len(given.U)
    score = [sum(sorted(naive_distance(given, a, b) for b in range(C) if b != a)[: C - f - 2]) for a in range(C)]
    return sorted(range(C), key=score.__getitem__)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("C, f", [(5, 0), (5, 1), (9, 1), (9, 3), (13, 5)])
def test_krum_is_that_of_a_loop(C, f, own):
    for seed in range(5):
        given = cohort(C=C, own=own, seed=seed)
        order, weights = naive_order(given, f), uneven(C)
        assert torch.equal(step(f"krum:byzantine={f / C}", given, weights), given.U[order[0]])
        for select, count in ((0, C - f - 2), (1, 1), (3, 3), (C + 5, C)):
            rows = torch.tensor(sorted(order[:count]))
            wanted = step("fedavg", given.rows(rows), weights[rows] / weights[rows].sum())
            found = step(f"multi-krum:byzantine={f / C},select={select}", given, weights)
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("own", [False, True])
def test_squared_distances_are_those_of_a_loop(own):
    given = cohort(C=5, K=20000, own=own)                                 # more than a block of columns
    u, b = given.U[:, : given.trained].double(), (given.B[:, : given.trained] if own else None)
    found = squared_distances(given)
    for a, c in itertools.product(range(5), repeat=2):
        both = torch.ones(given.trained, dtype=torch.bool) if b is None else b[a] & b[c]
        wanted = (u[a] - u[c])[both].square().sum() * given.trained / both.sum()
        assert float(found[a, c]) == pytest.approx(float(wanted), rel=1e-12)
    assert torch.equal(found, found.T)


def test_distances_under_masks_by_hand():
    """One entry in common of four: its square counts four times. Without a common one the distance is infinite."""
    given = updates([[1., 2, 0, 0], [0, 5, 1, 0], [0, 0, 0, 3]], [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert squared_distances(given).tolist() == [[0, 36, math.inf], [36, 0, math.inf], [math.inf, math.inf, 0]]


def test_krum_passes_over_a_planted_outlier():
    given = updates([[1., 0], [1.1, 0], [0.9, 0.1], [1, 0.2], [50, -50]])
    assert step("krum", given).tolist() == pytest.approx([1, 0]) and step("fedavg", given)[1] < -9
    assert step("multi-krum:select=4", given).tolist() == pytest.approx([1, 0.075])


def test_krum_does_not_move_what_its_choice_does_not_hold():
    given = updates([[1., 0, 3], [1, 0, 3], [9, 9, 9]], [[1, 0, 1], [1, 0, 1], [1, 1, 1]])
    assert step("krum", given).tolist() == [1, 0, 3]


def test_those_who_tie_share_krums_step():
    """Of three clients the nearest two have the same score, of two both."""
    assert step("krum", updates([[0.], [1], [9]]), shares(1, 3, 4)).tolist() == [.75]
    assert step("krum", updates([[0.], [1]]), shares(1, 3)).tolist() == [.75]


@pytest.mark.parametrize("spec", ["krum", "multi-krum"])
@pytest.mark.parametrize("C", [5, 9, 17, 33])
def test_rounding_does_not_break_ties_in_krum(spec, C):
    """All updates are equal but for the running statistics, whose weighted mean tells who was chosen: everybody."""
    given = cohort(C=C, K=1000)
    given.U[:, :996] = given.U[0, :996]
    torch.testing.assert_close(step(spec, given, uneven(C)), step("fedavg", given, uneven(C)))


@pytest.mark.parametrize("C", [5, 9, 17, 33])
def test_rounding_does_not_choose_between_twins_in_krum(C):
    """Two equal updates are the nearest to the others; again the running statistics tell who was chosen: both."""
    given, twins, weights = cohort(C=C, K=1000), torch.tensor([1, C - 1]), uneven(C)
    given.U[twins, :996] = given.server_update[:996]
    wanted = step("fedavg", given.rows(twins), weights[twins] / weights[twins].sum())
    torch.testing.assert_close(step("krum", given, weights), wanted)


@pytest.mark.parametrize("name", ["krum", "multi-krum"])
def test_krum_takes_as_many_to_be_byzantine_as_a_cohort_allows(name):
    assert [neighbours(C, 0.4) for C in (1, 2, 3, 4, 5, 6, 7, 10, 11, 15)] == [0, 1, 1, 2, 2, 3, 3, 5, 5, 7]
    for C in (5, 15):
        step(f"{name}:byzantine=0.4", cohort(C=C))
    for C in range(1, 60):
        step(name, cohort(C=C))


# --- geometric median ---

def objective(given, z, weights):
    held = torch.ones_like(given.U, dtype=torch.bool) if given.B is None else given.B
    away = ((torch.as_tensor(z).double() - given.U.double()) * held)[:, : given.trained]
    return float(weights @ away.norm(dim=1))


@pytest.mark.parametrize("own", [False, True])
def test_geometric_median_is_what_scipy_finds(own):
    for seed in range(4):
        given, weights = cohort(C=7, K=9, own=own, seed=seed), uneven(7)
        given.U[6] += 20 * (1 if given.B is None else given.B[6])
        mean = step("fedavg", given, weights).double().numpy()
        found = step(EXACT, given, weights)[:5]

        def total(z):
            return objective(given, np.append(z, mean[5:]), weights)

        near = minimize(total, mean[:5], method="Nelder-Mead", options={"maxfev": 20000, "xatol": 1e-9, "fatol": 1e-12})
        wanted = minimize(total, near.x, method="Powell", options={"xtol": 1e-10, "ftol": 1e-14})
        assert total(found) <= wanted.fun * (1 + 1e-7)
        torch.testing.assert_close(found.double(), torch.from_numpy(wanted.x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("own", [False, True])
def test_every_iteration_lowers_the_sum_of_distances(own):
    given, weights = cohort(C=8, own=own), uneven(8)
    given.U[0] *= 30
    sums = [objective(given, step(f"geometric-median:iterations={i},tolerance=0", given, weights), weights)
            for i in range(1, 12)]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(sums)) and sums[-1] < sums[0]


def test_geometric_median_by_hand():
    """Three corners of an equilateral triangle; four of a square; a point with more than half of the weight."""
    triangle = updates([[0., 0], [2, 0], [1, 3 ** 0.5]])
    torch.testing.assert_close(step(EXACT, triangle), torch.tensor([1., 3 ** -0.5]))
    torch.testing.assert_close(step(EXACT, updates([[0., 0], [2, 0], [0, 2], [2, 2]])), torch.ones(2))
    torch.testing.assert_close(step(EXACT, triangle, shares(1, 1, 3)), triangle.U[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("held", [None, [[True], [True]]])
def test_distances_below_nu_count_as_nu(held):
    """From 0 the lengths .5 and 4 count as 1 and 4; from 1.2 the distances .7 and 2.8 as 1 and 2.8."""
    for iterations, wanted in ((1, 1.2), (2, 5.4 / 3.8)):
        found = step(f"geometric-median:nu=1,tolerance=0,iterations={iterations}", updates([[.5], [4.]], held))
        assert found.tolist() == pytest.approx([wanted])
    found = step("geometric-median:nu=2,iterations=1", updates([[.5], [4.]], held), shares(1, 3))
    assert found.tolist() == pytest.approx([(.5 / 2 + 3 * 4 / 4) / (1 / 2 + 3 / 4)])


def test_the_bound_of_the_paper_on_what_less_than_half_can_do():
    """``|z - mean of the honest| <= 2 (1 - theta) / (1 - 2 theta) max |U_n - mean|``, theta the liars' weight."""
    for liars, size in itertools.product((1, 3, 5, 8), (10, 1e4, 1e9, 1e25)):
        given = cohort(C=20)
        given.U[:liars] = size
        honest, theta = given.U[liars:, :36], liars / 20
        centre = honest.mean(dim=0)
        away = (step("geometric-median", given)[:36] - centre).norm()
        assert away <= 2 * (1 - theta) / (1 - 2 * theta) * (honest - centre).norm(dim=1).max()


@pytest.mark.parametrize("option", ["iterations=0", "nu=0", "nu=nan", "tolerance=-1"])
def test_impossible_iterations_are_refused(option):
    with pytest.raises(UserError, match=f"{option.partition('=')[0]} must be"):
        make(STRATEGIES, f"geometric-median:{option}")


@pytest.mark.parametrize("spec", ["trimmed-mean:trim=0.5", "trimmed-mean:trim=-0.1", "trimmed-mean:trim=nan",
                                  "krum:byzantine=0.5", "krum:byzantine=3", "multi-krum:byzantine=-1",
                                  "multi-krum:select=-1"])
def test_impossible_shares_are_refused(spec):
    with pytest.raises(UserError, match=f"^{spec}: .* must be"):
        make(STRATEGIES, spec)


# --- FLTrust ---

def test_fltrust_by_hand():
    """Cosines 1, .8 and -1; every trusted update is taken to length 5."""
    given = updates([[6., 8], [0, 10], [-3, -4]], server_update=[3., 4])
    torch.testing.assert_close(step("fltrust", given), torch.tensor([3., 8]) / 1.8)
    torch.testing.assert_close(step("fltrust", given, shares(.2, .5, .3)), torch.tensor([1., 2.8 / .6]))


def test_fltrust_under_masks_by_hand():
    """Each client against the server's entries that it holds: (3, 4), 12 and (4, 12)."""
    given = updates([[6., 8, 0], [0, 0, -1], [0, 2, 6]], [[1, 1, 0], [0, 0, 1], [0, 1, 1]], server_update=[3., 4, 12])
    torch.testing.assert_close(step("fltrust", given), torch.tensor([3., 4, 12]))
    other = given._replace(U=torch.tensor([[0., 8, 0], [0, 0, -1], [0, 2, 6]]))            # cos .8, to (0, 5)
    torch.testing.assert_close(step("fltrust", other), torch.tensor([0., (.8 * 5 + 4) / 1.8, 12]))


def test_where_nobody_is_trusted_nothing_moves():
    for server_update in ([-1., -1, 5], [0., 0, 5], [2., -2, 5]):
        given = updates([[1., 1, 3], [4, 4, 3], [0, 0, 3]], trained=2, server_update=server_update)
        assert not step("fltrust", given).any()


def test_fltrust_averages_running_statistics_with_its_trust():
    given = updates([[6., 8, 100], [0, 10, -8], [-3, -4, 7]], trained=2, server_update=[3., 4, 0])
    torch.testing.assert_close(step("fltrust", given)[2], torch.tensor((100 - .8 * 8) / 1.8))


def test_fltrust_steps_no_further_than_the_server():
    for seed in range(5):
        given = cohort(seed=seed, common=0.3)
        given.U[::2] *= 1000
        assert 0 < step("fltrust", given, uneven(9))[:36].norm() <= given.server_update[:36].norm() * (1 + 1e-6)


def test_fltrust_asks_for_samples_of_the_server():
    with pytest.raises(UserError, match="--server-data"):
        step("fltrust", cohort()._replace(server_update=None))
