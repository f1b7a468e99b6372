"""Traces: the symbols and their order for every layer kind, as text, HTML and LaTeX."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from assertions import same_bits
from chainrule import calculus, examples
from chainrule.calculus._passes import float64_parameter

EVERY_KIND = (
    cr.Conv2d(3, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.25), cr.Flatten(), cr.Linear(5),
    cr.LeakyReLU(0.1), cr.Linear(4), cr.Softmax(),
)  # fmt: skip
IMAGES = np.random.default_rng(3).normal(size=(3, 8, 8, 1))


def every_kind(dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(*EVERY_KIND, input_shape=(8, 8, 1), seed=1, dtype=dtype)


def three_units() -> calculus.Trace:
    net = examples.three_unit_network()
    return calculus.trace(net, *examples.three_unit_instance(), cr.SquaredError())


def test_the_steps_are_in_the_order_of_the_tutorial() -> None:
    table = str(three_units()).splitlines()
    starts = [line.split()[0] for line in table if line.startswith("  ")]
    assert starts == [
        "x_1", "x_2", "w_10^(1)", "w_11^(1)", "w_12^(1)", "w_20^(1)", "w_21^(1)", "w_22^(1)",
        "w_10^(2)", "w_11^(2)", "w_12^(2)", "y",
        "z_1^(1)", "z_2^(1)", "a_1^(1)", "a_2^(1)", "z_1^(2)", "ŷ", "ℓ",
        "∂ℓ/∂ŷ", "δ_1^(2)", "∂ℓ/∂w_10^(2)", "∂ℓ/∂w_11^(2)", "∂ℓ/∂w_12^(2)",
        "∂ℓ/∂a_1^(1)", "∂ℓ/∂a_2^(1)", "δ_1^(1)", "δ_2^(1)",
        "∂ℓ/∂w_10^(1)", "∂ℓ/∂w_11^(1)", "∂ℓ/∂w_12^(1)",
        "∂ℓ/∂w_20^(1)", "∂ℓ/∂w_21^(1)", "∂ℓ/∂w_22^(1)",
    ]  # fmt: skip
    titles = [line for line in table if line.startswith("Step")]
    assert titles == [
        "Step 1: the top derivative",
        "Step 2: through the ReLU of layer 2",
        "Step 3: the weights of layer 2",
        "Step 4: to the activations of layer 1",
        "Step 5: through the ReLU of layer 1",
        "Step 6: the weights of layer 1",
    ]
    line = next(line for line in table if line.startswith("  δ_2^(1)"))
    assert " ".join(line.split()) == "δ_2^(1) = −0.44 ∂ℓ/∂a_2^(1) · 1{z_2^(1) > 0} (26)"
    assert len({line.rfind("(") for line in table if line.startswith("  ")}) == 1, (
        "columns are not aligned"
    )


def test_formulas_of_the_three_unit_network_are_those_of_the_tutorial() -> None:
    shown = {
        name.text: right.text for entry in three_units() for name, _, right in entry.elements()
    }
    assert shown["z_2^(1)"] == "w_20^(1) + w_21^(1) x_1 + w_22^(1) x_2"
    assert shown["z_1^(2)"] == "w_10^(2) + w_11^(2) a_1^(1) + w_12^(2) a_2^(1)"
    assert shown["∂ℓ/∂a_2^(1)"] == "w_12^(2) δ_1^(2)"
    assert shown["∂ℓ/∂w_20^(1)"] == "δ_2^(1)"
    assert shown["∂ℓ/∂w_21^(1)"] == "δ_2^(1) x_1"


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (["delta^(2)", "δ^(2)", "δ⁽²⁾", "delta^{(2)}", "dl/dz^(2)"], [-0.88]),
        (["ŷ", "y_hat", "yhat", "a^(2)", "a⁽²⁾"], [0.56]),
        (["a^(0)", "x"], [1, 2]),
        (["ℓ", "l", "loss"], 0.1936),
        (["dl/dy_hat", "∂ℓ/∂ŷ", "∂ℓ / ∂ŷ", "dl/da^(2)"], [-0.88]),
        (["∂ℓ/∂W^(2)", "dl/dW^(2)", "G^(2)"], [[-0.88, -0.264, -0.528]]),
        (["∂ℓ/∂w_12^(1)", "dl/dw_12^(1)", "∂ℓ/∂w₁₂⁽¹⁾"], -1.232),
        (["w_12^(1)", "w₁₂⁽¹⁾"], -0.1),
        (["a_2^(0)", "x_2", "x₂"], 2),
    ],
)
def test_symbols_are_accepted_in_any_spelling(names: list[str], want: Any) -> None:
    trace = three_units()
    for name in names:
        assert trace[name].dtype == np.float64
        np.testing.assert_allclose(trace[name], want, rtol=0, atol=1e-12, err_msg=name)


def test_a_single_output_accepts_a_number_as_target() -> None:
    net, (x, y) = examples.three_unit_network(), examples.three_unit_instance()
    for target in (1, 1.0, np.float32(1), [1], y):
        trace = calculus.trace(net, x, target, cr.SquaredError())
        assert same_bits(trace["ℓ"], three_units()["ℓ"])


def test_an_unknown_symbol_raises_an_error_that_lists_all_symbols() -> None:
    trace = three_units()
    assert "z^(1)" in trace
    assert "z^(3)" not in trace
    with pytest.raises(KeyError, match=r"trace: symbol must be one of x, W\^\(1\), .*, got 'z\^"):
        trace["z^(3)"]
    absent = "z_3^(1)", "z_0^(1)", "w_13^(1)", "w_1^(1)", "w_00^(1)", "z_1,1^(1)", "y_2", "_1", ""
    for name in absent:
        with pytest.raises(KeyError, match="trace: symbol must be one of"):
            trace[name]


def test_elements_of_large_arrays_have_symbols() -> None:
    net = cr.Sequential(cr.Conv2d(12, 3), cr.ReLU(), input_shape=(14, 5, 1), seed=1)
    trace = calculus.trace(net, np.ones((14, 5, 1)), np.zeros((12, 3, 12)), cr.SquaredError())
    assert trace["z_12,3,11^(1)"] == trace["z^(1)"][11, 2, 10]
    assert trace["a_1,1,1^(1)"] == trace["ŷ_1,1,1"] == trace["ŷ"][0, 0, 0]
    assert trace["w_12,0^(1)"] == trace["W^(1)"][11, 0]
    assert trace["dl/dw_12,9^(1)"] == trace["G^(1)"][11, 9]


def test_parameters_on_a_device_are_copied_to_the_host() -> None:
    class DeviceArray:
        def numpy(self) -> np.ndarray:
            return np.ones(3, np.float32)

    assert same_bits(float64_parameter(DeviceArray()), np.ones(3))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["logits", "softmax", "squared"])
def test_every_layer_kind(kind: str) -> None:
    """Check symbols and order, and compare the values with the network's own passes."""
    layers = EVERY_KIND[: 8 if kind == "logits" else 9]
    net = cr.Sequential(*layers, input_shape=(8, 8, 1), seed=1, dtype="float64")
    loss: cr.Loss = cr.SquaredError() if kind == "squared" else cr.CrossEntropy()
    y = np.eye(4)[[2, 0, 1]] if kind == "squared" else np.array([2, 0, 1])
    trace = calculus.trace(net, IMAGES, y, loss)
    backwards = ["δ^(3)", "∂L/∂W^(3)", "∂ℓ/∂a^(2)", "δ^(2)", "∂L/∂W^(2)", "∂ℓ/∂v^(1)",
                 "∂ℓ/∂ã^(1)", "∂ℓ/∂p^(1)", "∂ℓ/∂a^(1)", "δ^(1)", "∂L/∂W^(1)"]  # fmt: skip
    assert [entry.symbol for entry in trace] == [
        "a^(0)", "W^(1)", "W^(2)", "W^(3)", "y",
        "z^(1)", "a^(1)", "p^(1)", "ã^(1)", "v^(1)", "z^(2)", "a^(2)", "z^(3)", "ŷ", "ℓ", "L",
        "∂ℓ/∂ŷ", *backwards,
    ]  # fmt: skip
    cites = {entry.symbol: entry.equation for entry in trace}
    assert cites["z^(1)"] == "(60)"
    assert cites["p^(1)"] == "(63)"
    assert cites["z^(2)"] == "(32)"
    assert cites["ŷ"] == ("(55)" if kind == "logits" else "(55), (34)")
    assert cites["δ^(3)"] == "(56), (57)"
    assert cites["∂L/∂W^(2)"] == "(41), (42)"
    value, gradients = net.loss_and_gradient(IMAGES, y, loss)
    logits = cr.Sequential(*EVERY_KIND[:8], input_shape=(8, 8, 1), seed=1, dtype="float64")
    np.testing.assert_allclose(trace["z^(3)"], logits.forward(IMAGES), rtol=1e-13, atol=1e-13)
    assert float(trace["L"]) == pytest.approx(value, rel=1e-13)
    for number, layer in ((1, 0), (2, 5), (3, 7)):
        g = trace[f"∂L/∂W^({number})"]
        np.testing.assert_allclose(g[:, 0], gradients[f"{layer}.bias"], rtol=1e-11, atol=1e-13)
        weight = gradients[f"{layer}.weight"].reshape(len(g), -1)
        np.testing.assert_allclose(g[:, 1:], weight, rtol=1e-11, atol=1e-13)
    # The trace of one instance has no batch axis and no mean over gradients.
    one = calculus.trace(net, IMAGES[1], y[1], loss)
    assert one.single
    for name in ("z^(1)", "p^(1)", "ŷ", "δ^(2)", "ℓ"):
        np.testing.assert_allclose(one[name], trace[name][1], rtol=1e-12, atol=1e-14)
    each = [calculus.trace(net, x, t, loss)["G^(2)"] for x, t in zip(IMAGES, y, strict=True)]
    np.testing.assert_allclose(trace["G^(2)"], np.mean(each, axis=0), rtol=1e-12, atol=1e-14)


