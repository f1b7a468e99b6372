"""The data of `equations`: what each equation says, and what realises it.

Where the tutorial states one thing under several numbers, as in (11)-(13) or (58)-(60), each number
here is one part of it.
"""

from __future__ import annotations

_NEURON = r"\begin{cases} 0 & \Theta^\top x \le 0 \\ "

# Section -> number, title, LaTeX in our own notation, names without "chainrule."
MAP: dict[str, tuple[tuple[int, str, str, str], ...]] = {
    "Loss, gradient, descent": (
        (
            1,
            "A loss is a distance, summed over the data, and a regularizer",
            r"L(f) = \sum_{[x,y] \in D} \mathrm{dist}(f(x), y) + \lambda \, r(f)",
            "Loss SGD.l2",
        ),
        (
            2,
            "The gradient collects the partial derivatives",
            r"\nabla L(\Theta) = \left[ \frac{\partial L}{\partial \theta_1}, \ldots, "
            r"\frac{\partial L}{\partial \theta_n} \right]",
            "Sequential.gradient_vector",
        ),
        (
            3,
            "Squared error, a sum over outputs",
            r"L(\Theta) = \sum_{[x,y] \in D} \| f_\Theta(x) - y \|^2 + \lambda \, r(\Theta)",
            "SquaredError",
        ),
        (
            4,
            "The gradient of a sum is the sum of the gradients",
            r"\nabla L(\Theta) = \sum_{[x,y] \in D} \left[ "
            r"\frac{\partial (f - y)^2}{\partial \theta_1}, \ldots, "
            r"\frac{\partial (f - y)^2}{\partial \theta_n} \right] + \lambda \nabla r(\Theta)",
            "Sequential.loss_and_gradient",
        ),
        (
            5,
            "Twice the residual, times the derivative of the prediction",
            r"\frac{\partial (f - y)^2}{\partial \theta_i} = "
            r"2 \, \frac{\partial f}{\partial \theta_i} \, (f - y)",
            "ops.squared_error calculus.parameter_jacobian",
        ),
        (
            6,
            "Gradient descent",
            r"\Theta \leftarrow \Theta - \eta \, \nabla L(\Theta)",
            "SGD ops.sgd fit",
        ),
        (7, "The L2 regularizer", r"r(\Theta) = \sum_i \theta_i^2", "SGD.l2"),
        (
            8,
            "The gradient of the L2 regularizer",
            r"\nabla \left( \lambda \sum_j \theta_j^2 \right) = 2 \lambda \Theta",
            "ops.sgd",
        ),
    ),
    "The neuron": (
        (
            9,
            "A neuron: a rectified weighted sum",
            r"f_\Theta(x) = " + _NEURON + r"\Theta^\top x & \text{otherwise} \end{cases}",
            "ReLU Linear",
        ),
        (
            10,
            "Its derivative, which is 0 at 0",
            r"\frac{\partial f}{\partial \theta_i} = "
            + _NEURON
            + r"x_i & \text{otherwise} \end{cases}",
            "calculus.parameter_jacobian",
        ),
        (
            11,
            "A neuron's gradient: the data's and the regularizer's",
            r"\nabla L(\Theta) = \nabla \sum_{[x,y] \in D} (f(x) - y)^2 + "
            r"\lambda \nabla \sum_i \theta_i^2",
            "SGD",
        ),
        (
            12,
            "A neuron's gradient, by the chain rule",
            r"\nabla L(\Theta) = 2 \sum_{[x,y] \in D} (f(x) - y) \, \nabla f(x) + 2 \lambda \Theta",
            "Sequential.loss_and_gradient",
        ),
        (
            13,
            "A neuron's gradient: a dead unit moves by its regularizer alone",
            r"\nabla L(\Theta) = 2 \sum_{[x,y] \in D} (f(x) - y) "
            + _NEURON
            + r"x^\top & \text{otherwise} \end{cases} \; + \; 2 \lambda \Theta",
            "calculus.dead_units LeakyReLU",
        ),
    ),
    "The three-unit network": (
        (
            14,
            "Names: layer, neuron, weight from j to i",
            r"a_i^{(l)}, \quad \hat{y}, \quad z_i^{(l)}, \quad w_{ij}^{(l)}",
            "calculus.trace",
        ),
        (15, "The rectifier", r"\sigma(z) = \max(0, z)", "ops.relu ReLU"),
        (
            16,
            "The rectifier's derivative, which is 0 at 0",
            r"\sigma'(z) = \mathbf{1}\{z > 0\}",
            "ops.relu_backward",
        ),
        (
            17,
            "Layer 1",
            r"\begin{aligned} z_i^{(1)} &= w_{i0}^{(1)} + w_{i1}^{(1)} x_1 + w_{i2}^{(1)} x_2 \\ "
            r"a_i^{(1)} &= \sigma(z_i^{(1)}), \quad i = 1, 2 \end{aligned}",
            "examples.three_unit_network",
        ),
        (
            18,
            "Layer 2, before its rectifier",
            r"z_1^{(2)} = w_{10}^{(2)} + w_{11}^{(2)} a_1^{(1)} + w_{12}^{(2)} a_2^{(1)}",
            "examples.three_unit_network",
        ),
        (
            19,
            "The output",
            r"\hat{y} = \sigma(z_1^{(2)})",
            "examples.three_unit_network",
        ),
        (20, "The loss of one instance", r"\ell = (\hat{y} - y)^2", "ops.squared_error"),
        (
            21,
            "The error term",
            r"\delta_i^{(l)} = \frac{\partial \ell}{\partial z_i^{(l)}}",
            "calculus.trace",
        ),
        (
            22,
            "Step 1: the top derivative",
            r"\frac{\partial \ell}{\partial \hat{y}} = 2 (\hat{y} - y)",
            "ops.squared_error",
        ),
        (
            23,
            "Step 2: through the ReLU",
            r"\delta_1^{(2)} = 2 (\hat{y} - y) \, \mathbf{1}\{z_1^{(2)} > 0\}",
            "ops.relu_backward",
        ),
        (
            24,
            "Step 3: the weights of layer 2",
            r"\frac{\partial \ell}{\partial w_{10}^{(2)}} = \delta_1^{(2)}, \quad "
            r"\frac{\partial \ell}{\partial w_{1j}^{(2)}} = \delta_1^{(2)} a_j^{(1)}",
            "ops.linear_backward",
        ),
        (
            25,
            "Step 4: to the hidden activations",
            r"\frac{\partial \ell}{\partial a_j^{(1)}} = \delta_1^{(2)} w_{1j}^{(2)}",
            "ops.linear_backward",
        ),
        (
            26,
            "Step 5: through the hidden ReLUs",
            r"\delta_j^{(1)} = \delta_1^{(2)} w_{1j}^{(2)} \, \mathbf{1}\{z_j^{(1)} > 0\}",
            "ops.relu_backward",
        ),
        (
            27,
            "Step 6: the weights of layer 1",
            r"\frac{\partial \ell}{\partial w_{i0}^{(1)}} = \delta_i^{(1)}, \quad "
            r"\frac{\partial \ell}{\partial w_{ij}^{(1)}} = \delta_i^{(1)} x_j",
            "ops.linear_backward",
        ),
    ),
    "Depth L, width m": (
        (28, "The bias input", r"a_0^{(l)} = 1", "calculus.weight_matrices"),
        (29, "Layer 0 is the input", r"a_j^{(0)} = x_j", "calculus.trace"),
        (30, "The rectifier", r"\sigma(z) = \max(0, z)", "ops.relu"),
        (
            31,
            "The rectifier's derivative",
            r"\sigma'(z) = \mathbf{1}\{z > 0\}",
            "ops.relu_backward",
        ),
        (
            32,
            "Pre-activation",
            r"z_i^{(l)} = \sum_{j=0}^{m} w_{ij}^{(l)} a_j^{(l-1)}",
            "ops.linear Linear",
        ),
        (33, "Activation", r"a_i^{(l)} = \sigma(z_i^{(l)})", "ReLU ops.relu"),
        (34, "The output is the last activation", r"\hat{y} = a^{(L)}", "Sequential.forward"),
        (
            35,
            "The loss of one instance",
            r"\ell = \sum_i (a_i^{(L)} - y_i)^2 = \| a^{(L)} - y \|^2",
            "ops.squared_error SquaredError",
        ),
        (
            36,
            "Error term of the top layer",
            r"\delta_i^{(L)} = 2 (a_i^{(L)} - y_i) \, \sigma'(z_i^{(L)})",
            "ops.relu_backward",
        ),
        (
            37,
            "Error term of a layer below",
            r"\delta_j^{(l)} = \left( \sum_i w_{ij}^{(l+1)} \delta_i^{(l+1)} \right) "
            r"\sigma'(z_j^{(l)}), \quad l = L-1, \ldots, 1",
            "ops.linear_backward",
        ),
        (
            38,
            "Derivative by a bias",
            r"\frac{\partial \ell}{\partial w_{i0}^{(l)}} = \delta_i^{(l)}",
            "ops.linear_backward",
        ),
        (
            39,
            "Derivative by a weight",
            r"\frac{\partial \ell}{\partial w_{ij}^{(l)}} = \delta_i^{(l)} a_j^{(l-1)}",
            "ops.linear_backward",
        ),
        (
            40,
            "The mean loss, biases not regularized",
            r"L_{\text{mean}}(\Theta) = \frac{1}{|D|} \sum_{[x,y] \in D} \| a^{(L)}(x) - y \|^2 + "
            r"\lambda \sum_l \sum_i \sum_{j \ge 1} (w_{ij}^{(l)})^2",
            "SGD.l2 evaluate",
        ),
        (
            41,
            "The mean loss's derivative by a bias",
            r"\frac{\partial L_{\text{mean}}}{\partial w_{i0}^{(l)}} = "
            r"\frac{1}{|D|} \sum_D \delta_i^{(l)}",
            "Sequential.loss_and_gradient",
        ),
        (
            42,
            "The mean loss's derivative by a weight",
            r"\frac{\partial L_{\text{mean}}}{\partial w_{ij}^{(l)}} = "
            r"\frac{1}{|D|} \sum_D \delta_i^{(l)} a_j^{(l-1)} + 2 \lambda w_{ij}^{(l)}",
            "Sequential.loss_and_gradient ops.sgd",
        ),
        (
            43,
            "All weights in a row, each neuron's bias first",
            r"W = (w_{10}^{(1)}, w_{11}^{(1)}, \ldots, w_{1m}^{(1)}, w_{20}^{(1)}, \ldots, "
            r"w_{mm}^{(L)})",
            "Sequential.parameter_vector",
        ),
        (
            44,
            "The gradient, in the same order",
            r"\nabla L_{\text{mean}}(W) = \left( "
            r"\frac{\partial L_{\text{mean}}}{\partial w_{10}^{(1)}}, \ldots, "
            r"\frac{\partial L_{\text{mean}}}{\partial w_{mm}^{(L)}} \right)",
            "Sequential.gradient_vector",
        ),
        (
            45,
            "One matrix a layer, column 0 the bias",
            r"G^{(l)} = \frac{\partial L_{\text{mean}}}{\partial W^{(l)}} "
            r"\in \mathbb{R}^{m \times (m+1)}",
            "calculus.gradient_matrices calculus.weight_matrices",
        ),
    ),
    "Jacobians": (
        (
            46,
            "The Jacobian of a function",
            r"J_f(x) = \frac{\partial f}{\partial x} = "
            r"\left( \frac{\partial f_i}{\partial x_j} \right) \in \mathbb{R}^{m \times n}",
            "calculus.jacobian calculus.layer_jacobian",
        ),
        (
            47,
            "All weights as one vector",
            r"W = \mathrm{vec}(W^{(1)}, \ldots, W^{(L)}) \in \mathbb{R}^P",
            "calculus.vec calculus.parameter_jacobian",
        ),
        (
            48,
            "The Jacobian of the loss is a row",
            r"J_L(W) = \frac{\partial L}{\partial W} \in \mathbb{R}^{1 \times P}",
            "calculus.loss_jacobian",
        ),
        (
            49,
            "The gradient is that row's transpose",
            r"\nabla L(W) = J_L(W)^\top",
            "calculus.loss_jacobian Sequential.gradient_vector",
        ),
        (
            50,
            "The gradient is a mean over instances",
            r"\nabla L(W) = \frac{1}{|D|} \sum_t \nabla \ell_t(W)",
            "Sequential.loss_and_gradient",
        ),
        (
            51,
            "The chain rule, as a product of Jacobians",
            r"J_L(W) = J_\varphi(a^{(L)}) \, J_{a^{(L)}}(z^{(L)}) \cdots "
            r"J_{a^{(1)}}(z^{(1)}) \, J_{z^{(1)}}(W)",
            "calculus.jacobian_factors",
        ),
        (
            52,
            "The gradient is that product's transpose",
            r"\nabla L(W) = J_L(W)^\top",
            "calculus.jacobian_factors Sequential.gradient_vector",
        ),
    ),
    "Other layers": (
        (53, "A linear layer", r"z = W x", "ops.matmul Linear"),
        (
            54,
            "The shapes of a linear layer",
            r"x \in \mathbb{R}^d, \quad W \in \mathbb{R}^{m \times d}",
            "Linear calculus.layer_jacobian",
        ),
        (
            55,
            "Softmax",
            r"a_i = \frac{e^{z_i}}{\sum_k e^{z_k}}",
            "ops.softmax Softmax",
        ),
        (
            56,
            "Softmax's Jacobian, on the diagonal",
            r"\frac{\partial a_i}{\partial z_i} = a_i (1 - a_i)",
            "ops.softmax_backward calculus.layer_jacobian",
        ),
        (
            57,
            "Softmax's Jacobian, off the diagonal",
            r"\frac{\partial a_i}{\partial z_j} = -a_i a_j, \quad i \ne j",
            "ops.softmax_backward calculus.layer_jacobian",
        ),
        (58, "An image", r"x \in \mathbb{R}^{H \times W}", "Conv2d"),
        (
            59,
            "A filter, whose weights are shared",
            r"F = (w_{ij}) \in \mathbb{R}^{r \times s}",
            "Conv2d",
        ),
        (
            60,
            "Convolution",
            r"z_{u,v} = \sum_{i=1}^{r} \sum_{j=1}^{s} w_{ij} \, x_{u+i-1, \, v+j-1}",
            "ops.conv2d Conv2d calculus.layer_jacobian",
        ),
        (
            61,
            "A window and its stride",
            r"r \times s, \quad t",
            "MaxPool2d",
        ),
        (
            62,
            "The size after pooling",
            r"p \in \mathbb{R}^{\left( \lfloor (H - r) / t \rfloor + 1 \right) \times "
            r"\left( \lfloor (W - s) / t \rfloor + 1 \right)}",
            "MaxPool2d.build MaxPool2d",
        ),
        (
            63,
            "Max pooling",
            r"p_{u,v} = \max_{i,j} \, z_{t(u-1)+i, \, t(v-1)+j}",
            "ops.max_pool2d MaxPool2d",
        ),
        (
            64,
            "A one-hot target",
            r"y_i = \mathbf{1}\{i = c\}",
            "data.one_hot",
        ),
        (
            65,
            "Predicted probabilities",
            r"\hat{y} = \mathrm{softmax}(z^{(L)}), \quad \sum_i \hat{y}_i = 1",
            "ops.softmax",
        ),
        (
            66,
            "Cross-entropy",
            r"\ell = -\sum_i y_i \log \hat{y}_i",
            "CrossEntropy ops.softmax_cross_entropy",
        ),
        (
            67,
            "Cross-entropy asks for the correct class alone",
            r"\ell = -\log \hat{y}_c",
            "ops.softmax_cross_entropy CrossEntropy",
        ),
    ),
}
