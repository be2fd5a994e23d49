"""Texts that fit the terminal."""

from fedmpi.core.wide import reflowed, single_quoted

WIDTH = 40


def shown(text):
    lines = reflowed(text, WIDTH).split("\n")
    assert max(map(len, lines)) <= WIDTH
    return lines


def test_what_fits_stays_as_it_is():
    text = "    x <- x + y          as before\n    y <- 2 y"
    assert reflowed(text, WIDTH) == text


def test_a_table_keeps_its_columns():
    assert shown("    (N, F)     features of any kind, a row a sample\n"
                 "               or none at all\n"
                 "    (N, 1, L)  signals") == [
        "    (N, F)     features of any kind, a",
        "               row a sample or none at",
        "               all",
        "    (N, 1, L)  signals"]


def test_a_formula_is_broken_at_its_gaps():
    assert shown("    x <- x + sum_n w_n (x_n - x)            w_n: the share") == [
        "    x <- x + sum_n w_n (x_n - x)",
        "        w_n: the share"]


def test_formulas_below_one_another_keep_their_signs_below_one_another():
    assert shown("    mse   = mean over outputs of the square of errors\n"
                 "    huber = less") == [
        "    mse   = mean over outputs of the",
        "            square of errors",
        "    huber = less"]
    assert shown("    y   <- y - lr (g - c)            in each of its steps\n"
                 "    c_n <- c_n - c") == [
        "    y   <- y - lr (g - c)",
        "           in each of its steps",
        "    c_n <- c_n - c"]


def test_a_docstring_is_shown_as_a_page_is():
    assert single_quoted("A share ``trim`` of a::\n\n    b") == "A share `trim` of a:\n\n    b"