def test_a_layer_kind_may_occur_twice_and_before_the_first_weights() -> None:
    net = cr.Sequential(
        cr.ReLU(), cr.MaxPool2d(2), cr.Conv2d(2, 2), cr.MaxPool2d(2, stride=1), cr.ReLU(),
        cr.ReLU(), cr.Flatten(), input_shape=(9, 9, 1), seed=1, dtype="float64",
    )  # fmt: skip
    net.parameters["2.bias"][...] = 1
    x = np.random.default_rng(0).normal(size=(9, 9, 1))
    trace = calculus.trace(net, x, np.zeros(8), cr.SquaredError())
    assert [entry.symbol for entry in trace] == [
        "a^(0)", "W^(1)", "y", "a'^(0)", "p^(0)", "z^(1)", "p^(1)", "a^(1)", "a'^(1)", "v^(1)",
        "ŷ", "ℓ", "∂ℓ/∂ŷ", "∂ℓ/∂v^(1)", "∂ℓ/∂a'^(1)", "∂ℓ/∂a^(1)", "∂ℓ/∂p^(1)", "δ^(1)",
        "∂ℓ/∂W^(1)",
    ]  # fmt: skip
    _, gradients = net.loss_and_gradient(x[None], np.zeros((1, 8)), cr.SquaredError())
    got = trace["∂ℓ/∂W^(1)"][:, 1:].reshape(2, 2, 2, 1)
    np.testing.assert_allclose(got, gradients["2.weight"], rtol=1e-12, atol=1e-12)
    assert got.any()


def test_a_network_without_weights_and_one_with_a_user_defined_layer() -> None:
    class Double(cr.Layer):
        def forward(self, context: Any) -> None:
            np.multiply(context.x, 2, out=context.y)

        def backward(self, context: Any) -> None:
            np.multiply(context.dy, 2, out=context.dx)

    plain = cr.Sequential(cr.MaxPool2d(2), cr.Flatten(), input_shape=(2, 2, 1))
    trace = calculus.trace(plain, [[[1], [2]], [[4], [3]]], [3.0], cr.SquaredError())
    assert (float(trace["ŷ"][0]), float(trace["ℓ"])) == (4, 1)
    own = cr.Sequential(cr.Linear(1), Double(), cr.Linear(1), input_shape=(1,), dtype="float64")
    own.parameter_vector = np.array([1.0, 2.0, 3.0, 4.0])
    trace = calculus.trace(own, [5.0], [0.0], cr.SquaredError())
    assert (float(trace["u^(1)"][0]), float(trace["ŷ"][0])) == (22, 91)
    assert float(trace["∂ℓ/∂u^(1)"][0]) == 2 * 91 * 4
    assert float(trace["∂ℓ/∂w_11^(1)"]) == 2 * 91 * 4 * 2 * 5
    assert "through Double of layer 1" in str(trace)


def test_one_dropout_mask_is_used_in_both_passes() -> None:
    net = every_kind()
    trace = calculus.trace(net, IMAGES[0], 2, cr.CrossEntropy(), training=True)
    p, dropped = trace["p^(1)"], trace["ã^(1)"]
    kept = dropped != 0
    assert 0 < np.count_nonzero(~kept & (p > 0)) < kept.sum()
    np.testing.assert_allclose(dropped[kept], p[kept] / 0.75, rtol=1e-15)
    zeroed = ~kept & (p > 0)
    assert not trace["∂ℓ/∂p^(1)"][zeroed].any()
    assert trace["∂ℓ/∂ã^(1)"][zeroed].all()
    again = calculus.trace(net, IMAGES[0], 2, cr.CrossEntropy(), training=True)
    assert not np.array_equal(again["ã^(1)"], dropped)
    inactive = calculus.trace(net, IMAGES[0], 2, cr.CrossEntropy())
    assert np.array_equal(inactive["ã^(1)"], inactive["p^(1)"])


def test_the_network_is_not_changed_and_float32_is_traced_in_float64() -> None:
    net = every_kind("float32")
    net.loss_and_gradient(IMAGES.astype(np.float32), np.array([0, 1, 2]), cr.CrossEntropy())
    before = net.vector.copy(), net.dvector.copy()
    trace = calculus.trace(net, IMAGES, [0, 1, 2], cr.CrossEntropy())
    assert same_bits((net.vector, net.dvector), before)
    assert all(entry.value.dtype == np.float64 for entry in trace)
    near = net.forward(IMAGES.astype(np.float32))
    np.testing.assert_allclose(trace["ŷ"], near, rtol=1e-4, atol=1e-6)
    bytes_ = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    trace = calculus.trace(net, bytes_, 1, cr.CrossEntropy())
    assert np.array_equal(trace["a^(0)"], bytes_ / 255)


@pytest.mark.parametrize(
    ("x", "y", "loss", "error", "message"),
    [
        (np.zeros((7, 8, 1)), 1, cr.CrossEntropy(), ValueError, r"trace: x must have shape \(N, 8"),
        (np.zeros((0, 8, 8, 1)), [], cr.CrossEntropy(), ValueError, "at least one instance, got 0"),
        (np.zeros((8, 8, 1), bool), 1, cr.CrossEntropy(), TypeError, "x must be real numbers, got"),
        (IMAGES, [1, 2], cr.CrossEntropy(), ValueError, "x and labels must have the same length"),
        (IMAGES[0], 4, cr.CrossEntropy(), ValueError, r"labels must be in \[0, 4\), got 4"),
        (IMAGES[0], np.zeros(3), cr.SquaredError(), ValueError, r"target must have shape \(N, 4\)"),
        (IMAGES[0], 0.5, cr.SquaredError(), ValueError, r"must have shape \(N, 4\), got \(1,\)"),
        (IMAGES, [1, 2, 3], cr.SquaredError(), ValueError, "got integer labels of shape"),
        (
            IMAGES,
            [1, 2, 3],
            "mse",
            TypeError,
            r"loss must be a loss such as CrossEntropy\(\)",
        ),
    ],
)
def test_invalid_arguments_raise(
    x: Any, y: Any, loss: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        calculus.trace(every_kind(), x, y, loss)
    with pytest.raises(TypeError, match="trace: network must be a Sequential, got int"):
        calculus.trace(5, x, y, loss)  # type: ignore[arg-type]


def test_large_arrays_are_shown_as_shape_range_and_image() -> None:
    ring = np.zeros((8, 8, 1))
    ring[2:6, 2:6] = 1
    ring[3:5, 3:5] = 0
    lines = str(calculus.trace(every_kind(), ring, 2, cr.CrossEntropy())).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  a^(0)"))
    assert "8×8×1, 0 … 1" in lines[at]
    image = [line.strip() for line in lines[at + 1 : at + 9]]
    assert image[2] == image[5] == "│    ████████    │"
    assert image[3] == "│    ██    ██    │"
    assert max(len(line) for line in lines) < 120
    bars = [line.strip() for line in lines if set(line.strip()) <= set("▁▂▃▄▅▆▇█") and line.strip()]
    assert len(bars[0]) == 27


class Parsed(html.parser.HTMLParser):
    """Parse a page, check that tags close in order, and count them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_has_one_row_per_quantity() -> None:
    page = Parsed(three_units()._repr_html_())
    assert page.counts["tr"] == 1 + 8 + 34
    assert "svg" not in page.counts
    assert "z1(1)= 0.3w10(1) + w11(1) x1 + w12(1) x2(17)" in page.text
    trace = calculus.trace(every_kind(), IMAGES, [0, 1, 2], cr.CrossEntropy())
    page = Parsed(trace._repr_html_())
    large = [entry for entry in trace if entry.value.size > 4]
    assert page.counts["svg"] == len(large) > 10
    # Each image has at least one run of colored cells.
    assert page.counts["path"] >= page.counts["svg"]


def test_latex_has_one_tagged_line_per_quantity() -> None:
    lines = three_units().to_latex().splitlines()
    assert lines[0] == r"\begin{align*}"
    assert lines[-1] == r"\end{align*}"
    assert r"\hat{y} &= \max (0, z_{1}^{(2)}) = 0.56 \tag{19} \\" in lines
    want = r"\frac{\partial \ell}{\partial w_{12}^{(1)}} &= \delta_{1}^{(1)} x_{2} = -1.232"
    assert rf"{want} \tag{{27}} \\" in lines
    trace = calculus.trace(every_kind(), 1e-9 * IMAGES, [0, 1, 2], cr.CrossEntropy())
    text = trace.to_latex()
    assert (
        r"a^{(0)} &= x \in \mathbb{R}^{3 \times 8 \times 8 \times 1}, \; -2.83 \times 10^{-9}"
        in text
    )
    for page in (text, three_units().to_latex()):
        assert page.isascii(), {sign for sign in page if not sign.isascii()}
        assert page.count("{") == page.count("}")


def test_matplotlib_parses_every_line_of_latex() -> None:
    """A double superscript or an unknown command would be a parse error."""
    mathtext = pytest.importorskip("matplotlib.mathtext")
    twice = cr.Sequential(
        cr.Linear(3), cr.ReLU(), cr.ReLU(), cr.Linear(2), cr.LeakyReLU(), input_shape=(2,), seed=1
    )
    smooth = cr.Sequential(cr.Linear(2), cr.Sigmoid(), cr.Tanh(), cr.GELU(), input_shape=(2,))
    traces = [
        three_units(),
        calculus.trace(smooth, [1.0, 2.0], [1.0, 2.0], cr.SquaredError()),
        calculus.trace(twice, [1.0, 2.0], [1.0, 2.0], cr.SquaredError()),
        calculus.trace(every_kind(), IMAGES, [0, 1, 2], cr.CrossEntropy(), training=True),
        calculus.trace(every_kind(), IMAGES[0], np.ones(4), cr.SquaredError()),
    ]
    lines = [line for trace in traces for line in trace.to_latex().splitlines()[1:-1]]
    assert any("a_{1}'^{(1)}" in line for line in lines)
    assert any(r"{W^{(3)}}^\top" in line for line in lines)
    factors = calculus.jacobian_factors(every_kind(), IMAGES[0], 1, cr.CrossEntropy())
    lines += [factors.to_latex()]
    parser = mathtext.MathTextParser("path")
    for line in lines:
        plain = re.sub(r"\\tag\{.*?\}| \\\\$|\\!", "", line).replace("&", "")
        parser.parse(f"${plain}$")


def test_formulas_of_smooth_activations() -> None:
    net = cr.Sequential(
        *(cr.Linear(2), cr.Sigmoid(), cr.Linear(2), cr.GELU(), cr.Linear(1), cr.Tanh()),
        input_shape=(2,),
        seed=1,
    )
    trace = calculus.trace(net, [1.0, 2.0], [0.5], cr.SquaredError())
    formulas = {entry.key: entry.formula.text for entry in trace.entries}
    assert formulas["a^(1)"] == "1 / (1 + exp(−z^(1)))"
    assert formulas["a^(2)"] == "z^(2) ⊙ Φ(z^(2))"
    assert formulas["y_hat"] == "tanh(z^(3))"
    assert formulas["delta^(1)"] == "∂ℓ/∂a^(1) ⊙ a^(1) ⊙ (1 − a^(1))"
    assert formulas["delta^(2)"] == "∂ℓ/∂a^(2) ⊙ (Φ(z^(2)) + z^(2) ⊙ Φ′(z^(2)))"
    assert formulas["delta^(3)"] == "∂ℓ/∂ŷ ⊙ (1 − ŷ²)"
    assert [trace.entry(name).equation for name in ("a^(1)", "delta^(1)")] == ["(33)", "(37)"]
    a, gradient = trace["a^(1)"], trace["∂ℓ/∂a^(1)"]
    np.testing.assert_allclose(trace["δ^(1)"], gradient * a * (1 - a), rtol=1e-14)
    element = trace.entry("delta^(1)").details[(2,)]
    assert element.text == "∂ℓ/∂a_2^(1) · a_2^(1) · (1 − a_2^(1))"
    assert r"\Phi (" in trace.to_latex()


def test_the_code_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = Path(calculus.__file__).with_name("README.md")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    assert "passed: relative error at most" in capsys.readouterr().out
    assert all(matrix.any() for matrix in calculus.gradient_matrices(namespace["net"]))


def test_infinity_and_nan_are_shown() -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 2000.0, 0.0, -2000.0])
    # The probability of the true class is 0 in float64. ∂ℓ/∂ŷ is infinite, but δ is exact.
    trace = calculus.trace(net, [1.0], 1, cr.CrossEntropy())
    assert float(trace["ℓ"]) == 4000
    assert trace["∂ℓ/∂ŷ"].tolist() == [0, -np.inf]
    assert trace["δ^(1)"].tolist() == [1, -1]
    assert "−inf" in str(trace)
    assert r"-\infty" in trace.to_latex()
    assert "svg" not in trace._repr_html_()
    many = cr.Sequential(cr.Linear(20), input_shape=(1,), dtype="float64")
    many.parameter_vector = np.full(40, np.nan)
    page = calculus.trace(many, [1.0], np.zeros(20), cr.SquaredError())
    assert "nan … nan" in str(page)
    assert "<svg" in page._repr_html_()
